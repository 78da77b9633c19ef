"""The keys of a hoard, for reading: the tree of its checkpoint with what was changed since laid over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.entry import FILE, Entry, Subtree
from spraydry.format.keys import key_of, name_of, prefix_of
from spraydry.format.tree import Tree
from spraydry.repository.hoards import View


@dataclass(frozen=True)
class Kept:
    """A key and the file it names, as an entry without a name."""

    key: str
    entry: Entry

    @property
    def size(self) -> int:
        """Bytes."""
        return self.entry.size

    @property
    def digest(self) -> bytes | None:
        """The BLAKE3 of its bytes, as `b3sum` prints it; None of a file with long holes, which was never hashed."""
        return self.entry.file_digest

    @property
    def put_ns(self) -> int:
        """When it was put, ns since 1970, by the clock of who did."""
        return self.entry.mtime_s * 10**9 + self.entry.mtime_ns


class Keys:
    """What a hoard held when its view was taken. Blocks where pages are read; threads may share it."""

    def __init__(self, view: View, tree: Callable[[Subtree], Tree]) -> None:
        self._changes = view.changes
        base = view.base.content if view.base is not None else None
        self._base = tree(base) if isinstance(base, Subtree) else None

    def find(self, key: str) -> Entry | None:
        """The file of a key, without a name; None where there is none. Raises UsageError for what can be no key."""
        name = name_of(key)
        if (change := self._changes.get(name)) is not None:
            return change.entry
        return self.below(name)

    def below(self, name: bytes) -> Entry | None:
        """As `find`, in the checkpoint alone, by the name in its tree."""
        found = self._base.find(name) if self._base is not None else None
        return _nameless(found) if found is not None else None

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """The keys that begin with `prefix` and come behind `after`, in their order: that of their bytes, but that a
        slash comes before all else."""
        front, low = prefix_of(prefix), prefix_of(after)
        if front > low:  # the greatest that sorts before all that begins so: no name has a byte 255
            low = front[:-1] + bytes([front[-1] - 1, 255])
        changed = (
            sorted(
                (name, change.entry)
                for name, change in list(self._changes.items())
                if name > low and name.startswith(front)
            )
            if self._changes
            else []
        )
        base = self._base.entries(low) if self._base is not None else iter(())
        for name, entry in _laid_over(((entry.name, entry) for entry, _ in base), changed):
            if not name.startswith(front):
                return
            if entry is not None:
                yield Kept(key_of(name), _nameless(entry))

    def count(self) -> int:
        """The number of keys. Looks up each that was changed since the checkpoint."""
        return self.totals()[0]

    def totals(self) -> tuple[int, int]:
        """The number of keys, and the bytes of the files these name."""
        base = self._base.subtree if self._base is not None else None
        count, size = (base.files, base.size) if base is not None else (0, 0)
        for name, change in sorted(list(self._changes.items()), key=lambda change: change[0]):
            before, now = self.below(name), change.entry
            count += (now is not None) - (before is not None)
            size += (now.size if now is not None else 0) - (before.size if before is not None else 0)
        return count, size


def _laid_over(
    lower: Iterator[tuple[bytes, Entry]], upper: list[tuple[bytes, Entry | None]]
) -> Iterator[tuple[bytes, Entry | None]]:
    """Both by rising names; of equal names the upper one's."""
    at = 0
    for name, entry in lower:
        while at < len(upper) and upper[at][0] < name:
            yield upper[at]
            at += 1
        if at < len(upper) and upper[at][0] == name:
            yield upper[at]
            at += 1
        else:
            yield name, entry
    yield from upper[at:]


def _nameless(entry: Entry) -> Entry:
    if entry.kind != FILE or entry.group is not None:
        raise CorruptData(f"a hoard holds what is no file: {entry.name[:80]!r}")
    made: Entry = msgspec.structs.replace(entry, name=b"")
    return made
