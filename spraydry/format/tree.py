"""Trees: a directory's entries in pages, which are made and read one at a time. Layout: FORMAT.md §4."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import cast

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.format.entry import FILE, Entry, Subtree, Totals, check_entry, check_name

LEAF, INDEX = 1, 2
# A page ends at the first name whose digest says so once it has MIN bytes, or before MAX: so the same names give the
# same pages whatever was there before, and one more name changes one page. Measured: 45 KB decode in 0.2 ms.
MIN_PAGE_BYTES = 32 << 10
MAX_PAGE_BYTES = 64 << 10
MAX_DEPTH = 8


class Child(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """A page as the index page above it names it."""

    first: bytes
    last: bytes
    digest: bytes
    inodes: int
    files: int
    size: int
    blocks: int

    @property
    def totals(self) -> Totals:
        return Totals(self.inodes, self.files, self.size, self.blocks)


class _Leaf(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=LEAF):
    version: int
    entries: tuple[Entry, ...]


class _Index(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=INDEX):
    version: int
    children: tuple[Child, ...]


_encoder = msgspec.msgpack.Encoder()
_page_decoder = msgspec.msgpack.Decoder(_Leaf | _Index)


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


class Page:
    """One decoded and checked page. `names` are the (last) names of its items, `offsets[i]` counts the inodes before
    item i, `block_offsets[i]` the 4 KiB blocks of files; the last ones are the page's totals."""

    __slots__ = ("block_offsets", "bytes", "items", "leaf", "names", "offsets", "totals")

    names: list[bytes]
    offsets: list[int]
    block_offsets: list[int]

    def __init__(self, plain: bytes) -> None:
        """Raises CorruptData unless `plain` is the one encoding of a possible page."""
        if len(plain) > MAX_PAGE_BYTES + 16:
            raise CorruptData(f"no tree page has {len(plain)} bytes")
        try:
            page = _page_decoder.decode(plain)
        except msgspec.MsgspecError as error:
            raise CorruptData(f"a tree page does not parse: {error}") from None
        self.leaf = isinstance(page, _Leaf)
        self.items: tuple[Entry, ...] | tuple[Child, ...] = page.entries if isinstance(page, _Leaf) else page.children
        self.bytes = len(plain)
        if page.version != 1 or _encoder.encode(page) != plain:
            raise CorruptData("a tree page is not in its one possible encoding")
        self.totals = _totals_of(page.entries) if isinstance(page, _Leaf) else _totals_below(page.children)
        if max(self.totals) >= 1 << 63:
            raise CorruptData("a tree page's totals are not possible")

    def __getattr__(self, slot: str) -> list[bytes] | list[int]:
        """Called for what is not set: these lists are made when one is first asked for, which most pages that are gone
        through never are."""
        names: list[bytes] = []
        offsets, block_offsets = [0], [0]
        made = {"names": names, "offsets": offsets, "block_offsets": block_offsets}
        if slot not in made:
            raise AttributeError(slot)
        inodes = blocks = 0
        for item in self.items:
            more = item.totals
            inodes += more.inodes
            blocks += more.blocks
            names.append(item.name if isinstance(item, Entry) else item.last)
            offsets.append(inodes)
            block_offsets.append(blocks)
        self.names, self.offsets, self.block_offsets = names, offsets, block_offsets
        return made[slot]  # type: ignore[return-value]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What a leaf holds."""
        assert self.leaf
        return cast(tuple[Entry, ...], self.items)


def _totals_of(entries: tuple[Entry, ...]) -> Totals:
    """Checks the entries of a leaf and sums them up. Raises CorruptData."""
    inodes, files, size, blocks = len(entries), 0, 0, 0
    before = b""
    for entry in entries:
        check_entry(entry)
        name = entry.name
        if name <= before:
            raise CorruptData("names in a tree page are out of order or there twice")
        before = name
        below = entry.content
        if entry.kind == FILE:
            files += 1
            size += entry.size
            blocks += -(-entry.size // 4096)
        elif type(below) is Subtree:
            inodes += below.inodes
            files += below.files
            size += below.size
            blocks += below.blocks
    return Totals(inodes, files, size, blocks)


def _totals_below(children: tuple[Child, ...]) -> Totals:
    """Checks the children of an index page and sums them up. Raises CorruptData."""
    if not children:
        raise CorruptData("an index page of a tree is empty")
    totals = Totals()
    before = b""
    for child in children:
        if len(child.digest) != DIGEST_BYTES or child.inodes <= 0 or min(child.totals) < 0:
            raise CorruptData("a tree page's child is not possible")
        check_name(child.first)
        check_name(child.last)
        if not before < child.first <= child.last:
            raise CorruptData("names in a tree page are out of order or there twice")
        before = child.last
        totals += child.totals
    return totals


def _last_of(item: Entry | Child) -> bytes:
    return item.name if isinstance(item, Entry) else item.last


class Tree:
    """Reads one directory. `page(digest)` gives a decoded page; it may block and decides about caching.

    Every page is compared with what its parent claims of it (totals, names): otherwise ranges of inode numbers could
    overlap and one file show another's bytes. Raises CorruptData.
    """

    def __init__(self, subtree: Subtree, page: Callable[[bytes], Page]) -> None:
        self.subtree = subtree
        self._load = page

    def lookup(self, name: bytes) -> tuple[Entry, int] | None:
        """The entry of that name and the number of inodes in this directory before it; None if there is none."""
        page, base = self.top(), 0
        for _ in range(MAX_DEPTH):
            place = bisect_left(page.names, name)
            if place == len(page.names):
                return None
            item = page.items[place]
            base += page.offsets[place]
            if isinstance(item, Entry):
                return (item, base) if item.name == name else None
            if name < item.first:
                return None
            page = self.child(item)
        raise CorruptData("a tree is deeper than possible")

    def find(self, name: bytes) -> Entry | None:
        """The entry of that name; None if there is none. Quicker than `lookup` in pages that were just read, for it
        counts no inodes."""
        page = self.top()
        for _ in range(MAX_DEPTH):
            place = bisect_left(page.items, name, key=_last_of)
            if place == len(page.items):
                return None
            item = page.items[place]
            if isinstance(item, Entry):
                return item if item.name == name else None
            if name < item.first:
                return None
            page = self.child(item)
        raise CorruptData("a tree is deeper than possible")

    def at(self, offset: int) -> tuple[Entry, int]:
        """The entry whose subtree holds inode `offset` (0 is the first entry), and the number of inodes before it."""
        page, base, place = self.leaf(offset)
        return cast(Entry, page.items[place]), base + page.offsets[place]

    def leaf(self, offset: int) -> tuple[Page, int, int]:
        """Where the entry stands whose subtree holds inode `offset`: its page, the number of inodes before that page,
        its place in the page."""
        page, base = self.top(), 0
        if not 0 <= offset < self.subtree.inodes:
            raise CorruptData("no such inode in this directory")
        for _ in range(MAX_DEPTH):
            place = bisect_right(page.offsets, offset - base) - 1
            if page.leaf:
                return page, base, place
            base += page.offsets[place]
            page = self.child(cast(Child, page.items[place]))
        raise CorruptData("a tree is deeper than possible")

    def entries(self, after: bytes = b"") -> Iterator[tuple[Entry, int]]:
        """The entries whose names sort behind `after`, in order, each with the number of inodes before it."""
        yield from self._below(self.top(), 0, after, 1)

    def entries_back(self, before: bytes = b"") -> Iterator[Entry]:
        """The entries whose names sort before `before` (b"": all of them), the last first."""
        yield from self._back(self.top(), before, 1)

    def entries_from_block(self, block: int) -> Iterator[tuple[Entry, int]]:
        """The entries from the one on in which block `block` lies, if those of all files below are counted in preorder,
        each with the number of blocks before it."""
        yield from self._from_block(self.top(), 0, block, 1)

    def pages(self) -> Iterator[bytes]:
        """The names of all pages of this directory (not of those below it)."""
        stack: list[tuple[Subtree | Child, int]] = [(self.subtree, 1)]
        while stack:
            claim, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise CorruptData("a tree is deeper than possible")
            yield claim.digest
            page = self.child(claim) if isinstance(claim, Child) else self.top()
            stack += [(item, depth + 1) for item in reversed(page.items) if isinstance(item, Child)]

    def leaves(self, lost: Callable[[bytes], bool]) -> Iterator[Page | Subtree | Child]:
        """The leaf pages in order; in the place of a page that is `lost`, which is not read, what is claimed of it."""
        stack: list[tuple[Subtree | Child, int]] = [(self.subtree, 1)]
        while stack:
            claim, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise CorruptData("a tree is deeper than possible")
            if lost(claim.digest):
                yield claim
                continue
            page = self.child(claim) if isinstance(claim, Child) else self.top()
            if page.leaf:
                yield page
            stack += [(item, depth + 1) for item in reversed(page.items) if isinstance(item, Child)]

    def top(self) -> Page:
        """The top page; its items are the entries, or pages for `child`."""
        page = self._load(self.subtree.digest)
        claim = self.subtree
        if page.totals != (claim.inodes, claim.files, claim.size, claim.blocks):
            raise CorruptData("a directory's totals are not what its parent claims")
        return page

    def child(self, claim: Child) -> Page:
        """A page that another page of this directory names."""
        page = self._load(claim.digest)
        first = page.items[0] if page.items else None
        if (
            first is None
            or page.totals != claim.totals
            or _last_of(page.items[-1]) != claim.last
            or (first.name if isinstance(first, Entry) else first.first) != claim.first
        ):
            raise CorruptData("a tree page is not what the page above claims")
        return page

    def _below(self, page: Page, base: int, after: bytes, depth: int) -> Iterator[tuple[Entry, int]]:
        if depth > MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        for place in range(bisect_right(page.names, after) if after else 0, len(page.names)):
            item = page.items[place]
            if isinstance(item, Entry):
                yield item, base + page.offsets[place]
            else:
                yield from self._below(self.child(item), base + page.offsets[place], after, depth + 1)

    def _back(self, page: Page, before: bytes, depth: int) -> Iterator[Entry]:
        if depth > MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        end = bisect_left(page.names, before) if before else len(page.names)
        for place in range(end if page.leaf else min(end + 1, len(page.items)), 0, -1):
            item = page.items[place - 1]
            if isinstance(item, Entry):
                yield item
            elif not before or item.first < before:
                yield from self._back(self.child(item), before, depth + 1)

    def _from_block(self, page: Page, base: int, block: int, depth: int) -> Iterator[tuple[Entry, int]]:
        if depth > MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        offsets = page.block_offsets
        for place in range(max(bisect_right(offsets, block - base) - 1, 0), len(page.items)):
            item = page.items[place]
            if isinstance(item, Entry):
                yield item, base + offsets[place]
            else:
                yield from self._from_block(self.child(item), base + offsets[place], block, depth + 1)
