"""Log records that clients send: appended only where they follow, are allowed, and name nothing that is not there."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from spraydry.actions.hoard.checkpoints import tree_of
from spraydry.errors import (
    CollectedMeanwhile,
    CorruptData,
    FormatTooNew,
    SlotTaken,
    SprayDryError,
    UploadRefused,
    UsageError,
    VersionNotFound,
)
from spraydry.format.chunker import parse_spec
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
)
from spraydry.repository.hoards import Hoards, View
from spraydry.repository.keys import Keys
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.slots import slot_name
from spraydry.repository.versions import Version
from spraydry.web.grant import Grant, Right
from spraydry.web.keyvalue.whole import Whole

_CLOCKS_NS = 3600 * 10**9  # so much the clocks of clients may be ahead


class Records:
    """Appends to the log of a repository. Blocks; threads may share it: records are checked one after another."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._turn = threading.Lock()
        self._whole = Whole(repository)

    def append(self, name: str, value: bytes, grant: Grant) -> bool:
        """Commit a record in the slot of that name; False where the slot is taken.

        Raises UploadRefused, SlotTaken for a slot that is not the next, VersionExists, CollectedMeanwhile, Refused.
        """
        if len(name) != 12 or not name.isdecimal() or not int(name) or slot_name(int(name)) != name:
            raise UploadRefused(f"{name[:40]!r} is no slot of the log")
        slot, log = int(name), self._repository.log
        try:
            record = decode_record(value, slot)[0]
        except FormatTooNew:
            raise UploadRefused("the record is of a newer spraydry than this server: install a current one") from None
        except CorruptData as error:
            raise UploadRefused(f"the record was not taken: {error}") from None
        with self._turn:
            self._repository.refresh()
            head = log.head
            if slot <= head[0]:
                return False
            if slot > head[0] + 1 or record.previous != head[1]:
                raise SlotTaken(f"the record does not follow slot {head[0]}: read the log, and try again")
            self._check(record, grant)
            return self._append(slot, record)

    def _append(self, slot: int, record: AnyRecord) -> bool:
        """Win the slot for which it was checked; False where another did: also whoever gave something up since."""
        log = self._repository.log

        def make(previous: bytes, now_ns: int) -> AnyRecord:
            if log.head[0] + 1 != slot:
                raise _Taken
            return record

        try:
            with self._repository.batch():
                log.append(make)
                self._repository.remember_head()
        except _Taken:
            return False
        except CorruptData as error:
            raise UploadRefused(f"the record was not taken: {error}") from None
        return True

    def tidy(self) -> None:
        """What follows a commit: index runs merged, the store tidied up. What fails is left to the next time."""
        with suppress(SprayDryError):
            merge_runs(self._repository)
            self._repository.log.pack(1)
            self._repository.store.flush()

    # -- what a record needs

    def _check(self, record: AnyRecord, grant: Grant) -> None:
        log = self._repository.log
        # Nothing is old enough for a collection while the clock is behind the newest record: one of the year 3000 would
        # end all of them.
        if not 0 <= record.made_ns <= time.time_ns() + _CLOCKS_NS:
            raise UploadRefused("the record was not taken: it was made later than now; look at the clock")
        match record:
            case VersionRecord():
                grant.require("add", root=record.root)
                log.check_unused(record.root, record.name)
                self._check_version(record)
            case TagRecord():
                grant.require("add", root=record.root)
                log.check_unused(record.root, record.name)
                tagged = self._version(record.slot)
                if tagged.root != record.root or tagged.made_in not in log.living():
                    raise UploadRefused(f"the record was not taken: slot {record.slot} has no version of that root")
            case RemovalRecord():
                grant.require("delete", root=self._version(record.slot).root)
            case RevokeRecord():
                self._check_revoke(record, grant)
            case CondemnRecord() | CollectRecord():
                grant.require("delete", namespace="frames")
            case DropRecord():
                grant.require("delete", namespace="frames")
                grant.require("delete", namespace="dictionaries")
            case DictionariesRecord():
                self._check_dictionaries(record, grant)
            case HoardRecord():
                self._check_changes(record, grant)
            case CheckpointRecord():
                grant.require("add", hoard=record.hoard)
                self._check_checkpoint(record)

    def _version(self, slot: int) -> Version:
        try:
            return self._repository.log.named_in(slot)
        except VersionNotFound as error:
            raise UploadRefused(f"the record was not taken: {error}") from None

    def _check_version(self, record: VersionRecord) -> None:
        try:
            parse_spec(record.spec)
        except UsageError as error:
            raise UploadRefused(f"the record was not taken: {error}") from None
        self._whole.check(f"{record.root}@{record.name}", [(record.entry, record.links)])

    def _check_revoke(self, record: RevokeRecord, grant: Grant) -> None:
        """Bringing back a version takes what removing it takes, and that it is whole."""
        made = self._repository.log.records[record.slot - 1]
        if isinstance(made, RemovalRecord):
            version = self._version(made.slot)
            grant.require("delete", root=version.root)
            self._check_version(version.record)
        else:
            grant.require("delete", namespace="frames")

    def _check_dictionaries(self, record: DictionariesRecord, grant: Grant) -> None:
        grant.require("add", namespace="dictionaries")
        before, after = self._repository.log.dictionaries, dict(record.adopted)
        if any(after.get(one) != name for one, name in before.items()):
            grant.require("overwrite", namespace="dictionaries")
        for name in set(after.values()) - set(before.values()):
            if name in self._repository.log.dropped:
                raise CollectedMeanwhile("a dictionary was given up by a collection meanwhile; run it again")
            if self._repository.store.info("dictionaries", name.hex()) is None:
                raise UploadRefused(f"the record was not taken: dictionary {name.hex()} is not here")

    def _check_changes(self, record: HoardRecord, grant: Grant) -> None:
        """Each key takes a right by what it names now and then."""
        view = self._repository.log.hoards.view(record.hoard)
        if record.cleared:
            grant.require("delete", hoard=record.hoard)
            view = View(None, 0, {})
        keys = Keys(view, self._repository.tree)
        wanted: set[Right] = {"add"}
        for key, entry in record.changes:
            wanted.add("delete" if entry is None else "add" if keys.find(key) is None else "overwrite")
        for right in sorted(wanted):
            grant.require(right, hoard=record.hoard)
        self._whole.check(f"hoard {record.hoard}", [(entry, None) for _, entry in record.changes if entry is not None])

    def _check_checkpoint(self, record: CheckpointRecord) -> None:
        """Raises unless it says of the hoard what the records before it add up to: it takes their place."""
        log, hoard = self._repository.log, record.hoard
        view = log.hoards.view(hoard)
        if record.upto < view.upto or hoard not in log.hoards.names():
            raise UploadRefused("the record was not taken: it says what a hoard held when it did not")
        if any(change.slot > record.upto for change in view.changes.values()):
            view = self._earlier(view, hoard, record.upto)
        if tree_of(view, self._repository.page, lambda name, plain: None) != record.entry:
            raise UploadRefused("the record was not taken: it says what a hoard held when it did not")
        self._whole.check(f"the checkpoint of hoard {hoard}", [(record.entry, None)])

    def _earlier(self, view: View, hoard: str, upto: int) -> View:
        """What a hoard held in a slot behind that of its checkpoint."""
        before = Hoards()
        slots = [slot for slot in self._repository.log.puts(hoard) if view.upto < slot <= upto]
        for slot, made in self._repository.log.reread(slots):
            assert isinstance(made, HoardRecord)
            before.take(slot, made)
        return View(view.base, view.upto, before.view(hoard).changes)


class _Taken(Exception):
    pass
