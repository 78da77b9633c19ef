"""The two levels above the versions when a whole repository is mounted: a folder a root, in it its versions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spraydry.errors import CorruptData
from spraydry.format.links import Links
from spraydry.format.tree_page import Page
from spraydry.format.version import TagRecord, VersionRecord
from spraydry.mount.inodes import FUSE_ROOT, MAX_SLOT, SLOT_SHIFT, Node, Numbering
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version

# Numbers below 1 << SLOT_SHIFT: a slot (never reused), and what is shown of it.
_FOLDER, _LATEST, _TAG = 0, 1, 2
LATEST = b"latest"


@dataclass(frozen=True)
class Shown:
    """A folder or symlink of these levels. `slot` is where the log first names it: that orders listings, so that
    reading one goes on at the right place when something was added meanwhile."""

    ino: int
    name: bytes
    slot: int
    root: str = ""
    target: bytes | None = None
    mtime_ns: int = 0


Place = Shown | Node


class Roots:
    """What is shown of a repository's log. Not thread-safe, but for the log, which others may refresh.

    `latest` in each root is a symlink to the newest version. A version with several names is a folder under the first
    one and a symlink under the others: a directory cannot have two names in one file system, and a symlink costs a
    program that walks the tree nothing.
    """

    def __init__(self, repository: Repository, page: Callable[[bytes], Page], chunk: Callable[[bytes], bytes]) -> None:
        self._log = repository.log
        self._page = page
        self._chunk = chunk
        self._first: dict[str, int] = {}
        self._seen = 0
        self._numberings: dict[int, Numbering] = {}

    def _folder(self, root: str) -> Shown:
        records = self._log.records
        while root not in self._first and self._seen < len(records):
            record = records[self._seen]
            self._seen += 1
            if isinstance(record, VersionRecord | TagRecord):
                self._first.setdefault(record.root, self._seen)
        newest = self._log.newest(root)
        slot = self._first[root]
        made_ns = newest.record.made_ns if newest else 0
        return Shown(slot << 2 | _FOLDER, root.encode(), slot, root, mtime_ns=made_ns)

    def entries(self, folder: Shown, after_slot: int = -1) -> Iterator[tuple[int, bytes, Place]]:
        """What a folder holds behind `after_slot`: slot, name, and what is there, by slot."""
        if folder.ino == FUSE_ROOT:
            for shown in sorted(map(self._folder, self._log.roots()), key=lambda shown: shown.slot):
                if shown.slot > after_slot:
                    yield shown.slot, shown.name, shown
            return
        newest = self._log.newest(folder.root)
        if newest and after_slot < 0:
            yield 0, LATEST, self._latest(folder, newest)
        first: dict[int, str] = {}
        for version in self._log.versions(folder.root):
            name = first.setdefault(version.made_in, version.name)
            if version.slot > after_slot:
                yield version.slot, version.name.encode(), self._version(version, name)

    def child(self, folder: Shown, name: bytes) -> Place | None:
        """What a folder holds under that name."""
        return next((place for _, found, place in self.entries(folder) if found == name), None)

    def by_ino(self, ino: int) -> Place:
        """What has that inode number. Raises CorruptData if there is nothing, or not any more."""
        slot = ino >> SLOT_SHIFT
        if slot:
            return self._numbering(slot).by_ino(ino)
        if ino == FUSE_ROOT:
            return self.top()
        slot, kind = ino >> 2, ino & 3
        for root in self._log.roots():
            folder = self._folder(root)
            if kind == _TAG or folder.slot == slot:
                for _, _, place in ((0, b"", folder), *self.entries(folder)):
                    if isinstance(place, Shown) and place.ino == ino:
                        return place
        raise CorruptData(f"the repository shows nothing with inode {ino} any more")

    def top(self) -> Shown:
        """The root of the mount."""
        return Shown(FUSE_ROOT, b"", 0, mtime_ns=self._log.latest_ns)

    def parent(self, node: Node) -> Shown:
        """The folder a version's root lies in."""
        return self._folder(node.of.label.partition("@")[0])

    def totals(self) -> tuple[int, int]:
        """4 KiB blocks and inodes of all versions together."""
        entries = {v.made_in: v.record.entry for root in self._log.roots() for v in self._log.versions(root)}
        return sum(e.totals.blocks for e in entries.values()), sum(e.totals.inodes for e in entries.values())

    def _latest(self, folder: Shown, newest: Version) -> Shown:
        made_ns = newest.record.made_ns
        return Shown(folder.slot << 2 | _LATEST, LATEST, 0, folder.root, newest.name.encode(), made_ns)

    def _version(self, version: Version, first_name: str) -> Place:
        if version.name == first_name:
            return self._numbering(version.made_in, version).root
        name, made_ns = version.name.encode(), version.record.made_ns
        return Shown(version.slot << 2 | _TAG, name, version.slot, version.root, first_name.encode(), made_ns)

    def _numbering(self, slot: int, version: Version | None = None) -> Numbering:
        """The entries of the version made in `slot`. It stays readable when the version is removed meanwhile."""
        numbering = self._numberings.get(slot)
        if numbering is None:
            if version is None:
                found = (v for root in self._log.roots() for v in self._log.versions(root) if v.made_in == slot)
                version = next(found, None)
            if version is None or slot >= MAX_SLOT:
                raise CorruptData(f"there is no version in slot {slot} any more")
            links = Links(version.record.links, self._chunk)
            numbering = Numbering(str(version), version.record.entry, links, self._page, slot << SLOT_SHIFT)
            self._numberings[slot] = numbering
        return numbering
