"""The handlers, called as pyfuse3 calls them, without a mount."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from typing import Any, cast

import pyfuse3
import pytest
import trio

from spraydry.errors import ChunkCorrupt
from spraydry.format.digest import digest
from spraydry.format.tree import CHARACTER, FILE
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.fs import VersionFs
from spraydry.repository.address import resolve
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry


class Context:
    uid = gid = pid = umask = 0


CTX = cast(Any, Context())
XATTRS = ((b"trusted.t", b"1"), (b"user.a", b""), (b"user.b", b"value"))
MANY = {b"%03d" % number: b"%d" % number for number in range(200)}
TREE = {
    b"a": b"one",
    b"d": MANY,
    b"dev": plain_entry(b"", CHARACTER, 1 << 32 | 3, 0),
    b"empty": b"",
    b"old": plain_entry(b"", FILE, None, 0, mtime_s=-2, mtime_ns=5, mode=0o4755),
    b"s": "a",
    b"x": plain_entry(b"", FILE, None, 0, xattrs=XATTRS),
}


def served(repository: Repository, address: str | None = "r", **options: Any) -> Any:
    found = None if address is None else resolve(repository, address)
    return VersionFs(ChunkFetcher(repository), found, **options)


def hopping(repository: Repository) -> ChunkFetcher:
    """A fetcher that always uses its threads, as it does for a store elsewhere."""
    fetch = ChunkFetcher(repository)
    fetch._inline = False
    return fetch


def cold(repository_path: str) -> Repository:
    """The repository with nothing in memory."""
    return Repository.open(repository_path)


async def lookup(fs: Any, path: str) -> pyfuse3.EntryAttributes:
    attributes: pyfuse3.EntryAttributes = await fs.getattr(1, CTX)
    for name in path.split("/"):
        attributes = await fs.lookup(attributes.st_ino, os.fsencode(name), CTX)
    return attributes


async def test_attributes(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    top = await fs.getattr(1, CTX)
    assert stat.S_ISDIR(top.st_mode) and top.st_nlink == 1
    a = await lookup(fs, "a")
    assert (a.st_ino, a.st_size, a.st_blocks, stat.S_ISREG(a.st_mode)) == (2, 3, 1, True)
    assert (await lookup(fs, "dev")).st_rdev == os.makedev(1, 3)
    old = await lookup(fs, "old")
    assert (old.st_mtime_ns, stat.S_IMODE(old.st_mode)) == (-2 * 10**9 + 5, 0o4755)
    absent = await lookup(fs, "absent")
    assert absent.st_ino == 0 and absent.entry_timeout > 1e6  # remembered by the kernel for good
    assert (await fs.lookup((await lookup(fs, "d")).st_ino, b"..", CTX)).st_ino == 1
    assert (await fs.lookup(1, b"..", CTX)).st_ino == 1
    assert await fs.readlink((await lookup(fs, "s")).st_ino, CTX) == b"a"


async def test_owner(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    a = await lookup(served(repository, owner=(7, 8)), "a")
    assert (a.st_uid, a.st_gid) == (7, 8)


@pytest.mark.parametrize("room", [1, 3, 1000])
async def test_readdir_goes_on_where_it_stopped(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    seen: list[tuple[bytes, int, int]] = []

    def reply(token: list[int], name: bytes, attributes: pyfuse3.EntryAttributes, next_id: int) -> bool:
        token[0] -= 1
        if token[0] >= 0:
            seen.append((name, attributes.st_ino, next_id))
        return token[0] >= 0

    monkeypatch.setattr(pyfuse3, "readdir_reply", reply)
    directory = (await lookup(fs, "d")).st_ino
    handle = await fs.opendir(directory, CTX)
    at, before = 0, -1
    while before != len(seen):
        before = len(seen)
        await fs.readdir(handle, at, [room])
        at = seen[-1][2]
    assert [name for name, _, _ in seen] == [b".", b"..", *sorted(MANY)]
    assert [ino for _, ino, _ in seen] == [directory, 1, *range(directory + 1, directory + 201)]
    await fs.releasedir(handle)


@pytest.mark.parametrize("inline", [True, False])
async def test_read(repository: Repository, repository_path: str, inline: bool) -> None:
    big = os.urandom(300_000) + bytes(500_000) + b"end"
    make_version(repository, "r", {b"big": big, b"small": b"small"})
    with cold(repository_path) as opened:
        fs = served(opened)
        fs._fetch._inline = inline
        info = await fs.open((await lookup(fs, "big")).st_ino, os.O_RDONLY, CTX)
        assert info.keep_cache
        for start in (0, 65535, 299_999, 400_000, len(big) - 3, len(big)):
            assert bytes(await fs.read(info.fh, start, 131072)) == big[start : start + 131072]
        await fs.release(info.fh)
        info = await fs.open((await lookup(fs, "small")).st_ino, os.O_RDONLY, CTX)
        assert bytes(await fs.read(info.fh, 2, 100)) == b"all"


async def test_extended_attributes(repository: Repository) -> None:
    version = make_version(repository, "r", TREE)
    fs = served(repository)
    x = (await lookup(fs, "x")).st_ino
    assert await fs.listxattr(x, CTX) == [b"user.a", b"user.b", b"trusted.t"]
    assert await fs.getxattr(x, b"user.b", CTX) == b"value"
    other = Context()
    other.uid = 1000
    assert await fs.listxattr(x, other) == [b"user.a", b"user.b"]
    a = (await lookup(fs, "a")).st_ino
    assert await fs.listxattr(a, CTX) == []
    assert await fs.getxattr(a, b"user.spraydry.digest", CTX) == digest(b"one").hex().encode()
    assert await fs.getxattr(1, b"user.spraydry.version", CTX) == str(version).encode()
    for ino, name in ((a, b"security.capability"), (x, b"user.c"), (1, b"user.spraydry.digest")):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await fs.getxattr(ino, name, CTX)
        assert raised.value.errno == pyfuse3.ENOATTR


async def test_statfs_tells_totals(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    data = await served(repository).statfs(CTX)
    assert (data.f_files, data.f_blocks, data.f_ffree, data.f_bfree) == (1 + 7 + 200, 201, 0, 0)
    assert (await served(repository, None).statfs(CTX)).f_files == 208


async def test_every_attempt_to_write_is_refused(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    attempts: list[Callable[[], Any]] = [
        lambda: fs.open(2, os.O_RDWR, CTX),
        lambda: fs.open(2, os.O_WRONLY | os.O_TRUNC, CTX),
        lambda: fs.setattr(2, None, None, None, CTX),
        lambda: fs.mknod(1, b"n", 0o600, 0, CTX),
        lambda: fs.mkdir(1, b"n", 0o700, CTX),
        lambda: fs.unlink(1, b"a", CTX),
        lambda: fs.rmdir(1, b"d", CTX),
        lambda: fs.symlink(1, b"n", b"t", CTX),
        lambda: fs.rename(1, b"a", 1, b"b", 0, CTX),
        lambda: fs.link(2, 1, b"n", CTX),
        lambda: fs.write(1, 0, b"x"),
        lambda: fs.create(1, b"n", 0o600, os.O_WRONLY, CTX),
        lambda: fs.setxattr(2, b"user.n", b"v", CTX),
        lambda: fs.removexattr(2, b"user.n", CTX),
    ]
    for attempt in attempts:
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await attempt()
        assert raised.value.errno == errno.EROFS


async def test_whatever_goes_wrong_is_eio_and_logged(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    a = (await lookup(fs, "a")).st_ino

    def broken(*_: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(fs._attributes, "of", broken)
        with caplog.at_level(logging.ERROR), pytest.raises(pyfuse3.FUSEError) as raised:
            await fs.getattr(a, CTX)
    assert raised.value.errno == errno.EIO
    assert "getattr of r@v1:a (inode 1) failed" in caplog.text and "a bug" in caplog.text
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await fs.getattr(1 << 60, CTX)
    assert raised.value.errno == errno.EIO
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await fs.read(99, 0, 1)
    assert raised.value.errno == errno.EIO
    assert (await fs.getattr(a, CTX)).st_ino == a


async def test_readers_of_one_chunk_load_it_once(
    repository: Repository, repository_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(repository, "r", {b"%02d" % number: b"%d" % number for number in range(20)})
    with cold(repository_path) as opened:
        loads: list[bytes] = []
        decode = opened.decode_frame

        def counted(name: bytes) -> object:
            loads.append(name)
            return decode(name)

        monkeypatch.setattr(opened, "decode_frame", counted)
        fetch = hopping(opened)
        wanted = [digest(b"%d" % number) for number in range(20)]
        async with trio.open_nursery() as nursery:
            for name in wanted * 5:
                nursery.start_soon(fetch.get, name)
        assert len(loads) == 1  # all of them lie in one frame


async def test_a_cancelled_reader_leaves_nothing_behind(repository: Repository, repository_path: str) -> None:
    make_version(repository, "r", TREE)
    with cold(repository_path) as opened:
        fetch = hopping(opened)
        with trio.move_on_after(0):
            await fetch.get(digest(b"one"))
        assert not fetch._flights and not fetch._frames
        assert bytes(await fetch.get(digest(b"one"))) == b"one"


async def test_each_reader_of_a_damaged_chunk_gets_the_error(
    repository: Repository, repository_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(repository, "r", TREE)
    with cold(repository_path) as opened:
        monkeypatch.setattr(opened.store, "get", lambda *_: b"rubbish")
        fetch = hopping(opened)
        failed = 0

        async def reader() -> None:
            nonlocal failed
            with pytest.raises(ChunkCorrupt, match="frame"):
                await fetch.get(digest(b"one"))
            failed += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(reader)
        assert failed == 5


async def test_roots_and_versions_as_folders(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_version(repository, "r", TREE)
    make_version(repository, "other", {b"o": b"o"})
    fs = served(repository, None)
    assert (await lookup(fs, "r/v1/a")).st_ino == (first.slot << 40) + 1
    assert (await lookup(fs, "r/v1/a")).entry_timeout > 1e6
    latest = await lookup(fs, "r/latest")
    assert stat.S_ISLNK(latest.st_mode) and latest.entry_timeout <= 1
    assert await fs.readlink(latest.st_ino, CTX) == b"v1"
    assert (await fs.lookup(first.slot << 40, b"..", CTX)).st_ino == (await lookup(fs, "r")).st_ino
    monkeypatch.setattr("spraydry.mount.fs.LIVE_S", 0.0)
    second = make_version(repository, "r", {b"new": b"new"})
    assert (await lookup(fs, "r/v2/new")).st_ino == (second.slot << 40) + 1
    assert await fs.readlink(latest.st_ino, CTX) == b"v2"
    assert (await lookup(fs, "r/v2")).entry_timeout <= 1
    assert (await lookup(fs, "absent")).st_ino == 0 == (await lookup(fs, "r/v9")).st_ino
    assert await fs.getxattr(second.slot << 40, b"user.spraydry.version", CTX) == b"r@v2"
    same = await lookup(served(repository, None), "r")
    assert same.st_ino == (await lookup(fs, "r")).st_ino
