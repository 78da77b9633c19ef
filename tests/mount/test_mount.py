"""Through a real kernel mount: what programs see."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spraydry.repository.repository import Repository
from tests.mount.conftest import Run, daemon_of, ended, only_erofs, only_fuse, wait_until
from tests.versions import make_version

pytestmark = pytest.mark.fuse

Spraydry = Callable[..., Run]


def made_tree(top: Path) -> Path:
    """Some of everything that a user can make."""
    top.mkdir()
    (top / "empty").mkdir()
    (top / "dir").mkdir(mode=0o711)
    (top / "dir" / "file").write_bytes(b"content")
    (top / "dir" / "big").write_bytes(random.randbytes(3_000_000))
    os.link(top / "dir" / "file", top / "hard")
    (top / "link").symlink_to("dir/file")
    (top / os.fsdecode(b"\xff\nname")).write_bytes(b"x")
    with open(top / "sparse", "wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(top):  # a socket's path is short
        listening.bind("socket")
    (top / "dir" / "file").chmod(0o4755)
    os.utime(top / "dir" / "big", ns=(0, -1234567891))
    os.setxattr(top / "dir" / "big", "user.test", b"\0value")
    return top


def seen(top: Path) -> dict[str, Any]:
    """Everything about a tree that must be the same on the mount."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            entry: list[Any] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev]
            if not stat.S_ISDIR(status.st_mode):
                entry += [status.st_size, status.st_nlink]
            if stat.S_ISREG(status.st_mode):
                entry.append(hashlib.sha256(Path(path).read_bytes()).hexdigest())
            if stat.S_ISLNK(status.st_mode):
                entry.append(os.readlink(path))
            entry.append([(x, os.getxattr(path, x)) for x in sorted(os.listxattr(path, follow_symlinks=False))])
            found[os.path.relpath(path, top)] = entry
    return found


def test_a_mount_is_what_was_ingested(spraydry: Spraydry, tmp_path: Path, point: Path, engine: str) -> None:
    source = made_tree(tmp_path / "source")
    spraydry("ingest", str(source))
    spraydry("mount", "source@v1", str(point))
    assert seen(point) == seen(source)
    assert (point / "hard").stat().st_ino == (point / "dir" / "file").stat().st_ino
    if engine == "erofs":
        with open(point / "sparse", "rb") as file:
            assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 50_000_000 // 65536 * 65536
    else:
        assert (point / "sparse").stat().st_blocks < 200
    numbers = {path: os.lstat(point / path).st_ino for path in seen(source)}
    spraydry("umount", str(point))
    assert list(point.iterdir()) == []
    spraydry("mount", "source", str(point))
    assert numbers == {path: os.lstat(point / path).st_ino for path in seen(source)}
    spraydry("umount", str(point))
    spraydry("mount", "source:dir", str(point))
    found = {name: os.lstat(point / name).st_ino for name in os.listdir(point)}
    expected = {path[4:]: number for path, number in numbers.items() if path.startswith("dir/")}
    assert found.keys() == expected.keys() and (engine == "erofs" or found == expected)


@only_fuse
def test_everything_live(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "photos", {b"a": b"1"})
    spraydry("mount", str(point))
    assert sorted(os.listdir(point)) == ["photos"]
    assert sorted(os.listdir(point / "photos")) == ["latest", "v1"]
    assert not (point / "photos" / "v2").exists() and not (point / "new").exists()
    make_version(repository, "photos", {b"a": b"2"})
    make_version(repository, "new", {b"b": b"3"})
    wait_until(lambda: sorted(os.listdir(point)) == ["new", "photos"])
    wait_until(lambda: (point / "new").exists() and (point / "photos" / "v2").exists())
    wait_until(lambda: (point / "photos" / "latest" / "a").read_bytes() == b"2")
    assert (point / "photos" / "v1" / "a").read_bytes() == b"1"
    assert (point / "photos" / "v2").stat().st_ino != (point / "photos" / "v1").stat().st_ino
    assert subprocess.run(["find", str(point), "-name", "b"], capture_output=True, check=True).stdout
    assert os.getxattr(point / "new" / "v1" / "b", "user.spraydry.version") == b"new@v1"


def test_nothing_can_be_written(repository: Repository, spraydry: Spraydry, point: Path, engine: str) -> None:
    make_version(repository, "r", {b"a": b"1", b"d": {}})
    spraydry("mount", "r", str(point))
    a, d = point / "a", point / "d"
    attempts: list[Callable[[], object]] = [
        lambda: os.open(a, os.O_RDWR | os.O_APPEND),
        lambda: os.open(point / "new", os.O_WRONLY | os.O_CREAT),
        lambda: os.truncate(a, 0),
        lambda: a.unlink(),
        lambda: d.rmdir(),
        lambda: a.rename(point / "b"),
        lambda: os.link(a, point / "b"),
        lambda: (point / "s").symlink_to("a"),
        lambda: (point / "n").mkdir(),
        lambda: os.mkfifo(point / "n"),
        lambda: a.chmod(0o600),
        lambda: os.utime(a),
        lambda: os.setxattr(a, "user.x", b"1"),
        lambda: os.removexattr(a, "user.x"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as raised:
            attempt()
        assert raised.value.errno == errno.EROFS
    assert engine == "erofs" or os.statvfs(point).f_files == 3  # the kernel's erofs does not count inodes
    assert os.statvfs(point).f_flag & (os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV) == (
        os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
    )


def test_many_readers_of_large_and_small_files(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    tree = {b"%03d" % number: random.randbytes(20_000 + number) for number in range(200)}
    tree[b"big"] = random.randbytes(12_000_000)
    make_version(repository, "r", tree)
    spraydry("mount", "r", str(point), "--cache", "8M")

    def read_all(turn: int) -> None:
        for name in sorted(tree)[:: 1 if turn % 2 else -1]:
            assert (point / os.fsdecode(name)).read_bytes() == tree[name]
        with open(point / "big", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for start in range(turn * 1000, 12_000_000, 777_777):
                assert mapped[start : start + 5000] == tree[b"big"][start : start + 5000]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_all, range(8)))


def test_a_large_directory(repository: Repository, spraydry: Spraydry, point: Path, engine: str) -> None:
    make_version(repository, "r", {b"%06d" % number: b"" for number in range(20_000)})
    spraydry("mount", "r", str(point))
    with os.scandir(point) as entries:
        found = {entry.name: entry.inode() for entry in entries}
    if engine == "fuse":
        assert found == {f"{number:06}": number + 2 for number in range(20_000)}
    assert list(found) == [f"{number:06}" for number in range(20_000)] and len(set(found.values())) == 20_000
    assert all((point / name).stat().st_ino == found[name] for name in ("000000", "012345", "019999"))


@only_fuse
def test_seeking_in_a_listing(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    """By telldir and seekdir, as NFS and restarted listings do."""
    names = [b"%06d" % number for number in range(100_000)]
    make_version(repository, "r", dict.fromkeys(names, b""))
    spraydry("mount", "r", str(point))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    libc.opendir.argtypes, libc.readdir64.argtypes = [ctypes.c_char_p], [ctypes.c_void_p]
    libc.telldir.argtypes, libc.closedir.argtypes = [ctypes.c_void_p], [ctypes.c_void_p]
    libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
    for _ in range(2):  # the kernel keeps what it has listed to the end
        folder = libc.opendir(os.fsencode(point))
        seen: list[tuple[int, bytes]] = []
        while True:
            place, found = libc.telldir(folder), libc.readdir64(folder)
            if not found:
                break
            seen.append((place, ctypes.string_at(found + 19)))
        assert [name for _, name in seen] == [b".", b"..", *names]
        for at in (70_000, 3, 99_999, 50_001, 0):
            libc.seekdir(folder, seen[at][0])
            for _, name in seen[at : at + 300]:
                assert ctypes.string_at(libc.readdir64(folder) + 19) == name
        libc.closedir(folder)


@pytest.mark.slow
def test_git_and_python_run_from_a_mount(spraydry: Spraydry, tmp_path: Path, point: Path) -> None:
    source = tmp_path / "source"
    git = ["git", "-c", "safe.directory=*", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([sys.executable, "-m", "venv", str(source / "venv")], check=True)
    subprocess.run([*git, "init", "-q", str(source / "work")], check=True)
    (source / "work" / "file").write_text("text")
    subprocess.run([*git, "-C", str(source / "work"), "add", "."], check=True)
    subprocess.run([*git, "-C", str(source / "work"), "commit", "-qm", "first"], check=True)
    spraydry("ingest", str(source))
    spraydry("mount", "source", str(point))
    python = point / "venv" / "bin" / "python"
    said = subprocess.run(
        [python, "-c", "import pip, sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(point / "venv")
    subprocess.run([*git, "-C", str(point / "work"), "fsck", "--strict"], check=True)
    status = subprocess.run([*git, "-C", str(point / "work"), "status", "--porcelain"], capture_output=True, check=True)
    assert status.stdout == b""


@only_fuse
def test_a_damaged_frame_fails_only_the_files_in_it(
    repository: Repository, spraydry: Spraydry, point: Path, log_text: Callable[[], str]
) -> None:
    make_version(repository, "r", {b"first": random.randbytes(400_000)})
    known = {stored.name for stored in repository.store.list("frames")}
    make_version(repository, "r", {b"first": b"whole", b"hit": b"here\n" * 1000, b"sub": {b"other": b"whole too"}})
    name = next(
        frame.name
        for _, frame in repository.catalog.frames()
        if frame.name.hex() not in known and frame.frame_class == "other"
    )
    value = bytearray(repository.store.get("frames", name.hex()))
    value[-3] ^= 1
    repository.store.put("frames", name.hex(), bytes(value))
    spraydry("mount", str(point))
    with pytest.raises(OSError) as raised:
        (point / "r" / "v2" / "hit").read_bytes()
    assert raised.value.errno == errno.EIO
    assert os.listdir(point / "r" / "v2" / "sub") == ["other"]
    assert len((point / "r" / "v1" / "first").read_bytes()) == 400_000
    line = next(line for line in log_text().splitlines() if "ERROR" in line)
    assert "read of r@v2:hit" in line and "chunk " in line and name.hex() in line


@only_fuse
def test_extended_attributes_of_our_own(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "r", {b"a": b"1"})
    spraydry("mount", "r", str(point), "--owner", "12:34")
    assert os.listxattr(point / "a") == []
    assert len(os.getxattr(point / "a", "user.spraydry.digest")) == 64
    assert ((point / "a").stat().st_uid, (point / "a").stat().st_gid) == (12, 34)


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="NOT TESTED: needs setfacl (package acl)")
@pytest.mark.root
def test_acls_are_obeyed(spraydry: Spraydry, tmp_path: Path, point: Path) -> None:
    """The group bits of such a file are its mask: taken for the group's, they would let it read a secret."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: needs root")
    source = tmp_path / "source"
    source.mkdir()
    secret = source / "secret"
    secret.write_text("secret")
    os.chown(secret, 0, 100)
    secret.chmod(0o660)
    subprocess.run(["setfacl", "-m", "u:1000:rw,g::---", str(secret)], check=True)
    spraydry("ingest", str(source))
    spraydry("mount", "source", str(point), "--allow-other")

    def can_read(uid: int, gid: int) -> bool:
        """Who is put into the mount need not be let through the folders above it."""
        done = subprocess.run(
            ["cat", "secret"], cwd=point, user=uid, group=gid, extra_groups=[], capture_output=True, check=False
        )
        return done.returncode == 0

    assert can_read(1000, 1000) and not can_read(2000, 100)


def test_memory_does_not_grow_with_what_was_read(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    make_version(repository, "r", {b"%04d" % number: random.randbytes(100_000) for number in range(1200)})
    spraydry("mount", "r", str(point), "--cache", "16M")
    for path in point.iterdir():
        path.read_bytes()
    lines = Path(f"/proc/{daemon_of(point)}/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak_kib < 110 << 10


@only_erofs
def test_erofs_gives_errors_to_the_files_that_need_what_is_damaged(
    repository: Repository, spraydry: Spraydry, point: Path, log_text: Callable[[], str]
) -> None:
    make_version(repository, "r", {b"a": random.randbytes(400_000), b"sub": {b"z": b"whole too"}})
    known = {stored.name for stored in repository.store.list("frames")}
    tree = {b"a": b"new", b"hit": b"here\n" * 1000, b"last": b"text " * 1000, b"sub": {b"z": b"whole too"}}
    make_version(repository, "r", tree)
    name = next(
        frame.name
        for _, frame in repository.catalog.frames()
        if frame.name.hex() not in known and frame.frame_class == "other"
    )
    value = bytearray(repository.store.get("frames", name.hex()))
    value[-3] ^= 1
    repository.store.put("frames", name.hex(), bytes(value))
    spraydry("mount", "r", str(point))
    for _ in range(2):
        with pytest.raises(OSError) as raised:
            (point / "hit").read_bytes()
        assert raised.value.errno == errno.EIO
        assert (point / "sub" / "z").read_bytes() == b"whole too"
    line = next(line for line in log_text().splitlines() if "ERROR" in line)
    assert "chunk " in line and name.hex() in line


def extents(path: Path) -> list[tuple[int, int, int]]:
    """Where the kernel has a file: offset, place on the device and length of each piece (FS_IOC_FIEMAP)."""
    head, piece = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
    asked = bytearray(head.pack(0, (1 << 64) - 1, 0, 0, 100, 0) + bytes(100 * piece.size))
    with open(path, "rb") as file:
        fcntl.ioctl(file.fileno(), 0xC020660B, asked)
    count = head.unpack_from(asked)[3]
    return [piece.unpack_from(asked, head.size + at * piece.size)[:3] for at in range(count)]


@only_erofs
def test_equal_files_share_one_range(repository: Repository, spraydry: Spraydry, point: Path) -> None:
    """So that what the daemon was asked for once the kernel has for all of them."""
    plain, other = random.randbytes(3_000_000), random.randbytes(3_000_000)
    make_version(repository, "r", {b"a": plain, b"b": plain, b"c": other})
    spraydry("mount", "r", str(point))
    of_a, of_b, of_c = (extents(point / name) for name in "abc")
    assert sum(length for _, _, length in of_a) >= 3_000_000
    assert of_a == of_b and not {place for _, place, _ in of_a} & {place for _, place, _ in of_c}
    assert [(point / name).read_bytes() for name in "abc"] == [plain, plain, other]


@only_erofs
def test_what_was_not_read_before_the_daemon_died_is_an_error(
    repository: Repository, spraydry: Spraydry, point: Path
) -> None:
    make_version(repository, "r", {b"a": random.randbytes(3_000_000)})
    spraydry("mount", "r", str(point))
    daemon = daemon_of(point)
    os.kill(daemon, signal.SIGKILL)
    assert ended(daemon)
    with pytest.raises(OSError) as raised:
        (point / "a").read_bytes()
    assert raised.value.errno == errno.EIO


def test_holes(repository: Repository, spraydry: Spraydry, tmp_path: Path, point: Path, engine: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        for at in (0, 3 << 20, 700 << 20, 3 << 30):
            file.seek(at)
            file.write(b"x" * 100_000)
        file.truncate((4 << 30) + 77)
    with open(source / "nothing", "wb") as file:
        file.truncate(4 << 30)
    spraydry("ingest", str(source))
    spraydry("mount", "source", str(point))
    with open(point / "sparse", "rb") as file:
        for at in (0, 3 << 20, 700 << 20, 3 << 30):
            assert os.pread(file.fileno(), 100_001, at) == b"x" * 100_000 + b"\0"
        assert os.pread(file.fileno(), 100, 4 << 30) == bytes(77)
        if engine == "erofs":
            assert os.lseek(file.fileno(), 2 << 30, os.SEEK_DATA) == 3 << 30
    with open(point / "nothing", "rb") as file:
        assert os.pread(file.fileno(), 100, 3 << 30) == bytes(100)
        if engine == "erofs":
            with pytest.raises(OSError):
                os.lseek(file.fileno(), 0, os.SEEK_DATA)
