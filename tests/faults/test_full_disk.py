"""A disk that is full, and Ctrl-C: one clear line, nothing lost, and the next run goes on from what was stored."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.repository.repository import Repository
from tests.ingest.trees import command, differences, taken, version_of
from tests.store_contract import size_of

INTERRUPTED = b"spraydry: interrupted; what was stored is kept: run it again to go on\n"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"CANNOT MOUNT a tmpfs, so full disks are NOT TESTED here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.root
def test_a_full_disk(tmp_path: Path, small_disk: Path, rng: random.Random) -> None:
    source, repo = tmp_path / "s", small_disk / "r.sqlite"
    source.mkdir()
    (source / "first").write_bytes(rng.randbytes(500_000))
    assert command("--repo", repo, "ingest", source).returncode == 0
    for number in range(40):
        (source / f"more{number}").write_bytes(rng.randbytes(1_000_000))
    for size in ("4m", "12m", "13m", "20m", "30m"):
        resize(small_disk, size)
        done = command("--repo", repo, "ingest", source)
        assert done.returncode == 8, (size, done.stderr)
        assert done.stderr.count(b"\n") == 1 and b"no room is left" in done.stderr
        assert b"r.sqlite" in done.stderr
        with Repository.open(str(repo), read_only=True) as repository:
            assert [version.name for version in repository.versions("s")] == ["v1"]
            with repository.open_file("s:first") as stream:
                assert stream.read() == (source / "first").read_bytes()
    resize(small_disk, "100m")
    done = command("--repo", repo, "ingest", source, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["version"] == "v2"
    assert told["stored_bytes"] < 32_000_000  # of 40: the rest was there
    with Repository.open(str(repo), read_only=True) as repository:
        assert differences(repository, repository.log.find("s"), source) == []


@pytest.mark.root
def test_a_disk_that_fills_at_any_byte(tmp_path: Path, small_disk: Path, rng: random.Random) -> None:
    """Room for a little more each time, until it is enough."""
    source, repo = tmp_path / "s", small_disk / "r.sqlite"
    source.mkdir()
    for number in range(30):
        (source / f"{number}").write_bytes(rng.randbytes(3000))
    seen = set()
    for room in range(0, 900, 12):
        resize(small_disk, "4m")
        for path in small_disk.iterdir():
            path.unlink()
        (small_disk / "ballast").write_bytes(bytes((4 << 20) - (room << 10)))
        try:
            with Repository.open(str(repo), create=True) as repository:
                ingest(repository, [str(source)], root="r")
            seen.add("done")
        except Exception as error:
            assert type(error).__name__ == "StoreFull", (room, repr(error))
            seen.add("full")
        (small_disk / "ballast").unlink()
        with Repository.open(str(repo), create=True) as repository:
            assert differences(repository, version_of(taken(repository, source)), source) == []
    assert seen == {"done", "full"}


@pytest.mark.root
def test_no_inodes_left(tmp_path: Path, small_disk: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "f").write_text("x")
    subprocess.run(["mount", "-o", "remount,nr_inodes=1", small_disk], check=False, capture_output=True)
    done = command("--repo", small_disk / "r.sqlite", "ingest", source)
    if done.returncode == 0:
        pytest.skip("NOT POSSIBLE here: a tmpfs without inodes")
    assert done.returncode == 8 and done.stderr.count(b"\n") == 1


@pytest.mark.root
def test_no_room_for_scratch_files(tmp_path: Path, small_disk: Path, rng: random.Random) -> None:
    """SQLite's temporary files: the scan of many files does not fit there."""
    source, repo = tmp_path / "s", tmp_path / "r.sqlite"
    source.mkdir()
    (source / "f").write_text("x")
    assert command("--repo", repo, "ingest", source).returncode == 0
    for number in range(3000):
        (source / f"{number}{'x' * 200}").write_bytes(b"")
    code = (
        "import sys\n"
        "import spraydry.actions.ingest.nodes as nodes\n"
        "nodes._CACHE_BYTES, nodes._BUFFERED_ROWS = 64 << 10, 10\n"
        "from spraydry.cli import main\n"
        "main()\n"
    )
    (small_disk / "ballast").write_bytes(bytes((4 << 20) - (100 << 10)))
    done = subprocess.run(
        [sys.executable, "-c", code, "--repo", repo, "ingest", source],
        env={**os.environ, "SQLITE_TMPDIR": str(small_disk), "TMPDIR": str(small_disk)},
        capture_output=True,
    )
    assert done.returncode == 8, done.stderr
    assert done.stderr.count(b"\n") == 1 and b"room" in done.stderr
    assert command("--repo", repo, "ingest", source).returncode == 0


# -- Ctrl-C

_INTERRUPTED_AT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
from spraydry.commands.progress import Progress
at = int(os.environ["AT"])
def __call__(self, done):
    if done.phase == "reading" and done.bytes >= at or done.phase == os.environ.get("PHASE"):
        os.kill(os.getpid(), signal.SIGINT)
Progress.__call__ = __call__
from spraydry.cli import main
main()
"""


@pytest.mark.parametrize("files", [12, 1])
def test_interrupted(tmp_path: Path, rng: random.Random, files: int) -> None:
    """What was stored counts: the next run stores the rest only."""
    source, repo = tmp_path / "s", tmp_path / "r.sqlite"
    source.mkdir()
    for number in range(files):
        (source / f"{number:02}").write_bytes(rng.randbytes((24 << 20) // files))
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_AT, "--repo", repo, "ingest", source],
        env={**os.environ, "AT": str(12 << 20)},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)
    with Repository.open(str(repo), read_only=True) as repository:
        assert repository.roots() == []
    told = json.loads(command("--repo", repo, "ingest", source, "--json").stdout)
    assert told["version"] == "v1"
    assert told["stored_bytes"] < 16 << 20
    with Repository.open(str(repo), read_only=True) as repository:
        assert differences(repository, repository.log.find("s"), source) == []


@pytest.mark.parametrize("phase", ["looking", "making trees"])
def test_interrupted_in_other_phases(tmp_path: Path, phase: str) -> None:
    source, repo = tmp_path / "s", tmp_path / "r.sqlite"
    source.mkdir()
    for number in range(1100):
        (source / f"{number}").write_bytes(b"%d" % number)
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_AT, "--repo", repo, "ingest", source],
        env={**os.environ, "AT": "999999999", "PHASE": phase},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (130, INTERRUPTED)
    assert command("--repo", repo, "ingest", source).returncode == 0


@pytest.mark.parametrize("name", ["frame_info", "encode_run", "digest"])
def test_interrupted_while_storing(
    repository: Repository, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In the midst of a batch, at each of its steps: no run names what is not there."""
    source = tmp_path / "s"
    writer, storer = (sys.modules[f"spraydry.repository.{module}"] for module in ("writer", "storer"))
    monkeypatch.setattr(writer, "_BATCH_BYTES", 20_000)
    monkeypatch.setattr(writer, "_RUN_BYTES", 50_000)
    monkeypatch.setattr(sys.modules["spraydry.actions.ingest.ingest"], "FRAME_TARGET_BYTES", 8_000)
    source.mkdir()
    real = getattr(storer, name)
    interrupted = 0
    for point in range(1, 25):
        (source / f"{point}").write_bytes(rng.randbytes(120_000))
        calls = 0

        def interrupting(*arguments: object, at: int = point) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(storer, name, interrupting)
            try:
                ingest(repository, [str(source)], root="r", threads=1)
            except KeyboardInterrupt:
                interrupted += 1
        with Repository.open(repository.url) as fresh:
            assert not fresh.damaged_runs
            for number, info in fresh.catalog.frames():
                assert size_of(fresh.store, "frames", info.name.hex()) == info.stored, number
        assert differences(repository, version_of(taken(repository, source)), source) == []
    assert interrupted >= 2


def test_terminated(tmp_path: Path, rng: random.Random) -> None:
    """SIGTERM at any moment is no worse than kill -9."""
    source, repo = tmp_path / "s", tmp_path / "r.sqlite"
    source.mkdir()
    (source / "f").write_bytes(rng.randbytes(30 << 20))
    process = subprocess.Popen(
        [sys.executable, "-c", "from spraydry.cli import main; main()", "--repo", str(repo), "ingest", str(source)]
    )
    while not repo.exists() and process.poll() is None:
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert command("--repo", repo, "ingest", source).returncode == 0
