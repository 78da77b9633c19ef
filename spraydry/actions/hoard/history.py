"""What happened to one key of a hoard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.errors import KeyNotFound
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.format.version import HoardRecord
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Event:
    """In log slot `slot`, at `made_ns` (ns since 1970), by `made_by`, a key came to name `entry`, a file without a
    name; nothing (None) where it was deleted."""

    slot: int
    made_ns: int
    made_by: str
    entry: Entry | None


def key_history(repository: Repository, hoard: str, key: str) -> Iterator[Event]:
    """What happened to a key, the oldest first. Reads every record of the hoard from the store; what overwritten
    entries name may be collected since. Raises HoardNotFound, KeyNotFound where the key never was there, UsageError."""
    name_of(key)
    log = repository.log
    log.hoards.existing(hoard)
    before: Entry | None = None
    ever = False
    for slot, record in log.reread(log.puts(hoard)):
        assert isinstance(record, HoardRecord)
        now = dict(record.changes).get(key, None if record.cleared else before)
        if now is not before:
            ever = True
            yield Event(slot, record.made_ns, record.made_by, now)
        before = now
    if not ever:
        raise KeyNotFound(f"{hoard}/{key} was never there")
