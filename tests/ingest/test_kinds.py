"""Everything a POSIX tree can hold, compared field by field with what lstat says."""

from __future__ import annotations

import errno
import os
import random
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from spraydry.format.entry import BLOCK, CHARACTER, FIFO, SOCKET, Runs
from spraydry.repository.repository import Repository
from tests.ingest.trees import (
    command,
    differences,
    entry_at,
    names_in,
    needs,
    needs_root,
    plain_xattrs,
    read_back,
    run,
    taken,
    version_of,
)


def faithful(repository: Repository, source: Path) -> None:
    """Ingest and compare; a second ingest finds nothing new."""
    first = taken(repository, source)
    assert differences(repository, version_of(first), source) == []
    again = taken(repository, source)
    assert not again.new and again.version == first.version


def test_empty_directory(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    faithful(repository, tmp_path / "s")
    assert taken(repository, tmp_path / "s").files == 0


def test_any_name(repository: Repository, tmp_path: Path) -> None:
    source = os.fsencode(tmp_path / "s")
    os.mkdir(source)
    names = [
        b"new\nline",
        b"\xff\xfe\x80",
        "caf\u00e9".encode(),
        "cafe\u0301".encode(),
        b"-rf",
        b"--",
        b" ",
        b"a" * 255,
    ]
    names += [
        "ü".encode() * 127,
        b"back\\slash",
        b"q\"'`$(id)",
        b"*?[]",
        b"...",
        b"..x",
        b".x",
        b"CON",
        b"con",
        b"\x01\x7f",
    ]
    names += [
        b"\xe2\x80\xae",
        b"\xed\xa0\x80",
        b"a:b",
        b"@",
        b"\r",
        *(bytes((byte,)) for byte in range(1, 256) if byte not in b"./"),
    ]
    for name in names:
        with open(source + b"/" + name, "wb") as file:
            file.write(name)
    first = taken(repository, source)
    assert differences(repository, version_of(first), source) == []
    assert first.files == len(set(names))


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) + 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1]
)
def test_sizes(repository: Repository, tmp_path: Path, rng: random.Random, size: int) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "random").write_bytes(rng.randbytes(size))
    (source / "zeros").write_bytes(bytes(size))
    (source / "text").write_bytes((b"a line of text\n" * (size // 15 + 1))[:size])
    faithful(repository, source)


def test_every_mode(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for mode in (0, 0o7777, 0o4755, 0o2755, 0o1777, 0o400, 0o200, 0o111, 0o644):
        (source / f"f{mode:04o}").write_bytes(b"x")
        (source / f"f{mode:04o}").chmod(mode)
        (source / f"d{mode:04o}").mkdir()
        (source / f"d{mode:04o}").chmod(mode | 0o700)
    assert differences(repository, version_of(taken(repository, source)), source) == []


@pytest.mark.root
@needs_root
def test_owners(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for uid, gid in ((0, 0), (1000, 1000), (65534, 65536), (2**31 - 1, 2**31), (2**32 - 2, 2**32 - 2)):
        (source / f"{uid}").write_bytes(b"x")
        os.chown(source / f"{uid}", uid, gid)
    faithful(repository, source)
    record = version_of(taken(repository, source)).record
    assert dict(record.users)[0] == "root" and dict(record.groups)[0] == "root"


def test_times(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for number, ns in enumerate(
        (
            0,
            1,
            -1,
            -(2**31) * 10**9,
            -1234567891,
            2**31 * 10**9 + 999999999,
            2**32 * 10**9 + 5,
            13569465600 * 10**9,
            1700000000123456789,
        )
    ):
        for place in (source / f"f{number}", source / f"d{number}"):
            place.mkdir() if place.name[0] == "d" else place.write_bytes(b"x")
            os.utime(place, ns=(ns, ns))
        (source / f"l{number}").symlink_to("nowhere")
        os.utime(source / f"l{number}", ns=(ns, ns), follow_symlinks=False)
    os.utime(source, ns=(-5, -5))
    faithful(repository, source)
    # The file system may clip such years; what it says afterwards is kept.


def test_a_year_beyond_64_bits_of_nanoseconds(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 2262: most file systems here do not hold such times, so the status is made up."""
    source = tmp_path / "s"
    source.mkdir()
    (source / "f").write_bytes(b"x")
    real = os.fstat

    class Far:
        def __init__(self, status: os.stat_result) -> None:
            self._status = status

        def __getattr__(self, name: str) -> object:
            return {"st_mtime_ns": 32503680000 * 10**9 + 7}.get(name) or getattr(self._status, name)

    with monkeypatch.context() as patch:
        patch.setattr("spraydry.actions.ingest.content.os.fstat", lambda fd: Far(real(fd)))
        result = taken(repository, source)
    entry = entry_at(repository, result, "f")
    assert (entry.mtime_s, entry.mtime_ns) == (32503680000, 7)


def test_far_years_as_the_file_system_has_them(repository: Repository, tmp_path: Path) -> None:
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    source = folder / f"spraydry-far-{os.getpid()}"
    source.mkdir()
    try:
        for name, seconds in (("y2400", 13569465600), ("y3000", 32503680000), ("y1000", -30610224000)):
            (source / name).write_bytes(b"x")
            os.utime(source / name, ns=(seconds * 10**9 + 3, seconds * 10**9 + 3))
        faithful(repository, source)
    finally:
        subprocess.run(["rm", "-rf", source], check=True)


def test_symlinks(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "sub").mkdir(parents=True)
    targets = [
        b"a",
        b"/etc/passwd",
        b"nowhere",
        b"loop",
        b"../../../..",
        b"y" * 4095,
        b"\xff\xfe",
        b".",
        b"sub/",
        b"sub",
    ]
    for number, target in enumerate(targets):
        os.symlink(target, os.fsencode(source / f"l{number}"))
    faithful(repository, source)
    assert "l9/x" not in names_in(repository, taken(repository, source))


def test_hardlinks(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    for folder in ("b/deep", "a-b", "a/x"):  # `a-b` sorts before `a/`, as text
        (source / folder).mkdir(parents=True)
    (source / "b/first").write_bytes(b"hard")
    for place in ("b/deep/second", "a-b/third", "a/x/fourth", "z"):
        os.link(source / "b/first", source / place)
    os.symlink("target", source / "a/symlink")
    os.link(source / "a/symlink", source / "z-symlink", follow_symlinks=False)
    os.mkfifo(source / "a/fifo")
    os.link(source / "a/fifo", source / "z-fifo")
    (source / "empty").write_bytes(b"")
    os.link(source / "empty", source / "empty2")
    (source / "outside").write_bytes(b"its other name is not in the source")
    os.link(source / "outside", tmp_path / "elsewhere")
    faithful(repository, source)
    result = taken(repository, source)
    group = entry_at(repository, result, "z").group
    assert group is not None
    found = repository.links(version_of(result).record.links).find(group)
    assert (found.count, found.first) == (5, b"a/x/fourth")  # the first in preorder
    assert entry_at(repository, result, "outside").group is None
    os.unlink(source / "a/x/fourth")
    changed = taken(repository, source)
    assert changed.new
    assert differences(repository, version_of(changed), source) == []


def test_a_group_survives_excluding_all_but_one(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "a").write_bytes(b"x")
    os.link(source / "a", source / "b")
    result = taken(repository, source, exclude=["a"])
    assert entry_at(repository, result, "b").group is None and version_of(result).record.links is None


@pytest.mark.root
@needs_root
def test_special_files(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    os.mkfifo(source / "fifo")
    here = os.getcwd()
    os.chdir(source)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
    finally:
        os.chdir(here)
    for name, kind, device in (
        ("null", stat.S_IFCHR, (1, 3)),
        ("zero", stat.S_IFCHR, (0, 0)),
        ("big", stat.S_IFBLK, (4095, 0xFFFFF)),
    ):
        os.mknod(source / name, 0o600 | kind, os.makedev(*device))
    faithful(repository, source)
    result = taken(repository, source)
    kinds = {name: entry_at(repository, result, name).kind for name in names_in(repository, result)}
    assert kinds == {"fifo": FIFO, "socket": SOCKET, "null": CHARACTER, "zero": CHARACTER, "big": BLOCK}


def _xattr_or_skip(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            pytest.skip(f"NOT POSSIBLE on this file system: {name}")
        raise


def test_user_xattrs(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "d").mkdir(parents=True)
    (source / "f").write_bytes(b"")
    for place in (source, source / "d", source / "f"):
        _xattr_or_skip(place, "user.empty", b"")
        _xattr_or_skip(place, "user.binary", bytes(range(256)))
        _xattr_or_skip(place, "user." + "n" * 250, b"v")
    faithful(repository, source)


def test_xattrs_too_large_for_an_entry(repository: Repository, tmp_path: Path) -> None:
    """More than 4096 bytes in sum become a chunk of their own."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path  # ext4 holds no more than a block
    source = folder / f"spraydry-xattrs-{os.getpid()}"
    (source / "d").mkdir(parents=True)
    (source / "f").write_bytes(b"x")
    (source / "large").write_bytes(b"y" * (9 << 20))
    try:
        for place in (source, source / "d", source / "f", source / "large"):
            for number in range(5):
                try:
                    os.setxattr(place, f"user.k{number}", bytes((number + 1,)) * 1500)
                except OSError:
                    pytest.skip("NOT POSSIBLE on this file system: more than a block of attributes")
        faithful(repository, source)
        result = taken(repository, source)
        for path in ("", "d", "f", "large"):
            entry = entry_at(repository, result, path)
            assert isinstance(entry.xattrs, bytes)
            assert len(plain_xattrs(repository, entry)) == 5
    finally:
        subprocess.run(["rm", "-rf", source], check=True)


@pytest.mark.root
@needs_root
def test_trusted_xattrs_and_capabilities(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "f").write_bytes(b"x")
    os.symlink("f", source / "link")
    _xattr_or_skip(source / "f", "trusted.t", b"1")
    _xattr_or_skip(source / "link", "trusted.l", b"2")
    _xattr_or_skip(source / "f", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    faithful(repository, source)
    assert entry_at(repository, taken(repository, source), "link").xattrs == ((b"trusted.l", b"2"),)


@needs("setfacl")
def test_acls(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "d").mkdir(parents=True)
    (source / "f").write_bytes(b"x")
    try:
        run(["setfacl", "-m", "u:1000:rwx,g:100:r", source / "f"])
        run(["setfacl", "-d", "-m", "u:1000:rwx", source / "d"])
    except subprocess.CalledProcessError:
        pytest.skip("NOT POSSIBLE on this file system: ACLs")
    faithful(repository, source)
    result = taken(repository, source)
    assert [name for name, _ in entry_at(repository, result, "f").xattrs] == [b"system.posix_acl_access"]  # type: ignore[misc]


def test_sparse_files(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    with open(source / "hole", "wb") as file:
        file.truncate(1 << 24)
    with open(source / "middle", "wb") as file:
        file.seek((5 << 20) + 123)
        file.write(b"data")
        file.truncate((11 << 20) + 17)
    with open(source / "small", "wb") as file:
        file.seek(300_000)
        file.write(b"tail")
    with open(source / "short", "wb") as file:
        file.truncate(1000)
    faithful(repository, source)
    result = taken(repository, source)
    hole, middle = entry_at(repository, result, "hole").content, entry_at(repository, result, "middle").content
    assert isinstance(hole, Runs) and hole.filled == 0
    assert isinstance(middle, Runs) and 0 < middle.filled <= 128 << 10


@pytest.mark.slow
def test_files_above_4_gib(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    tail = b"the end"
    with open(source / "5G", "wb") as file:
        file.seek((4 << 30) + 12345)
        file.write(tail)
    result = taken(repository, source)
    entry = entry_at(repository, result, "5G")
    assert entry.size == (4 << 30) + 12345 + len(tail)
    with repository.open_file(f"{result.version}:5G") as stream:
        stream.seek(-len(tail) - 3, os.SEEK_END)
        assert stream.read() == bytes(3) + tail
        stream.seek((4 << 30) - 2)
        assert stream.read(4) == bytes(4)
    assert result.stored_bytes < 1 << 20
    if not needs("b3sum").args[0]:
        printed = subprocess.run(["b3sum", "--no-names", source / "5G"], capture_output=True, check=True).stdout
        assert entry.file_digest is not None and entry.file_digest.hex() == printed.decode().strip()


@needs("b3sum")
def test_digests_are_what_b3sum_prints(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for size in (0, 1, 70_000, 300_000, 9 << 20):
        (source / str(size)).write_bytes(rng.randbytes(size))
    with open(source / "300000", "r+b") as file:
        file.seek(65536)
        file.write(bytes(131072))  # a hole in the middle
    result = taken(repository, source)
    printed = subprocess.run(["b3sum", *sorted(os.listdir(source))], cwd=source, capture_output=True, check=True).stdout
    for line in printed.decode().splitlines():
        digest, name = line.split()
        found = entry_at(repository, result, name).file_digest
        assert found is not None and found.hex() == digest


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_many_entries_in_a_directory(repository: Repository, tmp_path: Path, count: int) -> None:
    source = tmp_path / "s"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for number in range(count):
        os.close(os.open(f"entry {number * 7919 % count:06d}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    result = taken(repository, source)
    content = version_of(result).record.entry.content
    assert result.files == count == content.files == content.inodes  # type: ignore[union-attr]
    assert differences(repository, version_of(result), source, contents=False) == []
    (source / "entry 000777x").write_bytes(b"")
    before = result.stored_bytes
    more = taken(repository, source)
    assert more.new and more.stored_bytes < max(before / 3, 100_000)  # one page is new, and those above it


def test_paths_beyond_path_max(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    depth = 60
    for number in range(depth):
        name = b"d%02d" % number + b"x" * 90
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    for name, plain in ((b"leaf", b"leaf"), (b"large", b"0123456789abcdef" * (9 << 16))):
        with open(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd), "wb") as file:
            file.write(plain)
    os.symlink("target", "link", dir_fd=fd)
    os.mkfifo("fifo", dir_fd=fd)
    os.setxattr(b"/proc/self/fd/%d/leaf" % fd, "user.x", b"1")
    os.close(fd)
    faithful(repository, source)
    deepest = max(names_in(repository, taken(repository, source)), key=len)
    assert len(deepest) > 4096 + 1000


def test_deeper_than_pythons_stack(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    faithful(repository, source)
    subprocess.run(["rm", "-rf", source], check=True)  # pytest's own removal is recursive


def test_deeper_than_the_limit_of_open_files(tmp_path: Path) -> None:
    """A directory too deep to be entered is said, the rest is kept."""
    source = tmp_path / "s"
    (source / "a").mkdir(parents=True)
    (source / "zz").write_bytes(b"kept")
    fd = os.open(source / "a", os.O_RDONLY)
    for _ in range(150):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    import resource

    repo = tmp_path / "repo.sqlite"
    done = command(
        "--repo", repo, "ingest", source, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    )
    assert done.returncode == 3, done.stderr
    assert b"Too many open files" in done.stderr
    with Repository.open(str(repo), read_only=True) as repository:
        assert read_back(repository, repository.log.find("s"), "zz") == b"kept"
    subprocess.run(["rm", "-rf", source], check=True)
