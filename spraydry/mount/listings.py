"""Listings of the directories of versions; the one that will be asked for next is made while there is time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NamedTuple

from pyfuse3 import FUSEError

from spraydry.format.entry import DIRECTORY
from spraydry.mount.attributes import FOREVER_S, Attributes
from spraydry.mount.inodes import Node
from spraydry.mount.wire import Listing

_KEPT_NEXT = 4096


class _Asked(NamedTuple):
    """A request: for the entries of `ino` from `offset` on, as many as fit `size` bytes, with attributes or without."""

    ino: int
    offset: int
    size: int
    plus: bool


class _Made(NamedTuple):
    """`end` is the offset behind the last entry, None if that is not among these."""

    answer: bytes
    directories: list[int]
    end: int | None


class Listings:
    """`node(ino)` gives a directory, `parent(node)` the number of what it is in; what they raise is raised here. Not
    thread-safe.

    Entries are at 0 and 1 (`.` and `..`), the others at the number of inodes before them + 2; a reader goes on at what
    follows that.

    Programs that walk a tree list directories in preorder, and take as long to ask for the next as it takes to make it
    (40 us): so `prepare` makes it meanwhile.
    """

    def __init__(self, node: Callable[[int], Node], parent: Callable[[Node], int], attributes: Attributes) -> None:
        self._node = node
        self._parent = parent
        self._attributes = attributes.of_entry
        self._next: list[int] = []  # numbers of directories, the one expected first at the end
        self._ready: tuple[_Asked, _Made] | None = None
        self._asked: _Asked | None = None
        self._end: tuple[int, int | None] = 0, None

    def answer(self, ino: int, offset: int, size: int, plus: bool) -> bytes:
        """What READDIRPLUS or READDIR is answered."""
        if self._end == (ino, offset):
            return b""
        asked = self._asked = _Asked(ino, offset, size, plus)
        if self._ready is not None and self._ready[0] == asked:
            made = self._ready[1]
        else:
            made = self._make(asked)
        self._ready = None
        self._end = ino, made.end
        if self._next and self._next[-1] == ino:
            self._next.pop()
        elif offset == 0:
            self._next.clear()
        if len(self._next) < _KEPT_NEXT:
            self._next += reversed(made.directories)
        return made.answer

    def prepare(self) -> None:
        """Make the listing that is likely to be asked for next."""
        if self._ready is None and self._asked is not None and self._next:
            following = self._asked._replace(ino=self._next[-1], offset=0)
            try:
                self._ready = following, self._make(following)
            except BaseException:
                self._next.pop()
                raise

    def _make(self, asked: _Asked) -> _Made:
        directory = self._node(asked.ino)
        if directory.tree is None:
            raise FUSEError(errno.ENOTDIR)
        listing = Listing(asked.size, asked.plus)
        if asked.offset <= 0:
            listing.add_dot(b".", asked.ino, 1)
        if asked.offset <= 1:
            listing.add_dot(b"..", self._parent(directory), 2)
        add, attributes = listing.add, self._attributes
        numbering, first = directory.of, directory.number + 1
        first_ino = numbering.first_ino + first
        total = directory.end - first
        offset = max(asked.offset - 2, 0)
        directories: list[int] = []
        while offset < total:
            page, base, begin = directory.tree.leaf(offset)
            offsets = page.offsets
            for place in range(begin, len(page.items)):
                entry: Any = page.items[place]
                if entry.group is None:
                    ino = first_ino + base + offsets[place]
                    attr = attributes(entry, ino, 1)
                    if entry.kind == DIRECTORY:
                        directories.append(ino)
                else:
                    linked = numbering.linked(entry.group)
                    attr = attributes(entry, numbering.first_ino + linked.number, linked.count)
                if not add(entry.name, attr, base + offsets[place + 1] + 2, FOREVER_S):
                    return _Made(listing.packed(), directories, None)
            offset = base + offsets[-1]
        return _Made(listing.packed(), directories, total + 2)
