"""Deleting what was condemned long enough ago."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from spraydry.actions.progress import Done, Report
from spraydry.repository.condemned import collect, delete_frames
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository


@dataclass
class Due:
    """Condemned frames that are still stored, with their sizes: those to be deleted, by the slot to be collected for
    it (0: that was done), and the sums of what waits for the grace time, the first of it `until_ns`."""

    slots: dict[int, dict[bytes, int]] = field(default_factory=dict)
    waiting_frames: int = 0
    waiting_bytes: int = 0
    until_ns: int | None = None
    clock_behind: bool = False

    @property
    def frames(self) -> int:
        """The number of frames to be deleted."""
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
    found, now = Due(), time.time_ns()
    log = repository.log
    found.clock_behind = grace_ns > 0 and now < max((record.made_ns for record in log.records), default=0)
    seen: set[bytes] = set()
    for slot, record, collected in sorted(log.sentences(), key=lambda sentence: not sentence[2]):
        stored = marks.stored(name for name in record.frames if name not in seen)
        seen |= stored.keys()
        if not stored:
            continue
        if collected:
            found.slots.setdefault(0, {}).update(stored)
        elif grace_ns == 0 or (not found.clock_behind and now - record.made_ns >= grace_ns):
            found.slots[slot] = stored
        else:
            found.waiting_frames += len(stored)
            found.waiting_bytes += sum(stored.values())
            until = record.made_ns + grace_ns
            found.until_ns = until if found.until_ns is None else min(until, found.until_ns)
    return found


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
