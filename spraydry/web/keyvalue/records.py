"""Log records that clients send: appended only where they follow, are allowed, and name nothing that is not there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice

from spraydry.actions.closure import chunks_of
from spraydry.errors import (
    CollectedMeanwhile,
    CorruptData,
    FormatTooNew,
    NotFound,
    SlotTaken,
    SprayDryError,
    UploadRefused,
    ValueNotFound,
    VersionNotFound,
)
from spraydry.format.version import (
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
)
from spraydry.repository.log import slot_name
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.web.grant import Grant

_TRIES = 20
_TOGETHER = 1000


class Records:
    """Appends to the log of a repository. Blocks; threads may share it: records are checked one after another."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._turn = threading.Lock()
        # Trees of which each chunk was found in a frame that counts, as of a slot: what is condemned later may be one.
        self._whole: Marks | None = None
        self._whole_at = 0

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
            for _ in range(_TRIES):
                self._repository.refresh()
                head = log.head
                if slot <= head[0]:
                    return False
                if slot > head[0] + 1 or record.previous != head[1]:
                    raise SlotTaken(f"the record does not follow slot {head[0]}: read the log, and try again")
                self._check(record, grant)
                try:
                    return self._append(slot, record, head[0])
                except _GivenUp:
                    continue
        raise CollectedMeanwhile(f"what this needs was collected {_TRIES} times meanwhile; run it again")

    def _append(self, slot: int, record: AnyRecord, checked: int) -> bool:
        log = self._repository.log

        def make(previous: bytes, now_ns: int) -> AnyRecord:
            if log.given_up_since(checked):
                raise _GivenUp
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
        try:
            merge_runs(self._repository)
            self._repository.store.flush()
        except SprayDryError:
            pass

    # -- what a record needs

    def _check(self, record: AnyRecord, grant: Grant) -> None:
        log = self._repository.log
        match record:
            case VersionRecord():
                grant.require("add", root=record.root)
                log.check_unused(record.root, record.name)
                self._check_whole(record)
            case TagRecord():
                grant.require("add", root=record.root)
                log.check_unused(record.root, record.name)
                tagged = self._version(record.slot)
                if tagged.root != record.root or tagged.made_in not in log.living():
                    raise UploadRefused(f"the record was not taken: slot {record.slot} has no version of that root")
            case RemovalRecord():
                grant.require("delete", root=self._version(record.slot).root)
            case RevokeRecord():
                made = log.records[record.slot - 1] if record.slot <= len(log.records) else None
                if isinstance(made, RemovalRecord):
                    version = self._version(made.slot)
                    grant.require("delete", root=version.root)
                    self._check_whole(version.record)
                else:
                    grant.require("delete", namespace="frames")
            case CondemnRecord() | CollectRecord():
                grant.require("delete", namespace="frames")
            case DropRecord():
                grant.require("delete", namespace="frames")
                grant.require("delete", namespace="dictionaries")
            case DictionariesRecord():
                self._check_dictionaries(record, grant)
            case _:
                raise UploadRefused("this server takes no records of that kind")

    def _version(self, slot: int):  # type: ignore[no-untyped-def]
        try:
            return self._repository.log.named_in(slot)
        except VersionNotFound as error:
            raise UploadRefused(f"the record was not taken: {error}") from None

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

    def _check_whole(self, record: VersionRecord) -> None:
        """Raises unless every chunk a version needs lies in a frame that was decoded here and is not given up."""
        repository, slot = self._repository, self._repository.log.head[0]
        if self._whole is None or repository.log.given_up_since(self._whole_at):
            self._forget()
            self._whole = Marks(repository.catalog)
        self._whole_at = slot
        try:
            needed = chunks_of(repository, record.entry, record.links, self._whole.unwalked)
            while names := list(islice(needed, _TOGETHER)):
                if missing := self._missing(names):
                    raise UploadRefused(
                        f"the record was not taken: {record.root}@{record.name} needs chunk {min(missing).hex()}, which"
                        " is in no frame here"
                    )
        except (NotFound, CorruptData, ValueNotFound) as error:
            self._forget()
            raise UploadRefused(
                f"the record was not taken: {record.root}@{record.name} is not whole: {error}"
            ) from None
        except BaseException:
            self._forget()
            raise

    def _missing(self, names: Sequence[bytes]) -> set[bytes]:
        wanted = set(names)
        missing = wanted - self._repository.catalog.known(sorted(wanted))
        if missing:
            missing -= self._repository.vouch(missing)
        if missing and self._repository.opened.origin is not None:
            # A lazy clone counts on what its origin has.
            missing = {name for name in missing if not self._repository.catalog.locate(name)}
        return missing

    def _forget(self) -> None:
        if self._whole is not None:
            self._whole.close()
            self._whole = None


class _Taken(Exception):
    pass


class _GivenUp(Exception):
    pass
