"""Several ingests at once into one repository, the same tree in other places, and bounds on memory."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.format.entry import FILE
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from tests.ingest.trees import command, differences, fill, taken, version_of


def _start(repo: str, source: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from spraydry.cli import main; main()", "--repo", repo, "ingest", str(source), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("same_root", [True, False])
def test_at_once(repository_path: str, tmp_path: Path, same_root: bool) -> None:
    sources = []
    for number in range(3):
        fill(tmp_path / f"s{number}", random.Random(number), 60)
        fill(tmp_path / f"s{number}", random.Random(99), 30)  # alike in all of them
        sources.append(tmp_path / f"s{number}")
    for _ in range(2):
        running = [
            _start(repository_path, source, "--json", *(("--root", "r") if same_root else ())) for source in sources
        ]
        made = []
        for process, source in zip(running, sources, strict=True):
            out, err = process.communicate(timeout=200)
            assert process.returncode == 0, err
            told = json.loads(out)
            made.append((f"{told['root']}@{told['version']}", source))
        assert len(set(made)) == 3
        with Repository.open(repository_path) as repository:
            assert not repository.damaged_runs
            for name, source in made:
                assert differences(repository, repository.resolve(name).version, source) == []
        for source in sources:
            (source / "changed").write_text(f"changed in {source}")


def test_runs_merged_by_two_at_once(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process merges them between the look and the reading."""
    (tmp_path / "s").mkdir()
    for number in range(7):
        (tmp_path / "s/f").write_text(f"{number}" * 100)
        taken(repository, tmp_path / "s")
    with Repository.open(repository.url) as other:
        (tmp_path / "s/f").write_text("last")
        real = type(repository.store).get
        merged = 0

        def get(self: object, namespace: str, name: str, *more: object) -> bytes:
            nonlocal merged
            if namespace == "index" and self is repository.store and not merged:
                merged = 1
                merged = merge_runs(other)
            return real(self, namespace, name, *more)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(type(repository.store), "get", get)
            result = taken(repository, tmp_path / "s")
        assert merged > 1
        assert differences(repository, version_of(result), tmp_path / "s") == []
    with Repository.open(repository.url) as fresh:
        assert not fresh.damaged_runs
        fresh.rebuild_catalog()
        for version in fresh.versions("r"):
            for found in fresh.walk(str(version)):
                if found.entry.kind == FILE:
                    with fresh.open_file(found) as stream:
                        stream.read()


def test_the_same_tree_elsewhere(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    """Another place, other inodes, another order in the directories, another file system: the same digest."""
    fill(tmp_path / "a", rng, 200)
    (tmp_path / "a/link").symlink_to("d1")
    os.link(tmp_path / "a/d1/f00001.py", tmp_path / "a/d2/hard")
    os.mkfifo(tmp_path / "a/fifo")
    first = taken(repository, tmp_path / "a", root="a")
    places = [tmp_path / "somewhere/else", Path("/dev/shm") / f"spraydry-canonical-{os.getpid()}"]
    for place in places:
        try:
            place.mkdir(parents=True)
        except OSError:
            continue
        try:
            paths = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*"))
            folders = [path for path in paths if (tmp_path / "a" / path).is_dir() and str(path) != "link"]
            for path in reversed(folders):
                (place / path).mkdir(parents=True, exist_ok=True)
            for path in reversed(paths):
                old, new = tmp_path / "a" / path, place / path
                if old.is_symlink():
                    new.symlink_to(os.readlink(old))
                elif str(path) == "d2/hard":
                    continue
                elif str(path) == "fifo":
                    os.mkfifo(new)
                elif old.is_file():
                    shutil.copyfile(old, new)
            os.link(place / "d1/f00001.py", place / "d2/hard")
            for path in [*paths, Path()]:
                status = (tmp_path / "a" / path).lstat()
                if not (place / path).is_symlink():
                    (place / path).chmod(status.st_mode & 0o7777)
                os.utime(place / path, ns=(status.st_mtime_ns,) * 2, follow_symlinks=False)
            second = taken(repository, place, root="b")
            assert version_of(second).record.entry == version_of(first).record.entry
            assert version_of(second).record.links == version_of(first).record.links
            assert second.stored_bytes == 0
        finally:
            shutil.rmtree(place)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_number_of_threads_says_nothing(
    repository: Repository, tmp_path: Path, rng: random.Random, threads: int
) -> None:
    fill(tmp_path / "a", rng, 300)
    taken(repository, tmp_path / "a")
    assert not taken(repository, tmp_path / "a", threads=threads, chunker=None, level=1).new


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    source, rng = tmp_path / "s", random.Random(1)
    for number in range(30_000):
        if number % 100 == 0:
            (source / f"d{number // 100}").mkdir(parents=True)
        with open(f"{source}/d{number // 100}/f{number}", "wb") as file:
            file.write(b"%d" % number * 20)
    for number in range(4):
        with open(source / f"large{number}", "wb") as file:
            for _ in range(50):
                file.write(rng.randbytes(1 << 20))
    code = (  # ru_maxrss would begin with what this process takes
        "import re, sys\n"
        "from spraydry.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    for memory, limit in (("128M", 300 << 10), ("300M", 300 << 10)):
        repo = tmp_path / f"{memory}.sqlite"
        done = subprocess.run(
            [sys.executable, "-c", code, "--repo", repo, "ingest", source, "--memory", memory, "--json"],
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        peak = int(done.stderr.split()[-1])
        assert peak < limit, f"{peak >> 10} MiB"


def test_options_of_the_command(tmp_path: Path) -> None:
    fill(tmp_path / "s", random.Random(3), 10)
    done = command("--repo", tmp_path / "r", "ingest", tmp_path / "s", "--memory", "128M", "--threads", "1")
    assert done.returncode == 0, done.stderr
