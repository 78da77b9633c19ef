"""Inode numbers of a version: an entry's place in preorder, and back from a number to the entry. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from spraydry.errors import CorruptData
from spraydry.format.entry import Entry, Subtree
from spraydry.format.links import Links
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page

FUSE_ROOT = 1

# In a mount of several versions each one has the numbers from its log slot << SLOT_SHIFT on; those below are left for
# the folders above the versions. Slots are never reused, so neither are numbers.
SLOT_SHIFT = 40
MAX_INODES = 1 << SLOT_SHIFT
MAX_SLOT = 1 << 22  # so that every number stays below 2^62

_KEPT_GROUPS = 8192


class Node:
    """An entry at its place: `number` counts the inodes of the version before it, `parent` is the directory it is in.

    Of a directory `tree` reads its entries and `end` is the first number behind its subtree. Immutable.
    """

    __slots__ = ("end", "entry", "number", "of", "parent", "tree")

    def __init__(self, of: Numbering, entry: Entry, number: int, parent: Node | None) -> None:
        self.of = of
        self.entry = entry
        self.number = number
        self.parent = parent
        content = entry.content
        if isinstance(content, Subtree):
            self.tree: Tree | None = Tree(content, of.page)
            self.end = number + 1 + content.inodes
        else:
            self.tree = None
            self.end = number + 1

    @property
    def ino(self) -> int:
        """Its inode number, that of the first member for an entry in a hardlink group."""
        return self.of.ino(self.entry, self.number)

    @property
    def path(self) -> bytes:
        """Its path from the root of the version."""
        names: list[bytes] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            names.append(node.entry.name)
            node = node.parent
        return b"/".join(reversed(names))


@dataclass(frozen=True)
class Linked:
    """What the members of a hardlink group share: the number of the first one, and how many there are."""

    number: int
    count: int


class Numbering:
    """The entries of one version by number and by name. `page` and what `links` reads may raise to say what to load
    first: then the same call is made again. Not thread-safe.

    Inode numbers are `first_ino` + number, counted from the version's root, also where only a part of it is mounted: so
    they are the same in every mount, and a hardlink whose first name lies elsewhere has one too. The entry with number
    `mounted`, if given, is the root of the mount itself and has inode 1.

    No table of inodes is kept: a number is searched downwards from the last directory used, or the nearest one above it
    whose range holds the number.
    """

    def __init__(
        self,
        label: str,
        root: Entry,
        links: Links,
        page: Callable[[bytes], Page],
        first_ino: int = FUSE_ROOT,
        mounted: int | None = None,
    ) -> None:
        self.label = label
        self.page = page
        self.first_ino = first_ino
        self._mounted = mounted
        self._links = links
        self._groups: OrderedDict[bytes, Linked] = OrderedDict()
        self.root = Node(self, root, 0, None)
        self._near = self.root
        if self.root.end > MAX_INODES:
            raise CorruptData(f"{label} holds {self.root.end} inodes, more than a mount can number")

    def ino(self, entry: Entry, number: int) -> int:
        """The inode number of an entry found at `number`."""
        if entry.group is not None:
            number = self.linked(entry.group).number
        return FUSE_ROOT if number == self._mounted else self.first_ino + number

    def nlink(self, entry: Entry) -> int:
        """The link count. That of directories is always 1, as on btrfs: it tells programs that subdirectories are not
        counted, and counting them would mean reading every directory that is listed."""
        return 1 if entry.group is None else self.linked(entry.group).count

    def by_ino(self, ino: int) -> Node:
        """The entry of an inode number. Raises CorruptData if there is none."""
        if ino == FUSE_ROOT and self._mounted is not None:
            return self.at(self._mounted)
        return self.at(ino - self.first_ino)

    def at(self, number: int) -> Node:
        """The entry of a number. Raises CorruptData if there is none."""
        node = self._near
        while not node.number <= number < node.end:
            if node.parent is None:
                raise CorruptData(f"{self.label} has no inode {number}")
            node = node.parent
        while node.number != number:
            if node.tree is None:
                raise CorruptData(f"{self.label} has no inode {number}")
            self._near = node
            entry, before = node.tree.at(number - node.number - 1)
            node = Node(self, entry, node.number + 1 + before, node)
        if node.tree is not None:
            self._near = node
        return node

    def child(self, parent: Node, name: bytes) -> Node | None:
        """The entry of that name in a directory; None if there is none."""
        found = None if parent.tree is None else parent.tree.lookup(name)
        return None if found is None else Node(self, found[0], parent.number + 1 + found[1], parent)

    def linked(self, group: bytes) -> Linked:
        """What the members of a hardlink group share."""
        linked = self._groups.get(group)
        if linked is None:
            found = self._links.find(group)
            node: Node | None = self.root
            for name in found.first.split(b"/"):
                node = None if node is None else self.child(node, name)
            if node is None or node.entry.group != group:
                raise CorruptData(f"{self.label}: the links list names {found.first[:200]!r}, which is not there")
            linked = self._groups[group] = Linked(node.number, found.count)
            if len(self._groups) > _KEPT_GROUPS:
                self._groups.popitem(last=False)
        return linked
