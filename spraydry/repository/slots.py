"""The slots of a log: its records read in order, once each, from packs where there are such, and written into these."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice

from spraydry.errors import CorruptData, FormatTooNew, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import NO_RECORD, AnyRecord, decode_record
from spraydry.repository import packs
from spraydry.repository.hoards import Puts
from spraydry.repository.packs import Pack
from spraydry.stores.base import Store

# Where a listing reads the names of all slots (`Traits.lists_all`: 0.3 s of 300,000), it is made once in so many times.
_READS_A_LISTING = 256
# Which slots behind the end are then asked for: one that is there shows that some before it are lost.
_BEHIND = (*range(2, 34), *(1 << power for power in range(6, 21)))

Kept = AnyRecord | Puts


def slot_name(slot: int) -> str:
    """The name of a slot in the `log` namespace."""
    return f"{slot:012d}"


class Slots(ABC):
    """Reads the slots of a store. Blocks; threads may share it.

    `records` has the records of all slots that were read, `digests` their digests.
    """

    records: list[Kept]
    digests: list[bytes]

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._unsound: set[Pack] = set()  # packs to be written anew
        self._forget()

    @abstractmethod
    def _forget(self) -> None:
        """Begin anew, with nothing read."""
        self.records = []
        self.digests = []
        self._unlisted = _READS_A_LISTING  # how often it was read since the log was listed
        self._packed = 0  # the last of the slots that log packs are known to hold

    @abstractmethod
    def _append(self, value: bytes) -> None:
        """Take in the value of the next slot. Raises CorruptData, FormatTooNew."""

    @abstractmethod
    def _append_packed(self, values: Iterable[bytes]) -> None:
        """As `_append`, one after the other; what of them is not needed yet may wait for `_settle`."""

    @abstractmethod
    def _settle(self) -> None:
        """Heed all that was taken in. Raises CorruptData, FormatTooNew: then it must be read anew, one by one."""

    @property
    def head(self) -> tuple[int, bytes]:
        """The newest slot (0: none) and the digest of its record."""
        return (len(self.digests), self.digests[-1]) if self.digests else (0, NO_RECORD)

    def read(self, known: int = 0) -> int:
        """Take in what was appended since; the newest slot. Raises CorruptData where the chain is broken.

        Slot `known` was there before: listings may lack what is newest, so it and what is below is asked for by name.
        """
        with self._lock:
            self._make_up()
            if not self._is_read_by_name(known):
                self._read_listed(known)
            return len(self.records)

    def _is_read_by_name(self, known: int) -> bool:
        """Read without a listing, where that would be one of all slots, most times; whether that will do."""
        self._unlisted += 1
        if not self._store.traits.lists_all or self._unlisted >= _READS_A_LISTING or not self._take_next():
            return False
        slot = len(self.digests)
        behind = self._store.get_many("log", (slot_name(slot + step) for step in _BEHIND))
        return slot >= known and all(value is None for _, value in behind)

    def _read_listed(self, known: int = 0) -> None:
        if self.digests and not self._still_there():
            self._forget()
        # Asked for by name from here on: a listing may come late, and lack slots that are there.
        listed = self._listed()
        newest = max(known, int(listed) if listed.isdecimal() else 0)
        self._take_slots(newest)
        if slot_name(len(self.records)) < listed:
            missing = f"log slot {len(self.records) + 1} is missing, though {listed} is there"
            raise CorruptData(f"{missing}: only a copy of this store has it (see `spraydry repair --from`)")
        self._unlisted = 0

    def follow(self) -> int:
        """As `read`, quicker where nothing or little came since: what follows is asked for by name, nothing is listed.
        A slot that is lost is taken for the end of the log: before something is appended it must be read."""
        with self._lock:
            self._make_up()
            if not self._take_next():
                self._read_listed()
            return len(self.digests)

    def _make_up(self) -> None:
        """For a reading that was interrupted (Ctrl-C)."""
        try:
            self._settle()
        except (CorruptData, FormatTooNew):
            self._forget()

    def _take_next(self) -> bool:
        """Take in what follows, by name; False where that is much, or the newest slot is another one than it was."""
        many = 1
        while many < packs.SLOTS:
            slot = len(self.digests)
            names = map(slot_name, range(max(slot, 1), slot + many + 1))
            values = [value for _, value in self._store.get_many("log", names)]
            if slot:
                newest, *values = values
                if newest is None or newest[-DIGEST_BYTES:] != self.digests[-1]:
                    return False
            for value in values:
                if value is None:
                    return True
                self._append(value)
            many *= 4
        return False

    def _listed(self) -> str:
        """The newest slot that is listed behind what was read, after packs were taken in where there are many."""
        first_packs = self._store.traits.lists_all and not self.records  # sooner than a listing of all slots
        if first_packs:
            self._take_packs()
        for with_packs in (not first_packs, False):
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
            try:
                for pack, values in packs.read(self._store, found):
                    self._take_pack(pack, values)
                    if len(self.records) != pack.last:
                        break
            finally:  # also where the store fails in the middle: what was read counts
                self._settle()
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
            self._append_packed(values)
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

    def _still_there(self) -> bool:
        """Whether the newest slot that was read is what the store holds: a batch may have been rolled back."""
        try:
            value = self._store.get("log", slot_name(len(self.digests)))
        except ValueNotFound:
            return False
        return value[-DIGEST_BYTES:] == self.digests[-1]

    def held(self) -> AbstractContextManager[object]:
        """Inside, other threads wait that want to read or append."""
        return self._lock

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
