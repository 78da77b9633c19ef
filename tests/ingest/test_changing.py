"""Sources that change while they are read: what is kept is some state of each file, and what changed is said."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from spraydry.actions.ingest import Ingested, ingest
from spraydry.actions.ingest.content import CHANGED, Reader
from spraydry.repository.repository import Repository
from tests.ingest.trees import (
    age,
    differences,
    entry_at,
    fill,
    names_in,
    needs_root,
    read_back,
    taken,
    version_of,
)


def hit(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, source: Path, before_opening: Callable[[], object]
) -> Ingested:
    """An ingest in which something happens to the source between the scan and the reading."""
    real = Reader.tasks

    def tasks(self: Reader, works: object) -> object:
        before_opening()
        return real(self, works)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "tasks", tasks)
        return ingest(repository, [str(source)], root="r", threads=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "s"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "f", "sub/g", "z"):
        (folder / name).write_text(name * 1000)
    return folder


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("what", "kept"),
    [
        (lambda s: (s / "f").unlink(), None),
        (lambda s: (s / "f").write_text("shorter"), b"shorter"),
        (lambda s: (s / "f").write_text("longer " * 10_000), b"longer " * 10_000),
        (lambda s: (s / "f").write_text(""), b""),
        (lambda s: _replace(s / "f", lambda p: p.symlink_to("/etc/passwd")), None),
        (lambda s: _replace(s / "f", os.mkfifo), None),
        (lambda s: _replace(s / "f", lambda p: p.mkdir()), None),
        (lambda s: _replace(s / "f", lambda p: p.write_text("another file")), b"another file"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_between_the_look_and_the_read(
    repository: Repository,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[Path], object],
    kept: bytes | None,
    large: bool,
) -> None:
    if large:
        (source / "f").write_bytes(b"large" * (2 << 20))
    result = hit(repository, monkeypatch, source, lambda: what(source))
    assert {"a", "sub/g", "z"} <= names_in(repository, result)
    if kept is None:
        assert [path for path, _ in result.problems] == [os.fsencode(source / "f")]
        assert "f" not in names_in(repository, result)
        assert version_of(result).record.incomplete
    else:
        assert result.problems == []
        assert read_back(repository, result, "f") == kept
    assert differences(repository, version_of(taken(repository, source)), source) == []


@pytest.mark.parametrize("swap", ["symlink", "gone", "file"])
def test_a_directory_swapped_meanwhile(
    repository: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    """Nothing outside the source is ever read."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/g").write_text("from outside")

    def change() -> None:
        (source / "sub").rename(tmp_path / "moved")
        if swap == "symlink":
            (source / "sub").symlink_to(tmp_path / "secret")
        elif swap == "file":
            (source / "sub").write_text("x")

    result = hit(repository, monkeypatch, source, change)
    assert [path for path, _ in result.problems] == [os.fsencode(source / "sub/g")]
    assert "sub/g" not in names_in(repository, result)


def test_a_directory_swapped_while_it_is_entered(
    repository: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def swap(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"sub" and flags & os.O_DIRECTORY and not (source / "sub").is_symlink():
            (source / "sub").rename(tmp_path / "moved")
            (source / "sub").symlink_to("/etc")
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr("spraydry.actions.ingest.scan.os.open", swap)
        result = ingest(repository, [str(source)], root="r")
    assert [path for path, _ in result.problems] == [os.fsencode(source / "sub")]
    assert not any(name.startswith("sub/") for name in names_in(repository, result))


@pytest.mark.parametrize("size", [100_000, 9 << 20])
@pytest.mark.parametrize("how", ["in place", "grows", "shrinks"])
def test_changing_all_the_time(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, size: int, how: str
) -> None:
    """It is read three times; then what was read last is kept, and said."""
    (source / "f").write_bytes(bytes(range(1, 251)) * (size // 250))
    lengths = []
    name = "_read_whole" if size < 8 << 20 else "_read_at"
    real = getattr(__import__("spraydry.actions.ingest.content", fromlist=["x"]), name)
    touched = 0

    def changing(fd: int, *arguments: object) -> bytes:
        nonlocal touched
        plain: bytes = real(fd, *arguments)
        if os.fstat(fd).st_size > 50_000:
            touched += 1
            with open(source / "f", "r+b") as file:
                if how == "in place":
                    file.write(b"%d" % touched)
                elif how == "grows":
                    file.seek(0, 2)
                    file.write(b"more")
                else:
                    file.truncate(os.fstat(fd).st_size - 1)
            os.utime(source / "f", ns=(touched, touched))
            lengths.append(len(plain))
        return plain

    with monkeypatch.context() as patch:
        patch.setattr(f"spraydry.actions.ingest.content.{name}", changing)
        result = ingest(repository, [str(source)], root="r", threads=1)
    assert result.problems == [(os.fsencode(source / "f"), CHANGED)]
    assert version_of(result).record.incomplete
    entry = entry_at(repository, result, "f")
    assert len(read_back(repository, result, "f")) == entry.size
    assert taken(repository, source).new
    assert differences(repository, repository.log.find("r"), source) == []


def test_a_writer_beside(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    """A thread that writes, truncates, renames and removes while versions are made: no version is ever unreadable."""
    source = tmp_path / "s"
    fill(source, rng, 120)
    stop = threading.Event()

    def write() -> None:
        own = random.Random(5)
        while not stop.is_set():
            file = source / f"d{own.randrange(7)}" / f"f{own.randrange(120):05d}.{own.choice(('txt', 'py'))}"
            try:
                match own.randrange(6):
                    case 0:
                        file.unlink()
                    case 1:
                        file.write_bytes(own.randbytes(own.randrange(60_000)))
                    case 2:
                        os.truncate(file, own.randrange(100))
                    case 3:
                        file.rename(file.with_suffix(".renamed"))
                    case 4:
                        file.parent.rename(source / f"d{own.randrange(9)}")
                    case 5:
                        file.mkdir()
            except OSError:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            result = ingest(repository, [str(source)], root="r")
            assert result.version is not None
    finally:
        stop.set()
        thread.join()
    age()
    for version in repository.versions("r"):
        for found in repository.walk(str(version)):
            if found.entry.kind == 1:
                with repository.open_file(found) as stream:
                    assert len(stream.read()) == found.entry.size
    assert differences(repository, version_of(taken(repository, source)), source) == []


@pytest.mark.root
@needs_root
def test_what_cannot_be_read(tmp_path: Path) -> None:
    """As an unprivileged user: exit code 3, each one named, the rest kept."""
    home = Path(tempfile.mkdtemp())  # pytest's own are closed to others
    source = home / "s"
    (source / "closed").mkdir(parents=True)
    (source / "noexec").mkdir()
    for name in ("open", "secret", "closed/x", "noexec/y"):
        (source / name).write_text(name)
    (source / "secret").chmod(0)
    (source / "closed").chmod(0)
    (source / "noexec").chmod(0o444)
    for path in (home, *home.rglob("*")):
        os.chown(path, 65534, 65534)
    try:
        # The interpreter may lie where nobody may look: everything is imported before the rights are given up.
        code = (
            "import os, sys, tempfile\n"
            "from spraydry.cli import run\n"
            "os.environ['XDG_CACHE_HOME'] = sys.argv[1] + '/cache'\n"
            "with tempfile.TemporaryDirectory() as warm:\n"
            "    os.environ['XDG_CACHE_HOME'] = warm\n"
            "    run(['--repo', warm + '/r', 'ingest', sys.argv[1] + '/s/noexec', '--dry-run', '--root', 'w'])\n"
            "    run(['--repo', warm + '/r', 'ingest', sys.argv[1] + '/s/noexec', '--root', 'w'])\n"
            "os.environ['XDG_CACHE_HOME'] = sys.argv[1] + '/cache'\n"
            "sys.stdout.flush()\n"
            "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
            "sys.exit(run(['--repo', sys.argv[1] + '/r.sqlite', 'ingest', sys.argv[1] + '/s']))\n"
        )
        done = subprocess.run([sys.executable, "-c", code, home], capture_output=True)
        assert done.returncode == 3, done.stderr
        assert done.stderr.count(b"Permission denied\n") == 3
        assert b"incomplete" in done.stdout
        with Repository.open(str(home / "r.sqlite")) as repository:
            assert names_in(repository, repository.log.find("s")) == {"open", "closed", "noexec"}
            assert entry_at(repository, repository.log.find("s"), "closed").mode == 0
    finally:
        shutil.rmtree(home)


def test_what_was_read_elsewhere_is_not_remembered(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directories swap their names for the time of the reading: sizes and times of one, bytes of the other."""
    for name in ("one", "two"):
        (source / name).mkdir()
        (source / name / "f").write_text(f"in {name}")
        os.link(source / name / "f", source / name / "linked")
        os.utime(source / name / "f", (1, 1))

    def swap() -> None:
        (source / "one").rename(source / "x")
        (source / "two").rename(source / "one")
        (source / "x").rename(source / "two")

    age()
    hit(repository, monkeypatch, source, swap)
    swap()
    assert differences(repository, version_of(taken(repository, source)), source) == []
