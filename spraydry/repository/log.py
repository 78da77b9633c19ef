"""The log of a repository: numbered records, each created only if absent, and the state they add up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Set
from typing import TypeVar

from spraydry.errors import CorruptData, SlotTaken
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import (
    AnyRecord,
    CheckpointRecord,
    CollectRecord,
    CondemnRecord,
    DictionariesRecord,
    DropRecord,
    HoardRecord,
    RemovalRecord,
    RevokeRecord,
    TagRecord,
    VersionRecord,
    decode_record,
    encode_record,
    hoard_head,
)
from spraydry.repository.hoards import Hoards, Puts, View
from spraydry.repository.slots import Kept, Slots, slot_name
from spraydry.repository.versions import Version, Versions

RECORD_FORMAT = 1
_TRIES = 100

R = TypeVar("R", CondemnRecord, DropRecord)


class Log(Slots, Versions):
    """Reads the records of a store in order, once each, and appends. Blocks; threads may share it.

    `records` has those of all slots, but that of hoards' changes only what stands for them is kept; `hoards` is what
    these add up to, `dictionaries` which class uses which.
    """

    def _forget(self) -> None:
        Slots._forget(self)
        Versions.__init__(self)
        self.latest_ns = 0  # the latest time any record gives
        self.hoards = Hoards()
        self._condemned: set[bytes] = set()
        self._revoked: set[int] = set()
        self._collected: set[int] = set()
        self.dictionaries: dict[str, bytes] = {}
        self._dropped: set[bytes] = set()

    def _append(self, value: bytes) -> None:
        slot = len(self.records) + 1
        record, name = decode_record(value, slot)
        if record.previous != self.head[1]:
            raise CorruptData(f"log slot {slot} does not follow slot {slot - 1}")
        self._check(slot, record)
        self.records.append(self._take(slot, record))
        self.digests.append(name)
        self.latest_ns = max(self.latest_ns, record.made_ns)

    def _append_packed(self, values: Iterable[bytes]) -> None:
        """The changes that a hoard's records make are decoded in `_settle`: not where a checkpoint says them sooner."""
        for value in values:
            head, slot = hoard_head(value), len(self.records) + 1
            follows = head is not None and head.previous == self.head[1]
            kept = self.hoards.take_later(slot, head.hoard, value) if head is not None and follows else None
            if head is None or kept is None:
                self._append(value)
                continue
            self.records.append(kept)
            self.digests.append(value[-DIGEST_BYTES:])
            self.latest_ns = max(self.latest_ns, head.made_ns)

    def _settle(self) -> None:
        self.hoards.settle()

    def _check(self, slot: int, record: AnyRecord) -> None:
        """Raises CorruptData for a record that cannot follow what is there."""
        if isinstance(record, VersionRecord | TagRecord) and record.name in self._roots.get(record.root, {}):
            raise CorruptData(f"log slot {slot} uses the name {record.root}@{record.name} again")
        if isinstance(record, TagRecord):
            tagged = self._by_slot.get(record.slot)
            if tagged is None or tagged.root != record.root:
                raise CorruptData(f"log slot {slot} names a version which is not there")
        elif isinstance(record, RemovalRecord) and record.slot not in self._by_slot:
            raise CorruptData(f"log slot {slot} removes what is no version")
        elif isinstance(record, RevokeRecord) and not (
            record.slot < slot and isinstance(self.records[record.slot - 1], RemovalRecord | CondemnRecord | DropRecord)
        ):
            raise CorruptData(f"log slot {slot} takes back what cannot be taken back")
        elif isinstance(record, RevokeRecord) and record.slot in self._collected:
            raise CorruptData(f"log slot {slot} takes back what is deleted already")
        elif isinstance(record, CollectRecord) and not (
            record.slot < slot
            and isinstance(self.records[record.slot - 1], CondemnRecord | DropRecord)
            and record.slot not in self._revoked
        ):
            raise CorruptData(f"log slot {slot} deletes what is not condemned")
        elif isinstance(record, DictionariesRecord) and any(name in self._dropped for _, name in record.adopted):
            raise CorruptData(f"log slot {slot} takes a dictionary into use that was given up")
        elif isinstance(record, DropRecord) and not set(record.dictionaries).isdisjoint(self.dictionaries.values()):
            raise CorruptData(f"log slot {slot} gives up a dictionary that is in use")
        elif isinstance(record, HoardRecord | CheckpointRecord):
            self.hoards.check(slot, record)

    def _take(self, slot: int, record: AnyRecord) -> Kept:
        """Heed a record; what is to be kept of it."""
        if isinstance(record, HoardRecord | CheckpointRecord):
            return self.hoards.take(slot, record)
        if isinstance(record, VersionRecord):
            self._name(Version(record.root, record.name, slot, slot, record))
        elif isinstance(record, TagRecord):
            tagged = self._by_slot[record.slot]
            self._name(Version(record.root, record.name, slot, tagged.made_in, tagged.record))
        elif isinstance(record, RemovalRecord):
            self._remove(slot, record.slot)
        elif isinstance(record, CondemnRecord):
            self._condemned.update(record.frames)
        elif isinstance(record, CollectRecord):
            self._collected.add(record.slot)
        elif isinstance(record, DropRecord):
            self._dropped.update(record.dictionaries)
        elif isinstance(record, DictionariesRecord):
            self.dictionaries = dict(record.adopted)
        elif isinstance(record, RevokeRecord):
            # What two records condemned is back when both were taken back.
            self._revoked.add(record.slot)
            self._bring_back(record.slot)
            standing = [made for at, made in enumerate(self.records, 1) if at not in self._revoked]
            self._condemned = {name for made in standing if isinstance(made, CondemnRecord) for name in made.frames}
            self._dropped = {name for made in standing if isinstance(made, DropRecord) for name in made.dictionaries}
        return record

    def append(self, make: Callable[[bytes, int], AnyRecord]) -> tuple[int, AnyRecord]:
        """Commit the record `make(previous digest, now in ns)` returns; the slot it won, and the record.

        Every slot before has been read when `make` is called; it is called again when another writer was faster, and
        may raise to give up. Raises CorruptData for a record nobody could read back: one of those would end the log.
        """
        with self._lock:
            for _ in range(_TRIES):
                slot = self.read() + 1
                record = make(self.head[1], time.time_ns())
                value = encode_record(record)
                decode_record(value, slot)
                self._check(slot, record)
                if record.previous != self.head[1]:
                    raise CorruptData("a record was made for another slot")
                won = self._store.create("log", slot_name(slot), value)
                self.follow()  # by name: it was listed just before, and a listing may come late
                if won:
                    return slot, record
        raise SlotTaken("other writers were faster a hundred times; try again")

    # -- what it adds up to

    def puts(self, hoard: str) -> list[int]:
        """The slots in which a hoard was changed."""
        return [slot for slot, kept in enumerate(self.records, 1) if isinstance(kept, Puts) and kept.hoard == hoard]

    def stand(self, hoard: str) -> tuple[int, View]:
        """The newest slot, and what a hoard held just then: it does not grow."""
        with self._lock:
            view = self.hoards.view(hoard)
            return len(self.digests), view._replace(changes=dict(view.changes))

    def live_slot(self, slot: int, name: bytes) -> bool:
        """Whether `slot` holds the record of that digest, a version, and some name of it is still there."""
        if not 0 < slot <= len(self.digests) or self.digests[slot - 1] != name or len(name) != DIGEST_BYTES:
            return False
        made = self._by_slot.get(slot)
        return made is not None and any(v.made_in == slot for v in self.versions(made.root))

    @property
    def condemned(self) -> Set[bytes]:
        """The frames condemned in any slot and not pardoned. Not to be changed."""
        return self._condemned

    def sentences(self) -> Iterator[tuple[int, CondemnRecord, bool]]:
        """The slots that condemn frames and were not revoked, with their records, and whether each was collected."""
        return self._standing(CondemnRecord)

    def drops(self) -> Iterator[tuple[int, DropRecord, bool]]:
        """As `sentences`, of the slots that give dictionaries up."""
        return self._standing(DropRecord)

    def _standing(self, kind: type[R]) -> Iterator[tuple[int, R, bool]]:
        for slot, record in enumerate(self.records, 1):
            if isinstance(record, kind) and slot not in self._revoked:
                yield slot, record, slot in self._collected

    @property
    def dropped(self) -> Set[bytes]:
        """The dictionaries that were given up in any slot and not pardoned: nothing may use them, or be stored under
        their names, any more. Not to be changed."""
        return self._dropped

    def condemned_since(self, slot: int) -> set[bytes]:
        """The frames condemned behind `slot` and not pardoned."""
        frames: set[bytes] = set()
        for record in self.records[slot:]:
            if isinstance(record, CondemnRecord):
                frames.update(record.frames)
        return frames & self._condemned

    def given_up_since(self, slot: int) -> bool:
        """Whether a frame, or a dictionary and with it all that uses it, was given up behind `slot` and not
        pardoned."""
        return bool(self.condemned_since(slot)) or any(
            isinstance(record, DropRecord) and not self._dropped.isdisjoint(record.dictionaries)
            for record in self.records[slot:]
        )

    def ever_condemned(self) -> set[bytes]:
        """The frames that were condemned at any time, pardoned since or not: whoever began to delete them may still be
        at it, so nothing may be stored under their names again."""
        return {name for record in self.records if isinstance(record, CondemnRecord) for name in record.frames}
