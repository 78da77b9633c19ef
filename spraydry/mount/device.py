"""The device that an EROFS image of a version takes file contents from: one large file, or a few, of a FUSE mount."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pyfuse3 import FUSEError

from spraydry.errors import CorruptData
from spraydry.format.entry import FILE, Entry, Runs, Subtree
from spraydry.format.erofs_contents import SLOT_BLOCKS
from spraydry.format.erofs_layout import BLOCK_BYTES
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page
from spraydry.mount import wire
from spraydry.mount.attributes import FOREVER_S
from spraydry.mount.channel import Answer
from spraydry.mount.contents import Contents
from spraydry.mount.erofs import PROBE_BLOCKS
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.readahead import ReadAhead
from spraydry.mount.wire import Attr

PROBE_BLOCK = b"spraydry".ljust(BLOCK_BYTES, b"\xa5")
_FIRST_SLOT, _PROBE = 2, 1 << 20  # inode numbers
_KEPT_PLACES = 16
_ZEROS = bytes(1 << 20)
# Chunks of large files are loaded in threads, several at a time. Small files share frames, of which the first read
# brings the rest, so hops would cost more than they spare: `tar` of 94,000 files took 3.2 s of CPU so, 2.5 without.
_AHEAD_BYTES = 32 << 10


_Place = tuple[int, Entry]


class Piece(NamedTuple):
    """The bytes `low` to `high` of a chunk that has `length`; of zeros, where `chunk` is None."""

    chunk: bytes | None
    low: int
    high: int
    length: int


class Plan:
    """From a range of the address space of `erofs_contents.Addresses` to pieces of chunks. `page` and `contents` may
    raise to say what to load first: then the same call is made again. Not thread-safe.

    The space is that of the tree, which knows where block n lies by its totals, so nothing is kept but the places where
    readers left off.
    """

    def __init__(self, root: Entry, page: Callable[[bytes], Page], contents: Contents) -> None:
        self._root = root
        self._page = page
        self._contents = contents
        self.within: _Place | None = None  # the file that goes on behind what was planned last
        self._left: OrderedDict[int, tuple[_Place | None, Iterator[_Place]]] = OrderedDict()

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What lies in the bytes `start` to `stop`, without gaps."""
        found: list[Piece] = []
        at = start
        self.within = None
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
                self.within = here
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


class DeviceFs:
    """A folder with a file for each slot (`0`, `1`, ...), and one that fails behind its first block (`probe`), by which
    the kernel is tried: the Handlers of a channel.

    A read gets exactly what it asked for or an error: one short answer would make the kernel take the file for shorter,
    and all files behind fail.
    """

    def __init__(self, fetch: ChunkFetcher, root: Entry, slots: Sequence[int]) -> None:
        self._fetch = fetch
        contents = Contents(fetch.chunk)
        self._plan = Plan(root, fetch.page, contents)
        self._ahead = ReadAhead(fetch, contents)
        self._sizes = {_FIRST_SLOT + number: blocks * BLOCK_BYTES for number, blocks in enumerate(slots)}
        self._sizes[_PROBE] = PROBE_BLOCKS * BLOCK_BYTES
        self._begun: OrderedDict[tuple[int, int, int], list[Piece]] = OrderedDict()  # of reads that miss chunks

    def offered(self, flags: int) -> None:
        pass

    def idle(self) -> None:
        pass

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """What a request was about, for the log."""
        return f"bytes {args[1]} to {args[1] + args[2]} of the device" if handler == "read" else "the device"

    def _attributes(self, ino: int) -> Attr:
        mode = stat.S_IFREG | 0o400 if ino in self._sizes else stat.S_IFDIR | 0o500
        size = self._sizes.get(ino, 0)
        return ino, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, BLOCK_BYTES, 0

    def getattr(self, ino: int) -> bytes:
        return wire.attr_out(self._attributes(ino), FOREVER_S)

    def lookup(self, ino: int, name: bytes) -> bytes:
        found = _PROBE if name == b"probe" else _FIRST_SLOT + int(name) if name.isdigit() else 0
        if found not in self._sizes:
            raise FUSEError(errno.ENOENT)
        return wire.entry_out(self._attributes(found), FOREVER_S)

    def open(self, ino: int, flags: int) -> bytes:
        return wire.open_out(wire.KEEP_CACHE)

    def release(self, ino: int) -> bytes:
        return b""

    def read(self, ino: int, offset: int, size: int) -> Answer:
        stop = min(offset + size, self._sizes[ino])
        if ino == _PROBE:
            if stop > BLOCK_BYTES:
                raise FUSEError(errno.EIO)
            return PROBE_BLOCK[offset:stop]
        base = (ino - _FIRST_SLOT) * SLOT_BLOCKS * BLOCK_BYTES
        pieces = self._begun.get((ino, offset, stop))
        if pieces is None:
            pieces = self._begun[ino, offset, stop] = self._plan.pieces(base + offset, base + stop)
            self._fetch.ahead(one.chunk for one in pieces if one.chunk is not None and one.length >= _AHEAD_BYTES)
            if self._plan.within is not None:
                self._follow(self._plan.within, base + offset, base + stop)
            if len(self._begun) > _KEPT_PLACES:
                self._begun.popitem(last=False)
        parts: list[bytes | memoryview] = []
        chunk_of = self._fetch.chunk
        for digest, low, high, length in pieces:
            if digest is None:
                parts += [_ZEROS] * ((high - low) // len(_ZEROS))
                parts.append(memoryview(_ZEROS)[: (high - low) % len(_ZEROS)])
                continue
            chunk = chunk_of(digest)
            if len(chunk) != length:
                raise CorruptData(f"chunk {digest.hex()} has {len(chunk)} bytes where a file claims {length}")
            parts.append(chunk[low:high])
        self._begun.pop((ino, offset, stop), None)
        return parts

    def _follow(self, within: _Place, start: int, stop: int) -> None:
        block, entry = within
        first = block * BLOCK_BYTES
        if isinstance(entry.content, Runs):
            self._ahead.follow(block, entry.content, entry.size, max(start - first, 0), stop - first)
