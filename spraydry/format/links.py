"""The links list of a version: hardlink group -> first path and count, sorted and paged. Layout: FORMAT.md §6."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.format.entry import GROUP_BYTES, check_name

LINKS, INDEX = 5, 6
# A page ends behind the first group whose id says so once it has MIN bytes, or at MAX, so that a new group changes one
# page. Ids are digests: their last bytes are as good as random (the first ones rise with the order).
MIN_PAGE_BYTES = 24 << 10
PAGE_BYTES = 48 << 10
KEPT_PAGES = 64
_CHILD_BYTES = GROUP_BYTES + DIGEST_BYTES + 5
MAX_DEPTH = 8


class Group(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The entries that are one inode: the path (in preorder) of the first, from the version's root, and how many."""

    group: bytes
    count: int
    first: bytes


class _Child(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    group: bytes  # the first one below
    digest: bytes


class _Links(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=LINKS):
    version: int
    groups: tuple[Group, ...]


class _Index(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=INDEX):
    version: int
    children: tuple[_Child, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Links | _Index)


def group_of(first_path: bytes) -> bytes:
    """The group id: the first 16 bytes of the BLAKE3 of the first member's path."""
    return digest(first_path)[:GROUP_BYTES]


def encode_links(groups: Iterable[Group], emit: Callable[[bytes, bytes], None]) -> bytes | None:
    """Write the pages of a links list (groups sorted by id) through `emit(digest, plain)`; the name of the top one."""

    def put(page: _Links | _Index, first: bytes) -> _Child:
        plain = _encoder.encode(page)
        name = digest(plain)
        emit(name, plain)
        return _Child(first, name)

    children = [put(_Links(1, part), part[0].group) for part in _pages(groups, 0, _group_bytes)]
    level = 1
    while len(children) > 1:
        children = [put(_Index(1, part), part[0].group) for part in _pages(children, level, lambda _: _CHILD_BYTES)]
        level += 1
    return children[0].digest if children else None


_Item = TypeVar("_Item", Group, _Child)


def _group_bytes(group: Group) -> int:
    return len(group.first) + GROUP_BYTES + 8


def _pages(items: Iterable[_Item], level: int, size: Callable[[_Item], int]) -> Iterator[tuple[_Item, ...]]:
    part: list[_Item] = []
    held = 0
    for item in items:
        more = size(item)
        if part and (held + more > PAGE_BYTES or (held >= MIN_PAGE_BYTES and part[-1].group[-1 - level] & 63 == 0)):
            yield tuple(part)
            part, held = [], 0
        part.append(item)
        held += more
    if part:
        yield tuple(part)


def _decode(plain: bytes) -> _Links | _Index:
    try:
        page: _Links | _Index = _decoder.decode(plain)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"a links page does not parse: {error}") from None
    ids = [item.group for item in (page.groups if isinstance(page, _Links) else page.children)]
    if (
        page.version != 1
        or not ids
        or ids != sorted(set(ids))
        or any(len(group) != GROUP_BYTES for group in ids)
        or _encoder.encode(page) != plain
        or (isinstance(page, _Links) and any(group.count < 2 or not group.first for group in page.groups))
        or (isinstance(page, _Index) and any(len(child.digest) != DIGEST_BYTES for child in page.children))
    ):
        raise CorruptData("a links page is not possible")
    if isinstance(page, _Links):
        for found in page.groups:
            for name in found.first.split(b"/"):
                check_name(name)
    return page


class Links:
    """Reads a links list; pages come from `read` (digest -> verified plain bytes). Raises CorruptData.

    Keeps the pages used last, decoded (about 140 KiB each): ids are spread over all of them, and decoding one for every
    look-up made a listing of 40,000 hardlinks take minutes. Not thread-safe.
    """

    def __init__(self, name: bytes | None, read: Callable[[bytes], bytes]) -> None:
        self.name = name
        self._read = read
        self._kept: OrderedDict[bytes, tuple[_Links | _Index, list[bytes]]] = OrderedDict()

    def _page(self, name: bytes) -> tuple[_Links | _Index, list[bytes]]:
        """A page and the ids in it."""
        kept = self._kept.get(name)
        if kept is None:
            page = _decode(self._read(name))
            ids = [item.group for item in (page.groups if isinstance(page, _Links) else page.children)]
            kept = self._kept[name] = page, ids
            if len(self._kept) > KEPT_PAGES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(name)
        return kept

    def find(self, group: bytes) -> Group:
        """The group of that id; an entry that names one which is not listed is damage."""
        found = self.get(group)
        if found is None:
            raise CorruptData(f"hardlink group {group.hex()} is not in the version's links list")
        return found

    def get(self, group: bytes) -> Group | None:
        """The group of that id; None if it is not listed."""
        name = self.name
        for _ in range(MAX_DEPTH):
            if name is None:
                break
            page, ids = self._page(name)
            place = bisect_right(ids, group) - 1
            if isinstance(page, _Index):
                name = page.children[max(place, 0)].digest
                continue
            return page.groups[place] if place >= 0 and ids[place] == group else None
        if name is None:
            return None
        raise CorruptData("a links list is deeper than possible")

    def groups(self) -> Iterator[Group]:
        """All groups, by id."""
        last = b""
        for _, page in self._all():
            for group in page.groups if isinstance(page, _Links) else ():
                if group.group <= last:
                    raise CorruptData("the pages of a links list overlap")
                last = group.group
                yield group

    def pages(self) -> Iterator[bytes]:
        """The names of all its pages."""
        return (name for name, _ in self._all())

    def _all(self) -> Iterator[tuple[bytes, _Links | _Index]]:
        """All its pages, each above those it names, in order of the ids in them."""
        stack = [] if self.name is None else [(self.name, 0)]
        while stack:
            name, depth = stack.pop()
            page = _decode(self._read(name))
            yield name, page
            if isinstance(page, _Index):
                if depth > MAX_DEPTH:
                    raise CorruptData("a links list is deeper than possible")
                stack += [(child.digest, depth + 1) for child in reversed(page.children)]
