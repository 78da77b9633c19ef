"""What surgery does to hardlink groups: members counted again, first names found again, ids that two parts share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from spraydry.errors import CorruptData, NotFound
from spraydry.format.entry import Entry
from spraydry.format.links import Group, Links, group_of
from spraydry.stores.database.scratch import scratch

_CACHE_BYTES = 4 << 20

Walk = Iterable[tuple[bytes, Entry]]


class Tally:
    """Counts the members of hardlink groups that a walk in preorder meets. In a scratch database; for one thread."""

    def __init__(self) -> None:
        self._database = scratch(_CACHE_BYTES)
        self._database.execute(
            "CREATE TABLE met(id BLOB PRIMARY KEY, count INTEGER, first BLOB, place INTEGER) WITHOUT ROWID"
        )
        self.members = 0

    def add(self, group: bytes, path: bytes) -> None:
        """One more member."""
        self._database.execute(
            "INSERT INTO met VALUES(?, 1, ?, ?) ON CONFLICT(id) DO UPDATE SET count = count + 1",
            (group, path, self.members),
        )
        self.members += 1

    def get(self, group: bytes) -> Group | None:
        """A group as far as it was met: its first path, and how many members."""
        if not self.members:
            return None
        for count, first in self._database.execute("SELECT count, first FROM met WHERE id = ?", (group,)):
            return Group(group, count, first)
        return None

    def met(self) -> Iterator[Group]:
        """All that were met, by id, also those with one member."""
        for row in self._database.execute("SELECT id, count, first FROM met ORDER BY id"):
            yield Group(*row)

    def singles(self) -> Iterator[bytes]:
        """The paths of members that are alone, in preorder."""
        for (first,) in self._database.execute("SELECT first FROM met WHERE count = 1 ORDER BY place"):
            yield first

    def close(self) -> None:
        """Let the scratch database vanish."""
        self._database.close(True)


class Survivors:
    """The hardlink groups of a tree from which entries go: `lost` walks these, `rest` what stays, both in preorder.

    Members that go are counted; only where a group loses its first name or all but one, or where what goes cannot be
    read, are those that stay looked for. `links` is the list the tree has, None if it is to be made from `rest` alone.
    """

    def __init__(self, links: Links | None, lost: Walk, rest: Callable[[], Walk]) -> None:
        self._links = links
        self._lost, self._left = Tally(), Tally()
        search = links is None
        if links is not None:
            try:
                for path, entry in lost:
                    if entry.group is not None:
                        self._lost.add(entry.group, path)
                search = any(self._unclear(links, group) for group in self._lost.met())
            except (CorruptData, NotFound):
                self._links, search = None, True
        for path, entry in rest() if search else ():
            group = entry.group
            if group is not None and (self._links is None or self._is_unclear(self._links, group)):
                self._left.add(group, path)

    def _is_unclear(self, links: Links, group: bytes) -> bool:
        lost = self._lost.get(group)
        return lost is not None and self._unclear(links, lost)

    @staticmethod
    def _unclear(links: Links, lost: Group) -> bool:
        """Whether of what stays of a group it is not known where the first, or only, member is."""
        whole = links.find(lost.group)
        return whole.count > lost.count and (whole.count == lost.count + 1 or whole.first == lost.first)

    @property
    def unchanged(self) -> bool:
        """Whether no member went."""
        return self._links is not None and not self._lost.members

    def groups(self) -> Iterator[Group]:
        """The groups that stay, by id: those of at least two members."""
        if self._links is None:
            yield from (group for group in self._left.met() if group.count > 1)
            return
        for group in self._links.groups():
            lost = self._lost.get(group.group)
            if lost is None:
                yield group
                continue
            left = self._left.get(group.group) or Group(group.group, group.count - lost.count, group.first)
            if left.count > 1:
                yield left

    def singles(self) -> Iterator[bytes]:
        """The paths of entries that have become plain files, in preorder."""
        return self._left.singles()

    def close(self) -> None:
        """Let the scratch databases vanish."""
        self._lost.close()
        self._left.close()


class Renamed:
    """Groups of a part that get other ids, because the part below has groups of theirs. For one thread."""

    def __init__(self) -> None:
        self._database = scratch(_CACHE_BYTES)
        self._database.execute(
            "CREATE TABLE renamed(old BLOB PRIMARY KEY, new BLOB UNIQUE, count INTEGER, first BLOB) WITHOUT ROWID;"
            "CREATE TABLE clash(new BLOB, first BLOB)"
        )
        self.members = 0

    def add(self, group: Group, first: bytes) -> None:
        """Give a group, whose first path is now `first`, another id, which `avoid` may change."""
        new = self._unused(group_of(first), first)
        self._database.execute("INSERT INTO renamed VALUES(?, ?, ?, ?)", (group.group, new, group.count, first))
        self.members += group.count

    def _unused(self, new: bytes, first: bytes) -> bytes:
        while self._database.execute("SELECT 1 FROM renamed WHERE new = ?", (new,)).fetchall():
            new = group_of(new + first)
        return new

    def avoid(self, others: Iterator[Group]) -> bool:
        """Change the new ids that are among those of other groups, by id; whether there were any. All at a time: each
        asked for alone made 50,000 groups take 20 s."""
        for group in in_both(others, self.groups()):
            self._database.execute("INSERT INTO clash VALUES(?, ?)", (group.group, group.first))
        clashes = False
        for new, first in self._database.execute("SELECT new, first FROM clash"):
            other = self._unused(group_of(new + first), first)
            self._database.execute("UPDATE renamed SET new = ? WHERE new = ?", (other, new))
            clashes = True
        self._database.execute("DELETE FROM clash")
        return clashes

    def get(self, group: bytes) -> bytes | None:
        """The new id of a group; None where it stays as it is."""
        if not self.members:
            return None
        new: bytes | None = None
        for (found,) in self._database.execute("SELECT new FROM renamed WHERE old = ?", (group,)):
            new = found
        return new

    def groups(self) -> Iterator[Group]:
        """The groups under their new ids, by these."""
        for row in self._database.execute("SELECT new, count, first FROM renamed ORDER BY new"):
            yield Group(*row)

    def close(self) -> None:
        """Let the scratch database vanish."""
        self._database.close(True)


def in_both(lower: Iterator[Group], upper: Iterator[Group]) -> Iterator[Group]:
    """The groups of the upper list whose ids the lower one has, too; both by id."""
    other = next(lower, None)
    for group in upper:
        while other is not None and other.group < group.group:
            other = next(lower, None)
        if other is None:
            return
        if other.group == group.group:
            yield group
