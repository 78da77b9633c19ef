"""The handlers, called as the channel calls them, without a mount."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from typing import Any

import pyfuse3
import pytest
import trio

from spraydry.errors import ChunkCorrupt
from spraydry.format.digest import digest
from spraydry.format.entry import CHARACTER, FILE
from spraydry.mount import wire
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.fs import VersionFs
from spraydry.repository.address import resolve
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from tests.mount.answers import Entry, attributes, entries, entry
from tests.versions import make_version, plain_entry

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


async def ask(fs: Any, handler: str, *args: Any) -> Any:
    """The answer of a handler, which loads what it needs."""
    answer = await fs._fetch.run(getattr(fs, handler), *args)
    return b"".join(answer) if isinstance(answer, list) else answer


async def lookup(fs: Any, path: str) -> Entry:
    ino, found = 1, None
    for name in path.split("/"):
        found = entry(await ask(fs, "lookup", ino, os.fsencode(name)))
        ino = found.ino
    assert found is not None
    return found


async def test_attributes(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    top, valid_s = attributes(await ask(fs, "getattr", 1))
    assert stat.S_ISDIR(top.mode) and top.nlink == 1 and valid_s > 1e6
    a = await lookup(fs, "a")
    assert (a.attr.ino, a.attr.size, a.attr.blocks, stat.S_ISREG(a.attr.mode)) == (2, 3, 1, True)
    assert (await lookup(fs, "dev")).attr.rdev == os.makedev(1, 3)
    old = (await lookup(fs, "old")).attr
    assert (old.mtime, old.mtime_ns, stat.S_IMODE(old.mode)) == (-2, 5, 0o4755)
    absent = await lookup(fs, "absent")
    assert absent.ino == 0 and absent.entry_valid_s > 1e6  # remembered by the kernel for good
    d = (await lookup(fs, "d")).ino
    assert entry(await ask(fs, "lookup", d, b"..")).ino == 1 == entry(await ask(fs, "lookup", 1, b"..")).ino
    assert entry(await ask(fs, "lookup", d, b".")).ino == d
    assert await ask(fs, "readlink", (await lookup(fs, "s")).ino) == b"a"


async def test_owner(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    a = (await lookup(served(repository, owner=(7, 8)), "a")).attr
    assert (a.uid, a.gid) == (7, 8)


@pytest.mark.parametrize("room", [200, 500, 1 << 20])
@pytest.mark.parametrize("plus", [True, False])
async def test_readdir_goes_on_where_it_stopped(repository: Repository, room: int, plus: bool) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    directory = (await lookup(fs, "d")).ino
    seen: list[tuple[bytes, int]] = []
    offset = 0
    while answer := await ask(fs, "readdirplus" if plus else "readdir", directory, offset, room):
        assert len(answer) <= room
        for found in entries(answer, plus):
            seen.append((found.name, found.ino))
            assert not plus or found.ino == found.entry.ino == found.entry.attr.ino
            assert found.kind == (stat.S_IFDIR if found.name in (b".", b"..") else stat.S_IFREG) >> 12
            offset = found.offset
    assert seen == [
        (b".", directory),
        (b"..", 1),
        *((name, directory + 1 + place) for place, name in enumerate(sorted(MANY))),
    ]


@pytest.mark.parametrize("inline", [True, False])
async def test_read(repository: Repository, repository_path: str, inline: bool) -> None:
    big = random.randbytes(300_000) + bytes(500_000) + b"end"
    make_version(repository, "r", {b"big": big, b"small": b"small"})
    with cold(repository_path) as opened:
        fs = served(opened)
        fs._fetch._inline = inline
        ino = (await lookup(fs, "big")).ino
        for start in (0, 65535, 299_999, 400_000, len(big) - 3, len(big)):
            assert await ask(fs, "read", ino, start, 131072) == big[start : start + 131072]
        assert await ask(fs, "read", (await lookup(fs, "small")).ino, 2, 100) == b"all"


async def test_opening_is_left_to_a_kernel_that_can(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    fs = served(repository)
    assert await ask(fs, "open", 2, os.O_RDONLY) == wire.open_out(wire.KEEP_CACHE)
    assert await ask(fs, "opendir", 1, os.O_RDONLY) == wire.open_out(wire.KEEP_CACHE | wire.CACHE_DIR)
    fs.offered(wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT)
    everything = served(repository, None)
    everything.offered(wire.NO_OPEN_SUPPORT | wire.NO_OPENDIR_SUPPORT)
    for of, handler, ino in ((fs, "open", 2), (fs, "opendir", 1), (everything, "open", 1 << 40)):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await ask(of, handler, ino, os.O_RDONLY)
        assert raised.value.errno == errno.ENOSYS
    assert await ask(everything, "opendir", 1, os.O_RDONLY) == wire.open_out(0)  # new roots appear there


async def test_extended_attributes(repository: Repository) -> None:
    version = make_version(repository, "r", TREE)
    fs = served(repository)
    x = (await lookup(fs, "x")).ino
    assert await ask(fs, "listxattr", x, 100, 0) == b"user.a\0user.b\0trusted.t\0"
    assert await ask(fs, "getxattr", x, b"user.b", 100) == b"value"
    assert await ask(fs, "getxattr", x, b"user.b", 0) == (5).to_bytes(8, "little")
    assert await ask(fs, "listxattr", x, 100, 1000) == b"user.a\0user.b\0"
    a = (await lookup(fs, "a")).ino
    assert await ask(fs, "listxattr", a, 100, 0) == b""
    assert await ask(fs, "getxattr", a, b"user.spraydry.digest", 64) == digest(b"one").hex().encode()
    assert await ask(fs, "getxattr", 1, b"user.spraydry.version", 64) == str(version).encode()
    for ino, name, room, code in (
        (a, b"security.capability", 64, pyfuse3.ENOATTR),
        (x, b"user.c", 64, pyfuse3.ENOATTR),
        (1, b"user.spraydry.digest", 64, pyfuse3.ENOATTR),
        (x, b"user.b", 4, errno.ERANGE),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await ask(fs, "getxattr", ino, name, room)
        assert raised.value.errno == code


async def test_statfs_tells_totals(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    assert await ask(served(repository), "statfs", 1) == wire.statfs_out(201, 1 + 7 + 200, 4096, 255)
    assert await ask(served(repository, None), "statfs", 1) == wire.statfs_out(201, 208, 4096, 255)


async def test_opening_to_write_is_refused(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await ask(served(repository), "open", 2, flags)
        assert raised.value.errno == errno.EROFS


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


def store_parts(repository: Repository, count: int) -> list[bytes]:
    """The names of as many chunks that do not shrink, four to a frame."""
    plain = [bytes([number]) + random.Random(number).randbytes(65535) for number in range(count)]
    with Writer(repository, threads=1) as writer:
        names = [digest(one) for one in plain]
        for name, one in zip(names, plain, strict=True):
            writer.add(name, one, "data", part=True)
        writer.finish()
    return names


async def read_ahead(fetch: ChunkFetcher, names: list[bytes]) -> None:
    async with trio.open_nursery() as nursery:
        fetch.read_ahead_in(nursery)
        assert fetch.ahead(names)


@pytest.mark.parametrize("slow", [False, True])
async def test_chunks_read_ahead_are_there_afterwards(
    repository: Repository, repository_path: str, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    names = store_parts(repository, 16)
    with cold(repository_path) as opened:
        loads = []
        load = opened._load

        def counted(frame: bytes, name: bytes) -> Any:
            loads.append(frame)
            time.sleep(0.01 if slow else 0)  # longer than one job lasts
            return load(frame, name)

        monkeypatch.setattr(opened, "_load", counted)
        fetch = hopping(opened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_ahead, fetch, [*names, names[0], names[-1]])  # files repeat chunks
            for name in names[:4] * 3:
                nursery.start_soon(fetch.get, name)
        assert all(fetch.peek(name) is not None for name in names)
        assert len(loads) == len(set(loads)) == 4
        assert not fetch._flights and not fetch._frames and not fetch.waiting


async def test_damage_ahead_is_met_by_who_needs_it(
    repository: Repository, repository_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = store_parts(repository, 8)
    with cold(repository_path) as opened:
        damaged = opened.catalog.chunks.locate(names[0])[0].frame.hex()
        get = opened.store.get
        monkeypatch.setattr(
            opened.store, "get", lambda space, name: b"rubbish" if name == damaged else get(space, name)
        )
        fetch = hopping(opened)
        await read_ahead(fetch, names)
        with pytest.raises(ChunkCorrupt, match=damaged):
            await fetch.get(names[0])
        assert digest(await fetch.get(names[4])) == names[4]
        assert not fetch._flights and not fetch._frames


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


async def test_roots_and_versions_as_folders(repository: Repository) -> None:
    first = make_version(repository, "r", TREE)
    make_version(repository, "other", {b"o": b"o"})
    fs = served(repository, None)
    a = await lookup(fs, "r/v1/a")
    assert a.ino == (first.slot << 40) + 1 and a.entry_valid_s > 1e6
    latest = await lookup(fs, "r/latest")
    assert stat.S_ISLNK(latest.attr.mode) and latest.entry_valid_s <= 1
    assert await ask(fs, "readlink", latest.ino) == b"v1"
    assert entry(await ask(fs, "lookup", first.slot << 40, b"..")).ino == (await lookup(fs, "r")).ino
    second = make_version(repository, "r", {b"new": b"new"})
    fs._refreshed_s -= 2
    assert (await lookup(fs, "r/v2/new")).ino == (second.slot << 40) + 1
    assert await ask(fs, "readlink", latest.ino) == b"v2"
    assert (await lookup(fs, "r/v2")).entry_valid_s <= 1
    assert (await lookup(fs, "absent")).ino == 0 == (await lookup(fs, "r/v9")).ino
    assert await ask(fs, "getxattr", second.slot << 40, b"user.spraydry.version", 100) == b"r@v2"
    assert (await lookup(served(repository, None), "r")).ino == (await lookup(fs, "r")).ino
    assert [found.name for found in entries(await ask(fs, "readdirplus", 1, 0, 4096), True)] == [
        b".", b"..", b"r", b"other"
    ]  # fmt: skip


async def test_the_next_listing_of_a_walk_is_made_before_it_is_asked_for(repository: Repository) -> None:
    make_version(repository, "r", {b"a": {b"b": {b"c": {}}, b"file": b"1"}, b"d": {b"e": {}}, b"f": b"2"})
    fs = served(repository)
    plain = served(repository)
    for ino in (1, 2, 3, 4, 6, 7, 2, 6):  # the last two in no order of a walk
        assert await ask(fs, "readdirplus", ino, 0, 4096) == await ask(plain, "readdirplus", ino, 0, 4096)
        fs.idle()
        ready = fs._listings._ready
        assert ready is None or ready[0].ino == {1: 2, 2: 3, 3: 4, 4: 6, 6: 7}[ino]
        assert await ask(fs, "readdirplus", ino, 0, 200) == await ask(plain, "readdirplus", ino, 0, 200)
        end = list(entries(await ask(plain, "readdirplus", ino, 0, 4096), True))[-1].offset
        assert await ask(fs, "readdirplus", ino, end, 4096) == b""
