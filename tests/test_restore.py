"""Restore: everything comes back, verified; nothing is written outside; damage is left out and told."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import struct
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from spraydry.actions.restore import Restored, plan, restore
from spraydry.actions.restore.attributes import OWNERS, SET_ID
from spraydry.errors import ChunkCorrupt, StoreFull, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import FILE, Runs
from spraydry.format.links import group_of
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from spraydry.stores.sqlite import SqliteStore
from tests.ingest.trees import NOBODY, as_nobody, differences, needs_root, taken, version_of
from tests.versions import make_version, plain_entry

OWN = {"uid": os.geteuid(), "gid": os.getegid()}


def put_back(repository: Repository, address: str, directory: Path, overwrite: bool = False) -> Restored:
    """Restore after a plan, whose numbers must be those of the run."""
    found = repository.resolve(address)
    planned = plan(repository, found, str(directory), overwrite=overwrite)
    done = restore(repository, found, str(directory), overwrite=overwrite)
    if not done.problem_count:
        assert vars(planned) == {name: getattr(done, name) for name in vars(planned)}
    return done


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Paths below a folder with files' bytes and symlinks' targets."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in sorted(folder.rglob("*"))
    }


def awkward(source: Path) -> None:
    """A tree with much of what a file system can hold, as far as this user may make it."""
    (source / "d/empty").mkdir(parents=True)
    for name in (b"new\nline", b"\xff\xfe", b"-rf", b"...", b"a" * 255):
        (source / "d" / os.fsdecode(name)).write_bytes(name)
    (source / "large").write_bytes(random.Random(3).randbytes(3_000_000) + b"x")
    with open(source / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"middle")
        file.truncate(9 << 20)
    (source / "none").write_bytes(b"")
    os.link(source / "large", source / "d/link")
    for name, target in (("up", "../../../.."), ("gone", "nowhere"), ("loop", "loop"), ("abs", "/etc/passwd")):
        os.symlink(target, source / name)
    os.link(source / "gone", source / "d/gone too", follow_symlinks=False)
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.getcwd()
        os.chdir(source)
        try:
            bound.bind("socket")
        finally:
            os.chdir(here)
    os.setxattr(source / "none", b"user.a", b"\0value")
    os.setxattr(source / "d", b"user.b", b"")
    for path, at in ((source / "none", -1), (source / "d", 2**32 * 10**9 + 5), (source / "large", -(10**18) + 7)):
        os.utime(path, ns=(at, at))
    os.utime(source / "up", ns=(1, 2_000_000_003), follow_symlinks=False)
    (source / "readonly").mkdir()
    (source / "readonly/f").write_bytes(b"f")
    os.chmod(source / "readonly/f", 0o400)
    os.chmod(source / "readonly", 0o500)
    os.chmod(source / "d", 0o1777)
    os.chmod(source / "fifo", 0o640)
    os.utime(source, ns=(5, 123_456_789_012_345_678))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    awkward(made)
    return made


def test_everything_comes_back(repository: Repository, source: Path, tmp_path: Path) -> None:
    version = version_of(taken(repository, source))
    done = put_back(repository, "r", tmp_path / "out")
    assert (done.problems, done.notes) == ([], {})
    assert differences(repository, version, tmp_path / "out") == []
    assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 1 << 20


def test_restoring_over_itself_changes_nothing(repository: Repository, source: Path, tmp_path: Path) -> None:
    version = version_of(taken(repository, source))
    put_back(repository, "r", tmp_path / "out")
    done = put_back(repository, "r", tmp_path / "out", overwrite=True)
    assert done.problems == [] and done.replaced == done.files + done.others
    assert differences(repository, version, tmp_path / "out") == []


@needs_root
def test_what_only_root_can_make(repository: Repository, source: Path, tmp_path: Path) -> None:
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(source / "block", 0o600 | stat.S_IFBLK, os.makedev(259, 0xFFFFF))
    os.setxattr(source / "none", b"trusted.t", b"1")
    os.setxattr(source / "up", b"trusted.link", b"2", follow_symlinks=False)
    os.setxattr(source / "large", b"security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permission, who)
        for tag, permission, who in (
            (1, 6, 2**32 - 1),
            (2, 7, 1000),
            (4, 4, 2**32 - 1),
            (16, 7, 2**32 - 1),
            (32, 4, 2**32 - 1),
        )
    )
    os.setxattr(source / "none", b"system.posix_acl_access", acl)
    os.setxattr(source / "d", b"system.posix_acl_default", acl)
    for name, owner in (("none", (1000, 1001)), ("d", (2**32 - 2, 2**32 - 2)), ("up", (7, 8)), ("null", (9, 10))):
        os.chown(source / name, *owner, follow_symlinks=False)
    os.chmod(source / "none", 0o6774)
    version = version_of(taken(repository, source))
    assert put_back(repository, "r", tmp_path / "out").problems == []
    assert differences(repository, version, tmp_path / "out") == []


@needs_root
def test_a_default_acl_above_leaves_nothing_behind(repository: Repository, source: Path, tmp_path: Path) -> None:
    version = version_of(taken(repository, source))
    (tmp_path / "out").mkdir()
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, 7, who)
        for tag, who in ((1, 2**32 - 1), (2, 1000), (4, 2**32 - 1), (16, 2**32 - 1), (32, 2**32 - 1))
    )
    os.setxattr(tmp_path / "out", b"system.posix_acl_default", acl)
    put_back(repository, "r", tmp_path / "out")
    assert differences(repository, version, tmp_path / "out") == []


def test_large_attributes_and_beyond_path_max(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "deep"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for _ in range(100):
        os.mkdir(b"d" * 90, dir_fd=fd)
        below = os.open(b"d" * 90, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    for name in (b"one", b"two"):
        leaf = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.write(leaf, b"leaf")
        os.setxattr(leaf, b"user.large", b"v" * 3500)
        os.close(leaf)
    os.link(b"one", b"three", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    os.mkdir(source / "e")
    version = version_of(taken(repository, source))
    assert put_back(repository, "r", tmp_path / "out").problems == []
    assert differences(repository, version, tmp_path / "out") == []


def test_part_of_a_version(repository: Repository, tmp_path: Path) -> None:
    make_version(repository, "r", {b"d": {b"f": b"in d", b"e": {}}, b"g": b"g", b"s": "g"})
    put_back(repository, "r:d", tmp_path / "d")
    assert contents(tmp_path / "d") == {"e": None, "f": b"in d"}
    put_back(repository, "r:g", tmp_path / "new/below")
    put_back(repository, "r:s", tmp_path / "new/below", overwrite=True)
    assert contents(tmp_path / "new/below") == {"g": b"g", "s": "g"}


def test_root_that_is_a_file_gets_the_root_s_name(repository: Repository, tmp_path: Path) -> None:
    make_version(repository, "single", b"bytes")  # type: ignore[arg-type]
    put_back(repository, "single", tmp_path / "out")
    assert contents(tmp_path / "out") == {"single": b"bytes"}


def test_a_directory_that_holds_something(repository: Repository, tmp_path: Path) -> None:
    make_version(repository, "r", {b"f": b"new", b"d": {b"g": b"g"}})
    out = tmp_path / "out"
    (out / "d/kept").mkdir(parents=True)
    (out / "f").write_bytes(b"old")
    for action in (plan, restore):
        with pytest.raises(UsageError, match="--overwrite"):
            action(repository, repository.resolve("r"), str(out))  # type: ignore[operator]
    assert contents(out) == {"d": None, "d/kept": None, "f": b"old"}
    put_back(repository, "r", out, overwrite=True)
    assert contents(out) == {"d": None, "d/g": b"g", "d/kept": None, "f": b"new"}
    with pytest.raises(UsageError, match="not a directory"):
        restore(repository, repository.resolve("r"), str(out / "f"), overwrite=True)


def test_a_file_that_is_linked_elsewhere_is_not_written_into(repository: Repository, tmp_path: Path) -> None:
    make_version(repository, "r", {b"f": b"new"})
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "elsewhere", tmp_path / "out/f")
    put_back(repository, "r", tmp_path / "out", overwrite=True)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_a_full_directory_in_a_file_s_place_stays(repository: Repository, tmp_path: Path) -> None:
    make_version(repository, "r", {b"f": b"new", b"g": b"g"})
    (tmp_path / "out/f/full").mkdir(parents=True)
    done = put_back(repository, "r", tmp_path / "out", overwrite=True)
    assert [problem.path for problem in done.problems] == [b"f"] and not done.damaged
    assert contents(tmp_path / "out") == {"f": None, "f/full": None, "g": b"g"}


def test_no_symlink_leads_out(repository: Repository, tmp_path: Path) -> None:
    """A link of an earlier version, or of a stranger, stands where a directory or file of this one goes."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"mine")
    os.chmod(outside, 0o751)
    make_version(repository, "r", {b"d": str(outside), b"f": str(outside / "f"), b"g": str(outside / "new")})
    make_version(repository, "r", {b"d": {b"f": b"theirs", b"h": b"theirs"}, b"f": b"theirs", b"g": b"theirs"})
    put_back(repository, "r@v1", tmp_path / "out")
    done = put_back(repository, "r@v2", tmp_path / "out", overwrite=True)
    assert done.problems == [] and done.replaced == 3
    assert contents(outside) == {"f": b"mine"} and outside.stat().st_mode & 0o777 == 0o751
    assert contents(tmp_path / "out") == {
        "d": None, "d/f": b"theirs", "d/h": b"theirs", "f": b"theirs", "g": b"theirs"
    }  # fmt: skip


def test_the_repository_is_not_overwritten(repository: Repository, repository_path: str) -> None:
    name = os.path.basename(repository_path)
    make_version(repository, "r", {os.fsencode(name): b"not a repository"})
    done = put_back(repository, "r", Path(repository_path).parent, overwrite=True)
    assert "repository itself" in done.problems[0].reason
    with Repository.open(repository_path) as again:
        assert again.roots() == ["r"]


def test_entries_of_one_group_that_differ_are_damage(repository: Repository, tmp_path: Path) -> None:
    one, two = (plain_entry(b"", FILE, digest(text), 3, group=group_of(b"a"), **OWN) for text in (b"one", b"two"))
    make_version(repository, "r", {b"a": one, b"b": two, b"c": b"one", b"d": b"two"})
    done = put_back(repository, "r", tmp_path / "out")
    assert [(problem.path, problem.damaged) for problem in done.problems] == [(b"b", True)]
    assert contents(tmp_path / "out") == {"a": b"one", "c": b"one", "d": b"two"}


def test_a_file_whose_chunks_are_not_what_it_names(repository: Repository, tmp_path: Path) -> None:
    version = make_version(repository, "r", {b"f": bytes(65536) + b"tail", b"g": b"g"})
    good = repository.resolve("r:f").entry.content
    assert isinstance(good, Runs)
    wrong = plain_entry(b"", FILE, Runs(digest(b"else"), good.manifest, good.filled), 65540, **OWN)
    long = plain_entry(b"", FILE, digest(b"g"), 2, **OWN)
    make_version(repository, "r", {b"f": wrong, b"g": b"g", b"h": long})
    assert version.record.entry.size == 0
    done = put_back(repository, "r", tmp_path / "out")
    assert [problem.path for problem in done.problems] == [b"f", b"h"] and done.damaged
    assert contents(tmp_path / "out") == {"g": b"g"}


def test_damaged_chunks_leave_out_their_files(
    repository: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(repository, source)
    entry = repository.resolve("r:large").entry
    assert isinstance(entry.content, Runs)
    chunks = [span.chunk for span in spans(entry, repository.read_chunk)]
    broken = chunks[len(chunks) // 2]
    read_chunk = Repository.read_chunk

    def reading(self: Repository, name: bytes) -> memoryview:
        if name == broken:
            raise ChunkCorrupt(f"chunk {name.hex()} cannot be read")
        return read_chunk(self, name)

    monkeypatch.setattr(Repository, "read_chunk", reading)
    done = restore(repository, repository.resolve("r"), str(tmp_path / "out"))
    assert sorted(problem.path for problem in done.problems) == [b"d/link", b"large"] and done.damaged
    assert "large" not in os.listdir(tmp_path / "out") and "link" not in os.listdir(tmp_path / "out/d")
    assert (tmp_path / "out/sparse").stat().st_size == 9 << 20


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    make_version(repository, "r", {b"a": b"a", b"b": b"b", b"c": b"c"})
    real, calls = os.pwrite, []

    def full(fd: int, plain: bytes, offset: int) -> int:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(code, os.strerror(code))
        return real(fd, plain, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFull, match="no room"):
        restore(repository, repository.resolve("r"), str(tmp_path / "out"))
    assert contents(tmp_path / "out") == {"a": b"a"}


@needs_root
def test_without_privilege(repository: Repository, source: Path) -> None:
    os.chown(source / "none", 1000, 1000)
    os.chmod(source / "none", 0o4755)
    version = version_of(taken(repository, source))
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        out = Path(folder)
        os.chown(out, NOBODY, NOBODY)
        assert isinstance(repository.store, SqliteStore)
        with ExitStack() as before:  # nobody could open connections to a file of root's
            for _ in range(8 + 2 * threads_of(repository)):
                before.enter_context(repository.store.database._reading())
        with as_nobody():
            done = restore(repository, repository.resolve("r"), folder)
        assert done.problems == []
        assert done.notes[OWNERS] > 10 and done.notes[SET_ID] == 1
        left = [line for line in differences(repository, version, out) if "id is" not in line]
        assert left == ["b'/none': mode is 2541, not 493"]


def test_interrupted_leaves_no_part_of_a_file(
    repository: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(repository, source)
    real = os.pwrite

    def interrupted(fd: int, plain: bytes, offset: int) -> int:
        if offset > 1_000_000:
            raise KeyboardInterrupt
        return real(fd, plain, offset)

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        restore(repository, repository.resolve("r"), str(tmp_path / "out"))
    assert not (tmp_path / "out/large").exists() and not (tmp_path / "out/d/link").exists()
