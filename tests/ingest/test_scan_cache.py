"""What is unchanged is not opened; and the cache that knows it never makes an ingest wrong, whatever happens to it."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from spraydry.actions.ingest import Ingested, ingest
from spraydry.format.version import RemovalRecord
from spraydry.repository.local import cache_folder
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from tests.ingest.trees import (
    NOBODY,
    age,
    as_nobody,
    differences,
    fill,
    held_by_this_process,
    names_in,
    read_back,
    taken,
    version_of,
)


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    """A small tree, old enough to be remembered."""
    fill(tmp_path / "s", rng, 40)
    (tmp_path / "s/link").symlink_to("d1")
    age()
    return tmp_path / "s"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the files (not directories) that an ingest opens."""
    names: list[bytes] = []
    real = os.open

    def count(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is not None and not flags & os.O_DIRECTORY:
            names.append(os.fsencode(path))
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("spraydry.actions.ingest.content.os.open", count)
    return names


def cache_file(repository: Repository, root: str = "r") -> Path:
    return Path(cache_folder(repository.config.repository)) / f"scan-{root}.sqlite"


def correct(repository: Repository, source: Path, read: int | None = None, new: bool = False) -> Ingested:
    """An ingest whose result equals the source, having read `read` files."""
    result = taken(repository, source)
    assert differences(repository, version_of(result), source) == []
    assert result.new is new
    if read is not None:
        assert result.read_files == read
    return result


def test_nothing_is_opened_when_nothing_changed(repository: Repository, source: Path, opened: list[bytes]) -> None:
    taken(repository, source)
    assert len(opened) == 40
    opened.clear()
    taken(repository, source)
    assert opened == []
    (source / "d1/new").write_text("x")
    (source / "d2/f00002.bin").write_text("changed")
    taken(repository, source)
    assert sorted(opened) == [b"d1/new", b"d2/f00002.bin"]


@pytest.mark.root
def test_files_without_permission_are_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unprivileged: files of mode 000 cannot be opened, and need not be."""
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT: not tested here")
    # What is imported when it is first needed may lie where nobody may look.
    (tmp_path / "warm").mkdir()
    (tmp_path / "warm/f").write_text("x")
    with Repository.open(str(tmp_path / "warm.sqlite"), create=True) as repository:
        taken(repository, tmp_path / "warm")
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to others
        os.chown(place, NOBODY, NOBODY)
        monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(place, "cache"))
        _without_permission(Path(place))


def _without_permission(folder: Path) -> None:
    with as_nobody():
        (folder / "s").mkdir()
        for name in "abc":
            (folder / "s" / name).write_text(name)
            (folder / "s" / name).chmod(0o400)
        age()
        with Repository.open(str(folder / "r.sqlite"), create=True) as repository:
            assert taken(repository, folder / "s").read_files == 3
            for name in "ab":
                (folder / "s" / name).chmod(0)  # this changes ctime: they would have to be read
            result = ingest(repository, [str(folder / "s")], root="r")
            assert {path[-1:] for path, _ in result.problems} == {b"a", b"b"}
            assert names_in(repository, result) == {"c"}
            assert version_of(result).record.incomplete
            (folder / "s/a").chmod(0o400)
            (folder / "s/b").chmod(0o400)
            assert differences(repository, version_of(taken(repository, folder / "s")), folder / "s") == []


# -- what must be seen


def test_mtime_set_back(repository: Repository, source: Path) -> None:
    correct(repository, source, new=True)
    file = source / "d1/f00001.py"
    before = file.stat()
    plain = bytearray(file.read_bytes())
    plain[0] ^= 1
    file.write_bytes(plain)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    correct(repository, source, 1, new=True)


def test_another_inode_of_equal_size_and_mtime(repository: Repository, source: Path) -> None:
    correct(repository, source, new=True)
    file = source / "d1/f00001.py"
    before = file.stat()
    other = source.parent / "other"
    other.write_bytes(bytes(before.st_size))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(file)
    correct(repository, source, 1, new=True)


def test_swapped_files(repository: Repository, source: Path) -> None:
    correct(repository, source, new=True)
    one, two = source / "d1/f00001.py", source / "d1/f00008.txt"
    one.rename(source / "x")
    two.rename(one)
    (source / "x").rename(two)
    correct(repository, source, new=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: (s / "d1").rename(s / "renamed"),
        lambda s: (s / "d1").rename(s / "d2/below"),
        lambda s: [(s / "d1").rename(s / "x"), (s / "d2").rename(s / "d1"), (s / "x").rename(s / "d2")],
        lambda s: [(s / "d3/f00003.json").unlink(), (s / "d3/f00003.json").mkdir()],
        lambda s: [(s / "d3/f00003.json").unlink(), (s / "d3/f00003.json").symlink_to("x")],
        lambda s: (s / "d3/f00003.json").unlink(),
        lambda s: [(s / "link").unlink(), (s / "link").symlink_to("d2")],
        lambda s: (s / "d4").chmod(0o711),
        lambda s: os.setxattr(s / "d4/f00004.txt", "user.x", b"1"),
        lambda s: os.setxattr(s / "d4", "user.x", b"1"),
        lambda s: os.utime(s / "d4", (1, 1)),
        lambda s: os.link(s / "d4/f00004.txt", s / "d5/linked"),
        lambda s: [file.unlink() for file in (s / "d6").iterdir()] and (s / "d6").rmdir(),
        lambda s: (s / "d1/deep/er").mkdir(parents=True),
    ],
)
def test_every_kind_of_change_is_seen(repository: Repository, source: Path, change: Callable[[Path], object]) -> None:
    correct(repository, source, new=True)
    change(source)
    correct(repository, source, new=True)
    age()
    correct(repository, source, new=False)
    correct(repository, source, 0, new=False)


def test_random_changes(repository: Repository, source: Path, rng: random.Random) -> None:
    """Many small changes one after another: each version equals the source then, and the one from a fresh look."""
    for _ in range(25):
        for _ in range(rng.randrange(1, 4)):
            files = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
            folders = sorted(path for path in source.rglob("*") if path.is_dir() and not path.is_symlink())
            file, folder = rng.choice(files), rng.choice(folders)
            match rng.randrange(7):
                case 0:
                    file.write_bytes(rng.randbytes(rng.randrange(100)))
                case 1:
                    file.unlink()
                case 2 if file.parent != folder:
                    file.rename(folder / file.name)
                case 3:
                    (folder / f"n{rng.randrange(1000)}").mkdir(exist_ok=True)
                case 4:
                    os.link(file, folder / f"h{rng.randrange(10**9)}")
                case 5:
                    (folder / f"f{rng.randrange(10**9)}").write_bytes(b"new")
                case 6 if folder.parent != source and file.parent != folder:
                    folder.rename(source / f"m{rng.randrange(10**9)}")
        result = taken(repository, source)
        fresh = taken(repository, source, root=f"fresh{rng.randrange(10**9)}")
        assert version_of(result).record.entry == version_of(fresh).record.entry
        assert version_of(result).record.links == version_of(fresh).record.links
    assert differences(repository, version_of(result), source) == []


# -- within one tick of the clock


@pytest.mark.parametrize(
    ("changed_ns", "ticks_for_ns"),
    [
        (1_800_000_000_000_000_001, 100_000_000),
        (1_800_000_000_000_000_000, 2_100_000_000),  # where only whole seconds are kept, every other one on FAT
    ],
)
def test_what_was_just_changed_is_looked_at_again(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch, changed_ns: int, ticks_for_ns: int
) -> None:
    """Two changes within one tick of the file system's clock leave equal times."""
    file, folder = source / "d1/f00001.py", source / "d2"
    monkeypatch.setattr(sys.modules["spraydry.actions.ingest.scan"], "folded", lambda _: changed_ns)  # no tick since

    def begins(after_ns: int) -> None:
        clock = SimpleNamespace(time_ns=lambda: changed_ns + after_ns, monotonic=time.monotonic)
        monkeypatch.setattr(sys.modules["spraydry.actions.ingest.ingest"], "time", clock)

    begins(ticks_for_ns)
    correct(repository, source, 40, new=True)
    file.write_bytes(file.read_bytes()[::-1])
    correct(repository, source, 40, new=True)
    folder.chmod(0o711)
    correct(repository, source, 40, new=True)
    begins(ticks_for_ns + 1)
    correct(repository, source, 40)
    correct(repository, source, 0)


def test_a_file_from_the_future_is_never_trusted(repository: Repository, source: Path) -> None:
    correct(repository, source, new=True)
    file = source / "d1/f00001.py"
    os.utime(file, (2**33, 2**33))
    age()
    correct(repository, source, 1, new=True)
    correct(repository, source, 0)  # it is the time of the change that counts


def test_changed_between_the_look_and_the_read(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is newer than what was seen: then what was seen must not stand for it."""
    from spraydry.actions.ingest.content import Reader

    real = Reader.run
    file = source / "d1/f00001.py"

    def late(self: Reader, task: object) -> object:
        if file.read_bytes() != b"later":
            file.write_bytes(b"later")
        return real(self, task)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "run", late)
        result = taken(repository, source)
    assert read_back(repository, result, "d1/f00001.py") == b"later"
    file.write_bytes(b"LATER")
    assert read_back(repository, taken(repository, source), "d1/f00001.py") == b"LATER"


# -- when it must not be used


def test_not_after_its_version_was_removed(repository: Repository, source: Path) -> None:
    first = version_of(taken(repository, source))
    repository.log.append(
        lambda previous, now: RemovalRecord(
            format=RECORD_FORMAT, previous=previous, made_ns=now, made_by="t", slot=first.slot
        )
    )
    correct(repository, source, 40, new=True)


def test_not_with_another_chunker(repository: Repository, source: Path) -> None:
    taken(repository, source)
    assert taken(repository, source, chunker="fixed:size=64K").read_files == 40
    assert taken(repository, source).read_files == 0


def test_not_for_another_source(repository: Repository, source: Path, tmp_path: Path) -> None:
    taken(repository, source)
    fill(tmp_path / "other", random.Random(7), 5)
    result = taken(repository, tmp_path / "other")
    assert differences(repository, version_of(result), tmp_path / "other") == []
    assert taken(repository, source).read_files == 40


def test_not_what_an_older_version_knew_of_a_directory_that_could_not_be_read(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest version does not hold it, so it need not be stored any more."""
    taken(repository, source)
    real = os.open

    def refuse(path: bytes | str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"d1" and flags & os.O_DIRECTORY:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr("spraydry.actions.ingest.scan.os.open", refuse)
        result = ingest(repository, [str(source)], root="r")
    assert [path for path, _ in result.problems] == [os.fsencode(source / "d1")]
    assert "d1" in names_in(repository, result) and "d1/f00001.py" not in names_in(repository, result)
    in_d1 = len(list((source / "d1").iterdir()))
    correct(repository, source, in_d1, new=True)


def test_an_incomplete_version_is_made_complete(
    repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spraydry.actions.ingest.content import Reader

    real = Reader._open

    def broken(self: Reader, work: object) -> int:
        if work.name == b"f00003.json":  # type: ignore[attr-defined]
            raise OSError(5, "Input/output error")
        return real(self, work)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "_open", broken)
        for _ in range(2):  # it is said each time
            result = ingest(repository, [str(source)], root="r")
            assert result.problems == [(os.fsencode(source / "d3/f00003.json"), "Input/output error")]
            assert version_of(result).record.incomplete
    correct(repository, source, 1, new=True)


# -- what may happen to its file


@pytest.mark.parametrize("what", ["delete", "empty", "text", "cut", "directory", "other database", "newer"])
def test_a_strange_cache_costs_one_full_read(repository: Repository, source: Path, what: str) -> None:
    correct(repository, source, 40, new=True)
    file = cache_file(repository)
    plain = file.read_bytes()
    for ending in ("-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)
    file.unlink()
    match what:
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_bytes(b"no database at all\n" * 1000)
        case "cut":
            file.write_bytes(plain[: len(plain) // 2])
        case "directory":
            file.mkdir()
        case "other database":
            other = apsw.Connection(str(file))
            other.execute("CREATE TABLE x(y)")
            other.close()
        case "newer":
            file.write_bytes(plain[:60] + (99).to_bytes(4, "big") + plain[64:])
    correct(repository, source, 40)
    if what != "directory":
        correct(repository, source, 0)


def test_flipped_bits_in_the_cache(repository: Repository, source: Path, rng: random.Random) -> None:
    """What is damaged is never taken for true."""
    correct(repository, source, 40, new=True)
    repository.store.flush()
    file = cache_file(repository)
    plain = file.read_bytes()
    used = 0
    for _ in range(60):
        damaged = bytearray(plain)
        for _ in range(rng.choice((1, 1, 1, 50))):
            at = rng.randrange(len(plain))
            damaged[at] ^= 1 << rng.randrange(8)
        for ending in ("-wal", "-shm"):
            Path(f"{file}{ending}").unlink(missing_ok=True)
        file.write_bytes(damaged)
        used += correct(repository, source).read_files < 40
    assert used > 5  # most of the damage lies where nothing is


def test_every_flip_in_a_remembered_directory_is_noticed(repository: Repository, source: Path) -> None:
    correct(repository, source, 40, new=True)
    file = cache_file(repository)
    path = os.fsencode(source / "d3")
    database = apsw.Connection(str(file))
    ((value,),) = database.execute("SELECT value FROM directory WHERE path = ?", (path,)).fetchall()
    database.close()
    assert isinstance(value, bytes)
    plain = file.read_bytes()
    for at in range(0, len(value), 11):
        file.write_bytes(plain)
        database = apsw.Connection(str(file))
        flipped = value[:at] + bytes((value[at] ^ 4,)) + value[at + 1 :]
        database.execute("UPDATE directory SET value = ? WHERE path = ?", (flipped, path))
        database.close()
        result = taken(repository, source)
        assert not result.new and result.read_files > 0, at


def test_a_locked_cache_is_done_without(repository: Repository, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spraydry.stores.database.database.BUSY_TIMEOUT_MS", 50)
    correct(repository, source, 40, new=True)
    other = apsw.Connection(str(cache_file(repository)))
    other.execute("BEGIN IMMEDIATE")
    correct(repository, source, 40)
    other.execute("ROLLBACK")
    other.close()
    correct(repository, source, 0)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with hardly any room."""
    import subprocess

    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"CANNOT MOUNT a tmpfs, so not tested here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_no_room_for_the_cache(
    repository: Repository, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for number in range(4000):
        (source / f"file {number} {'x' * 100}").write_bytes(b"%d" % number)
    age()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny))
    correct(repository, source, 4000, new=True)
    correct(repository, source, 4000)


def test_a_large_directory_is_remembered_in_pages(repository: Repository, tmp_path: Path, opened: list[bytes]) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for number in range(5000):
        (source / f"{number:05d}").write_bytes(b"")
    age()
    correct(repository, source, 5000, new=True)
    correct(repository, source, 0)
    for number in range(0, 5000, 2):
        (source / f"{number:05d}").unlink()
    correct(repository, source, 0, new=True)
    (source / "03001").write_bytes(b"x")
    correct(repository, source, 1, new=True)
    age()
    correct(repository, source, 1)
    correct(repository, source, 0)


def test_no_threads_or_descriptors_stay_behind(repository: Repository, source: Path) -> None:
    taken(repository, source)
    before = held_by_this_process(repository)
    for _ in range(3):
        taken(repository, source)
    assert not held_by_this_process(repository) - before
