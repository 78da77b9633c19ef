"""Part of a directory: so many entries by name from some place on, or the first of them in another order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.entry import DIRECTORY, Entry
from spraydry.format.tree import Tree

NAME, SIZE, TIME = "name", "size", "time"
_TOLD_EVERY = 4096


@dataclass(frozen=True)
class Listed:
    """Entries of a directory, and whether there are more of them before and behind these. `counted` is how many the
    directory has directly, None where that was not counted."""

    entries: list[Entry]
    earlier: bool
    later: bool
    counted: int | None


def by_name(tree: Tree, most: int, *, after: bytes = b"", before: bytes = b"", first: bytes = b"") -> Listed:
    """Up to `most` entries by name bytes: those behind `after`, the last ones before `before`, or from the name
    `first` on. Reads only the pages that these are in. Raises CorruptData."""
    if before:
        found = list(islice(tree.entries_back(before), most + 1))
        return Listed(found[:most][::-1], len(found) > most, True, None)
    entries = (entry for entry, _ in tree.entries(_just_before(first) if first else after))
    found = list(islice(entries, most + 1))
    earlier = bool(found and (after or first)) and next(tree.entries_back(found[0].name), None) is not None
    later = len(found) > most
    return Listed(found[:most], earlier, later, None if earlier or later or after or first else len(found))


def _just_before(name: bytes) -> bytes:
    """A name behind which `name` is the first one that is possible."""
    return name[:-1] + bytes((name[-1] - 1,)) + b"\xff" * 255 if name[-1] else name[:-1]


def ordered(tree: Tree, by: str, most: int, skip: int = 0, report: Report = unheard) -> Listed:
    """Up to `most` entries behind the first `skip`, the largest (`size`; of directories that of their files) or
    the newest (`time`) first. Reads all pages, and holds as many entries as are skipped and given. Raises
    CorruptData."""
    counted = 0

    def counting() -> Iterator[Entry]:
        nonlocal counted
        for entry, _ in tree.entries():
            counted += 1
            if counted % _TOLD_EVERY == 0:
                report(Done("sorting", counted, counted="entries"))
            yield entry

    key = size_of if by == SIZE else _time_of
    # Of those that are equal, the one that comes first by name: nlargest is stable.
    found = heapq.nlargest(skip + most, counting(), key=key)
    return Listed(found[skip:], skip > 0, counted > skip + most, counted)


def size_of(entry: Entry) -> int:
    """The bytes of a file, or of the files below a directory."""
    return entry.totals.size if entry.kind == DIRECTORY else entry.size


def _time_of(entry: Entry) -> tuple[int, int]:
    return entry.mtime_s, entry.mtime_ns
