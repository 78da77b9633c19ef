"""The log of a repository: numbered records, each created only if absent, and the state they add up to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager
from itertools import islice
from typing import TypeVar

from spraydry.errors import CorruptData, FormatTooNew, SlotTaken, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import (
    NO_RECORD,
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
)
from spraydry.repository import packs
from spraydry.repository.hoards import Hoards, Puts, View
from spraydry.repository.packs import Pack
from spraydry.repository.versions import Version, Versions
from spraydry.stores.base import Store

RECORD_FORMAT = 1
_TRIES = 100

R = TypeVar("R", CondemnRecord, DropRecord)
Kept = AnyRecord | Puts


def slot_name(slot: int) -> str:
    """The name of a slot in the `log` namespace."""
    return f"{slot:012d}"


class Log(Versions):
    """Reads the records of a store in order, once each, and appends. Blocks; threads may share it.

    `records` has those of all slots, but that of hoards' changes only what stands for them is kept; `hoards` is what
    these add up to, `dictionaries` which class uses which.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._unsound: set[Pack] = set()  # packs to be written anew
        self._forget()

    def _forget(self) -> None:
        super().__init__()
        self.records: list[Kept] = []
        self.digests: list[bytes] = []
        self.latest_ns = 0  # the latest time any record gives
        self.hoards = Hoards()
        self._condemned: set[bytes] = set()
        self._revoked: set[int] = set()
        self._collected: set[int] = set()
        self.dictionaries: dict[str, bytes] = {}
        self._dropped: set[bytes] = set()
        self._packed = 0  # the last of the slots that log packs are known to hold

    @property
    def head(self) -> tuple[int, bytes]:
        """The newest slot (0: none) and the digest of its record."""
        return (len(self.digests), self.digests[-1]) if self.digests else (0, NO_RECORD)

    def read(self, known: int = 0) -> int:
        """Take in what was appended since; the newest slot. Raises CorruptData where the chain is broken.

        Slot `known` was there before: listings may lack what is newest, so it and what is below is asked for by name.
        """
        with self._lock:
            if self.digests and not self._still_there():
                self._forget()
            # Asked for by name from here on: a listing may come late, and lack slots that are there.
            listed = self._listed()
            newest = max(known, int(listed) if listed.isdecimal() else 0)
            self._take_slots(newest)
            if slot_name(len(self.records)) < listed:
                missing = f"log slot {len(self.records) + 1} is missing, though {listed} is there"
                raise CorruptData(f"{missing}: only a copy of this store has it (see `spraydry repair --from`)")
            return len(self.records)

    def follow(self) -> int:
        """As `read`, quicker where nothing or little came since: what follows is asked for by name, nothing is listed.
        A slot that is lost is taken for the end of the log: before something is appended it must be read."""
        with self._lock:
            many = 1
            while True:
                slot = len(self.digests)
                names = map(slot_name, range(max(slot, 1), slot + many + 1))
                values = [value for _, value in self._store.get_many("log", names)]
                if slot:
                    newest, *values = values
                    if newest is None or newest[-DIGEST_BYTES:] != self.digests[-1]:
                        return self.read()
                for value in values:
                    if value is None:
                        return len(self.digests)
                    self._append(value)
                if many >= packs.SLOTS:
                    return self.read()
                many *= 4

    def _listed(self) -> str:
        """The newest slot that is listed behind what was read, after packs were taken in where there are many."""
        for with_packs in (True, False):
            before = len(self.records)
            listing = self._store.list("log", slot_name(before))
            first = [stored.name for stored in islice(listing, packs.SLOTS)]
            # A listing for web servers leaves out what is packed.
            many = len(first) == packs.SLOTS or (first and first[-1] != slot_name(before + len(first)))
            if not (with_packs and many and self._take_packs()):
                break
        listed = first[-1] if first else ""
        for stored in listing:
            listed = stored.name
        return listed

    def _take_packs(self) -> bool:
        """Take in what log packs hold of the slots that follow; whether to list the log anew.

        What they hold counts once the log itself has the slot in which they end: its digest vouches for all before.
        """
        before = len(self.records)
        found = packs.listed(self._store, before)
        try:
            for pack, values in packs.read(self._store, found):
                self._take_pack(pack, values)
                if len(self.records) != pack.last:
                    break
            sound = len(self.records) == before or self._still_there()
        except (CorruptData, FormatTooNew):
            sound = False
        if not sound:
            self._unsound.update(found)
            self._forget()
            return True
        return len(self.records) > before

    def _take_pack(self, pack: Pack, values: list[bytes]) -> None:
        """Take in the slots of a pack and what is between it and the one before; by name what it has not. Raises
        CorruptData, FormatTooNew: one of them before was false."""
        self._take_slots(pack.first - 1)
        try:
            for value in values:
                self._append(value)
        except (CorruptData, FormatTooNew):
            pass
        if len(self.records) < pack.last:
            self._unsound.add(pack)
            self._take_slots(pack.last)
        elif not self._unsound:
            self._packed = pack.last

    def _take_slots(self, newest: int) -> None:
        """Take in the slots that follow, up to `newest` or the first that is not there."""
        names = map(slot_name, range(len(self.records) + 1, newest + 1))
        for _, value in self._store.get_many("log", names):
            if value is None:
                break
            self._append(value)

    def pack(self, most: int) -> int:
        """Write up to `most` log packs that are due; how many. Raises StoreError."""
        for count in range(most):
            for pack in packs.listed(self._store, self._packed) if self._due() else []:
                if pack in self._unsound:
                    break
                self._packed = pack.last
            if not self._due():
                return count
            with self._lock:
                names = list(map(slot_name, range(self._packed + 1, self._packed + packs.SLOTS + 1)))
                digests = self.digests[self._packed : self._packed + packs.SLOTS]
            written = packs.write(self._store, names, digests)
            if written is None:
                return count
            self._packed = written.last
            self._unsound.discard(written)
        return most

    def _due(self) -> bool:
        return len(self.digests) - self._packed >= packs.SLOTS

    def _append(self, value: bytes) -> None:
        slot = len(self.records) + 1
        record, name = decode_record(value, slot)
        if record.previous != self.head[1]:
            raise CorruptData(f"log slot {slot} does not follow slot {slot - 1}")
        self._check(slot, record)
        self.records.append(self._take(slot, record))
        self.digests.append(name)
        self.latest_ns = max(self.latest_ns, record.made_ns)

    def _still_there(self) -> bool:
        """Whether the newest slot that was read is what the store holds: a batch may have been rolled back."""
        try:
            value = self._store.get("log", slot_name(len(self.digests)))
        except ValueNotFound:
            return False
        return value[-DIGEST_BYTES:] == self.digests[-1]

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

    def held(self) -> AbstractContextManager[object]:
        """Inside, other threads wait that want to read or append."""
        return self._lock

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

    def reread(self, slots: Iterable[int]) -> Iterator[tuple[int, AnyRecord]]:
        """The records in some slots that were read before, from the store. Raises CorruptData, ValueNotFound."""
        wanted = list(slots)
        values = self._store.get_many("log", map(slot_name, wanted))
        for slot, (name, value) in zip(wanted, values, strict=True):
            if value is None:
                raise ValueNotFound(f"log/{name} is not there any more")
            record, digest = decode_record(value, slot)
            if digest != self.digests[slot - 1]:
                raise CorruptData(f"log slot {slot} is another one than it was")
            yield slot, record

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
