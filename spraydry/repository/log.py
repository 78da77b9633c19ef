"""The log of a repository: numbered records, each created only if absent, and the state they add up to."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    RootNotFound,
    SlotTaken,
    ValueNotFound,
    VersionExists,
    VersionNotFound,
)
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import (
    NO_RECORD,
    AnyRecord,
    CollectRecord,
    CondemnRecord,
    DictionariesRecord,
    DropRecord,
    RemovalRecord,
    RevokeRecord,
    TagRecord,
    VersionRecord,
    decode_record,
    encode_record,
)
from spraydry.repository import packs
from spraydry.repository.packs import Pack
from spraydry.stores.base import Store

RECORD_FORMAT = 1
_TRIES = 100

R = TypeVar("R", CondemnRecord, DropRecord)


@dataclass(frozen=True)
class Version:
    """A committed version under one of its names; `slot` is where this name was made, `made_in` the version itself."""

    root: str
    name: str
    slot: int
    made_in: int
    record: VersionRecord

    def __str__(self) -> str:
        return f"{self.root}@{self.name}"


def slot_name(slot: int) -> str:
    """The name of a slot in the `log` namespace."""
    return f"{slot:012d}"


class Log:
    """Reads the records of a store in order, once each, and appends. Blocks; threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self.records: list[AnyRecord] = []
        self.digests: list[bytes] = []
        self._roots: dict[str, dict[str, Version]] = {}  # everything ever named, in order
        self._by_slot: dict[int, Version] = {}
        self._removed: set[int] = set()
        self._condemned: set[bytes] = set()
        self._revoked: set[int] = set()
        self._collected: set[int] = set()
        self.dictionaries: dict[str, bytes] = {}
        self._dropped: set[bytes] = set()
        self._packed = 0  # the last of the slots that log packs are known to hold
        self._unsound: set[Pack] = set()  # packs to be written anew

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
        self._take(slot, record)
        self.records.append(record)
        self.digests.append(name)

    def _still_there(self) -> bool:
        """Whether the newest slot that was read is what the store holds: a batch may have been rolled back."""
        try:
            value = self._store.get("log", slot_name(len(self.digests)))
        except ValueNotFound:
            return False
        return value[-DIGEST_BYTES:] == self.digests[-1]

    def _forget(self) -> None:
        self.records, self.digests, self._packed = [], [], 0
        self._roots, self._by_slot, self.dictionaries = {}, {}, {}
        self._removed, self._condemned, self._revoked, self._collected = set(), set(), set(), set()
        self._dropped = set()

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

    def _take(self, slot: int, record: AnyRecord) -> None:
        self._check(slot, record)
        if isinstance(record, VersionRecord):
            self._name(Version(record.root, record.name, slot, slot, record))
        elif isinstance(record, TagRecord):
            tagged = self._by_slot[record.slot]
            self._name(Version(record.root, record.name, slot, tagged.made_in, tagged.record))
        elif isinstance(record, RemovalRecord):
            self._removed.add(record.slot)
        elif isinstance(record, CondemnRecord):
            self._condemned.update(record.frames)
        elif isinstance(record, CollectRecord):
            self._collected.add(record.slot)
        elif isinstance(record, DropRecord):
            self._dropped.update(record.dictionaries)
        elif isinstance(record, DictionariesRecord):
            self.dictionaries = dict(record.adopted)
        elif isinstance(record, RevokeRecord):
            # What two records removed or condemned is back when both were taken back.
            self._revoked.add(record.slot)
            standing = [made for at, made in enumerate(self.records, 1) if at not in self._revoked]
            self._removed = {made.slot for made in standing if isinstance(made, RemovalRecord)}
            self._condemned = {name for made in standing if isinstance(made, CondemnRecord) for name in made.frames}
            self._dropped = {name for made in standing if isinstance(made, DropRecord) for name in made.dictionaries}

    def _name(self, version: Version) -> None:
        self._roots.setdefault(version.root, {})[version.name] = self._by_slot[version.slot] = version

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
                self.read(slot)
                if won:
                    return slot, record
        raise SlotTaken("other writers were faster a hundred times; try again")

    # -- what it adds up to

    def roots(self) -> list[str]:
        """The names of the roots that have versions, sorted."""
        return sorted(root for root in tuple(self._roots) if self.versions(root))

    def versions(self, root: str) -> list[Version]:
        """The versions of a root under all their names, oldest first."""
        return [version for version in tuple(self._roots.get(root, {}).values()) if not self.is_removed(version)]

    def is_removed(self, version: Version) -> bool:
        """Whether this name of a version was removed."""
        return version.slot in self._removed

    def newest(self, root: str) -> Version | None:
        """The newest version of a root that is still there, under its first name still there."""
        versions = self.versions(root)
        made_in = max((version.made_in for version in versions), default=0)
        return next((version for version in versions if version.made_in == made_in), None)

    def find(self, root: str, name: str | None = None) -> Version:
        """A version by name (None and `latest`: the newest). Raises RootNotFound, VersionNotFound with near names."""
        versions = self.versions(root)
        if not versions:
            if root in self._roots:
                raise RootNotFound(
                    f"the root {root!r} has no versions any more: `spraydry log --removed {root}` shows what it had"
                )
            raise RootNotFound(f"there is no root {root!r}{_near(root, self.roots())}")
        if name in (None, "latest"):
            newest = self.newest(root)
            assert newest is not None
            return newest
        for version in versions:
            if version.name == name:
                return version
        gone = f" any more (`spraydry undelete {root}@{name}` may bring it back)" if name in self._roots[root] else ""
        raise VersionNotFound(
            f"{root!r} has no version {name!r}{gone}{_near(name or '', [version.name for version in versions])}"
        )

    def named_in(self, slot: int) -> Version:
        """The version or tag made in a slot, removed or not. Raises VersionNotFound."""
        if slot not in self._by_slot:
            raise VersionNotFound(f"log slot {slot} names no version")
        return self._by_slot[slot]

    def used(self, root: str, name: str) -> Version | None:
        """What a name was given to, removed since or not; None where it never was."""
        return self._roots.get(root, {}).get(name)

    def check_unused(self, root: str, name: str) -> None:
        """Raises VersionExists when the name was ever used in this root."""
        if version := self.used(root, name):
            gone = " (it was removed, but names are never used twice)" if self.is_removed(version) else ""
            raise VersionExists(f"{root}@{name} exists{gone}: choose another name")

    def next_name(self, root: str) -> str:
        """The name a new version gets by itself: v1, v2, ..., never one that was used."""
        used = self._roots.get(root, {})
        number = 1 + max((int(name[1:]) for name in used if name[0] == "v" and name[1:].isdecimal()), default=0)
        return f"v{number}"

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

    def removed(self) -> Iterator[tuple[Version, int]]:
        """The versions of which no name is left, each under its first name, and the slot that took the last one."""
        gone: dict[int, int] = {}
        for slot, record in enumerate(self.records, 1):
            if isinstance(record, RemovalRecord) and slot not in self._revoked:
                gone[record.slot] = max(slot, gone.get(record.slot, 0))
        names: dict[int, list[Version]] = {}
        for version in self._by_slot.values():
            names.setdefault(version.made_in, []).append(version)
        for versions in names.values():
            if all(map(self.is_removed, versions)):
                yield versions[0], max(gone[version.slot] for version in versions)

    def living(self) -> dict[int, VersionRecord]:
        """The records of all versions that have a name, by the slots they were made in."""
        return {
            version.made_in: version.record for version in tuple(self._by_slot.values()) if not self.is_removed(version)
        }

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


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 3, 0.5) or names[:3]
    return (
        f"; there is {', '.join(close)}" if close else "; there is nothing yet: `spraydry ingest DIR` makes the first"
    )
