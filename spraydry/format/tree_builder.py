"""Making the pages of a tree, one at a time. Layout: FORMAT.md §4."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.entry import FILE, Entry, Subtree, check_entry
from spraydry.format.tree_page import INDEX, LEAF, MAX_PAGE_BYTES, Child

# A page ends at the first name whose digest says so once it has MIN bytes, or before MAX: so the same names give the
# same pages whatever was there before, and one more name changes one page. Measured: 45 KB decode in 0.2 ms.
MIN_PAGE_BYTES = 32 << 10

_encoder = msgspec.msgpack.Encoder()


class TreeBuilder:
    """Makes the pages of one directory from its entries, added in name order, holding no more than a page a level.

    `emit(digest, plain)` gets every page, those below before those above. Not thread-safe.
    """

    def __init__(self, emit: Callable[[bytes, bytes], None], _level: int = 0) -> None:
        self._emit = emit
        self._level = _level
        self._parts: list[bytes] = []
        self._bytes = 0
        self._totals = [0, 0, 0, 0]
        self._first = self._last = b""
        self._above: TreeBuilder | None = None

    def add_file(self, name: bytes, encoded: bytes, size: int) -> None:
        """The next entry, of kind FILE, already checked and encoded."""
        self._add(name, name, encoded)
        totals = self._totals
        totals[0] += 1
        totals[1] += 1
        totals[2] += size
        totals[3] += -(-size // 4096)
        self._close_at(name)

    def add(self, entry: Entry) -> None:
        """The next entry; its name must sort behind the last. Raises CorruptData for one no reader would take."""
        check_entry(entry)
        if entry.kind == FILE:
            self.add_file(entry.name, _encoder.encode(entry), entry.size)
            return
        self._add(entry.name, entry.name, _encoder.encode(entry))
        totals = self._totals
        totals[0] += 1
        if isinstance(entry.content, Subtree):
            below = entry.content
            totals[0] += below.inodes
            totals[1] += below.files
            totals[2] += below.size
            totals[3] += below.blocks
        self._close_at(entry.name)

    def finish(self) -> Subtree:
        """Write what is left and name the whole."""
        if self._above is None:
            return Subtree(self._page(), *self._totals)
        if self._parts:
            self._flush()
        return self._above.finish()

    def _add(self, first: bytes, last: bytes, encoded: bytes) -> None:
        if first <= self._last:
            raise CorruptData(f"names are out of order or there twice: {first[:80]!r}")
        if self._bytes + len(encoded) > MAX_PAGE_BYTES and self._parts:
            self._flush()
        if not self._parts:
            self._first = first
        self._last = last
        self._parts.append(encoded)
        self._bytes += len(encoded)

    def _close_at(self, name: bytes) -> None:
        if self._bytes >= MIN_PAGE_BYTES and digest(name)[self._level] & 63 == 0:
            self._flush()

    def _flush(self) -> None:
        child = Child(self._first, self._last, self._page(), *self._totals)
        if self._above is None:
            self._above = TreeBuilder(self._emit, self._level + 1)
        self._above._add_child(child)
        self._parts.clear()
        self._bytes = 0
        self._totals[:] = (0, 0, 0, 0)

    def _add_child(self, child: Child) -> None:
        self._add(child.first, child.last, _encoder.encode(child))
        for place, value in enumerate(child.totals):
            self._totals[place] += value
        self._close_at(child.last)

    def _page(self) -> bytes:
        if max(self._totals) >= 1 << 63:
            raise CorruptData("the files of a directory have more bytes than can be counted")
        kind = INDEX if self._level else LEAF
        header = bytes((0x93, kind, 1)) + _array_header(len(self._parts))
        plain = b"".join((header, *self._parts))
        name = digest(plain)
        self._emit(name, plain)
        return name


def _array_header(length: int) -> bytes:
    """The msgpack header of an array, in its shortest form."""
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")
