"""Deleting the frames and dictionaries that were condemned long enough ago."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from spraydry.actions.progress import Done, Report
from spraydry.repository.condemned import collect, delete_dictionaries, delete_frames
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass
class Due:
    """What was condemned and is still stored, frames or dictionaries, with their sizes: those to be deleted, by the
    slot to be collected for it (0: that was done), and the sums of what waits for the grace time, the first of it
    `until_ns`."""

    slots: dict[int, dict[bytes, int]] = field(default_factory=dict)
    waiting: int = 0
    waiting_bytes: int = 0
    until_ns: int | None = None
    clock_behind: bool = False

    @property
    def count(self) -> int:
        """The number of those to be deleted."""
        return sum(map(len, self.slots.values()))

    @property
    def bytes(self) -> int:
        """The stored bytes to be deleted."""
        return sum(sum(frames.values()) for frames in self.slots.values())


def due(repository: Repository, marks: Marks, grace_ns: int) -> Due:
    """What was condemned before, of which `marks` knows what the store holds.

    A clock before the newest record says nothing about ages: then nothing is old enough. One that is ahead only deletes
    early; whatever could still need a frame was fenced off by the record that collects it.
    """
    given_up = ((slot, made.made_ns, made.frames, collected) for slot, made, collected in repository.log.sentences())
    return _due(repository, given_up, marks.stored, grace_ns)


def dictionaries_due(repository: Repository, grace_ns: int) -> Due:
    """As `due`, of dictionaries."""
    log, sizes = repository.log, stored_dictionaries(repository) if repository.log.dropped else {}
    given_up = ((slot, made.made_ns, made.dictionaries, collected) for slot, made, collected in log.drops())
    return _due(repository, given_up, lambda names: {name: sizes[name] for name in names if name in sizes}, grace_ns)


def stored_dictionaries(repository: Repository) -> dict[bytes, int]:
    """The dictionaries that the store holds, with their sizes."""
    listed = repository.store.list("dictionaries")
    return {bytes.fromhex(stored.name): stored.size for stored in listed if _DIGEST.fullmatch(stored.name)}


def _due(
    repository: Repository,
    given_up: Iterable[tuple[int, int, Sequence[bytes], bool]],
    held: Callable[[Iterable[bytes]], dict[bytes, int]],
    grace_ns: int,
) -> Due:
    """Of slots, when they were made, what they gave up, and whether they were collected; `held` gives what is stored
    of some."""
    found, now = Due(), time.time_ns()
    found.clock_behind = grace_ns > 0 and now < repository.log.latest_ns
    seen: set[bytes] = set()
    for slot, made_ns, names, collected in sorted(given_up, key=lambda one: not one[3]):
        stored = held(name for name in names if name not in seen)
        seen |= stored.keys()
        if not stored:
            continue
        if collected:
            found.slots.setdefault(0, {}).update(stored)
        elif grace_ns == 0 or (not found.clock_behind and now - made_ns >= grace_ns):
            found.slots[slot] = stored
        else:
            found.waiting += len(stored)
            found.waiting_bytes += sum(stored.values())
            until = made_ns + grace_ns
            found.until_ns = until if found.until_ns is None else min(until, found.until_ns)
    return found


def delete_dictionaries_due(repository: Repository, found: Due, verb: str) -> dict[bytes, int]:
    """Collect the slots and delete the dictionaries; those that are gone."""
    gone: dict[bytes, int] = {}
    for slot, sizes in found.slots.items():
        if not slot or collect(repository, slot, verb):
            delete_dictionaries(repository, sizes)
            gone |= sizes
    return gone


def delete_due(
    repository: Repository, marks: Marks, found: Due, verb: str, report: Report
) -> Iterator[tuple[int, int]]:
    """Collect the slots and delete the frames; after each batch the number that are gone and their sizes."""
    total, gone = found.bytes, 0
    for slot, frames in found.slots.items():
        if slot and not collect(repository, slot, verb):
            continue
        names, before = sorted(frames), 0
        for count in delete_frames(repository, names):
            size = sum(frames[name] for name in names[before:count])
            gone += size
            marks.forget_stored(names[before:count])
            report(Done("deleting", 0, gone, None, total))
            yield count - before, size
            before = count
