"""The pages of a tree: what one decoded page holds, and what makes it a possible one. Layout: FORMAT.md §4."""

from __future__ import annotations

from typing import cast

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.entry import FILE, Entry, Subtree, Totals, check_entry, check_name

LEAF, INDEX = 1, 2
MAX_PAGE_BYTES = 64 << 10


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
