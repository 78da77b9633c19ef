"""What happened to a hoard, day by day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.format.version import HoardRecord
from spraydry.repository.repository import Repository


@dataclass
class Day:
    """What was done to a hoard on one day (`2026-11-21`, here) in log slots from `first` to `last`: `puts`, of
    `put_bytes`, and `deletions`, of keys; `cleared` says how often all keys were deleted at once."""

    day: str
    first: int
    last: int
    puts: int = 0
    put_bytes: int = 0
    deletions: int = 0
    cleared: int = 0


def days(repository: Repository, hoard: str) -> Iterator[Day]:
    """The days on which something was done, in the order of the log. Reads every record of the hoard. Raises
    HoardNotFound."""
    repository.log.hoards.existing(hoard)
    now: Day | None = None
    for slot, record in repository.log.reread(repository.log.puts(hoard)):
        assert isinstance(record, HoardRecord)
        day = time.strftime("%Y-%m-%d", time.localtime(record.made_ns // 10**9))
        if now is None or now.day != day:
            if now is not None:
                yield now
            now = Day(day, slot, slot)
        now.last = slot
        now.cleared += record.cleared
        for _, entry in record.changes:
            now.puts += entry is not None
            now.deletions += entry is None
            now.put_bytes += 0 if entry is None else entry.size
    if now is not None:
        yield now
