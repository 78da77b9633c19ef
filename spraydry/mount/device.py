"""The device that an EROFS image of a version takes file contents from: one large file, or a few, of a FUSE mount."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, FUSEError, InodeT, RequestContext

from spraydry.errors import CorruptData
from spraydry.format.erofs import SLOT_BLOCKS
from spraydry.format.erofs_layout import BLOCK_BYTES
from spraydry.format.tree import FILE, Entry, Page, Runs, Subtree, Tree
from spraydry.mount.attributes import FOREVER_S
from spraydry.mount.contents import Contents
from spraydry.mount.erofs import PROBE_BLOCKS
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.guard import guarded

PROBE_BLOCK = b"spraydry".ljust(BLOCK_BYTES, b"\xa5")
_FIRST_SLOT, _PROBE = 2, 1 << 20  # inode numbers
_KEPT_PLACES = 16
_ZEROS = bytes(1 << 20)


_Place = tuple[int, Entry]


class Piece(NamedTuple):
    """The bytes `low` to `high` of a chunk that has `length`; of zeros, where `chunk` is None."""

    chunk: bytes | None
    low: int
    high: int
    length: int


class Plan:
    """From a range of the address space of `format.erofs.Addresses` to pieces of chunks. `page` and `contents` may
    raise to say what to load first: then the same call is made again. Not thread-safe.

    The space is that of the tree, which knows where block n lies by its totals, so nothing is kept but the places where
    readers left off.
    """

    def __init__(self, root: Entry, page: Callable[[bytes], Page], contents: Contents) -> None:
        self._root = root
        self._page = page
        self._contents = contents
        self._left: OrderedDict[int, tuple[_Place | None, Iterator[_Place]]] = OrderedDict()

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What lies in the bytes `start` to `stop`, without gaps."""
        found: list[Piece] = []
        at = start
        if start in self._left:
            here, files = self._left.pop(start)
        else:
            files = self._files(start // BLOCK_BYTES)
            here = next(files, None)
        while here is not None:
            block, entry = here
            first = block * BLOCK_BYTES
            if first >= stop:
                break
            if first > at:
                found.append(Piece(None, 0, first - at, 0))
                at = first
            low, high = at - first, min(stop - first, entry.size)
            if low < high:
                self._add(entry, low, high, found)
                at = first + high
            if first + entry.size > stop:
                break
            here = next(files, None)
        if at < stop:
            found.append(Piece(None, 0, stop - at, 0))
        self._left[stop] = here, files
        if len(self._left) > _KEPT_PLACES:
            self._left.popitem(last=False)
        return found

    def _add(self, entry: Entry, low: int, high: int, found: list[Piece]) -> None:
        content = entry.content
        if isinstance(content, bytes):
            found.append(Piece(content, low, high, entry.size))
        elif isinstance(content, Runs):
            for span in self._contents.spans(content, entry.size, low, high):
                within = max(low - span.offset, 0), min(high - span.offset, span.length)
                found.append(Piece(span.chunk, *within, span.length))

    def _files(self, block: int) -> Iterator[_Place]:
        """The files of some bytes from the one at `block` on, in preorder, each with its first block."""
        assert isinstance(self._root.content, Subtree)
        stack = [(0, Tree(self._root.content, self._page).entries_from_block(block))]
        while stack:
            base, entries = stack[-1]
            for entry, before in entries:
                if entry.kind == FILE:
                    if entry.size:
                        yield base + before, entry
                elif isinstance(entry.content, Subtree) and entry.content.blocks:
                    inside = Tree(entry.content, self._page).entries_from_block(block - base - before)
                    stack.append((base + before, inside))
                    break
            else:
                stack.pop()


class DeviceFs(pyfuse3.Operations):
    """A folder with a file for each slot (`0`, `1`, ...), and one that fails behind its first block (`probe`), by which
    the kernel is tried. All handlers run in one trio thread.

    A read gets exactly what it asked for or an error: one short answer would make the kernel take the file for shorter,
    and all files behind fail.
    """

    enable_writeback_cache = False

    def __init__(self, fetch: ChunkFetcher, root: Entry, slots: Sequence[int]) -> None:
        super().__init__()
        self._fetch = fetch
        self._plan = Plan(root, fetch.page, Contents(fetch.chunk))
        self._sizes = {_FIRST_SLOT + number: blocks * BLOCK_BYTES for number, blocks in enumerate(slots)}
        self._sizes[_PROBE] = PROBE_BLOCKS * BLOCK_BYTES

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """What a request was about, for the log."""
        return f"bytes {args[1]} to {args[1] + args[2]} of the device" if handler == "read" else "the device"

    def _attributes(self, inode: int) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = inode
        attributes.entry_timeout = attributes.attr_timeout = FOREVER_S
        attributes.st_mode = stat.S_IFREG | 0o400 if inode in self._sizes else stat.S_IFDIR | 0o500
        attributes.st_size = self._sizes.get(inode, 0)
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        return attributes

    @guarded
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes(inode)

    @guarded
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        inode = _PROBE if name == b"probe" else _FIRST_SLOT + int(name) if name.isdigit() else 0
        if inode not in self._sizes:
            raise FUSEError(errno.ENOENT)
        return self._attributes(inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass

    @guarded
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    async def release(self, fh: FileHandleT) -> None:
        pass

    @guarded
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        stop = min(off + size, self._sizes[fh])
        if fh == _PROBE:
            if stop > BLOCK_BYTES:
                raise FUSEError(errno.EIO)
            return PROBE_BLOCK[off:stop]
        base = (fh - _FIRST_SLOT) * SLOT_BLOCKS * BLOCK_BYTES
        pieces = await self._fetch.run(self._plan.pieces, base + off, base + stop)
        self._fetch.ahead(piece.chunk for piece in pieces if piece.chunk is not None)
        parts: list[bytes | memoryview] = []
        peek = self._fetch.peek
        for digest, low, high, length in pieces:
            if digest is None:
                parts += [_ZEROS] * ((high - low) // len(_ZEROS))
                parts.append(memoryview(_ZEROS)[: (high - low) % len(_ZEROS)])
                continue
            chunk = peek(digest)
            if chunk is None:
                chunk = await self._fetch.get(digest)
            if len(chunk) != length:
                raise CorruptData(f"chunk {digest.hex()} has {len(chunk)} bytes where a file claims {length}")
            parts.append(chunk[low:high])
        return b"".join(parts)
