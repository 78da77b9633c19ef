"""Trees: a directory's entries in pages, which are read one at a time. Layout: FORMAT.md §4."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import cast

from spraydry.errors import CorruptData
from spraydry.format.entry import Entry, Subtree
from spraydry.format.tree_page import Child, Page

MAX_DEPTH = 8


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


def _last_of(item: Entry | Child) -> bytes:
    return item.name if isinstance(item, Entry) else item.last
