"""The catalog of a repository, kept in step with what its store holds, and made anew from that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager

from spraydry.errors import (
    CorruptData,
    SprayDryError,
    StoreReadOnly,
    StoreUnavailable,
)
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, decode_run
from spraydry.format.version import NO_RECORD, CollectRecord, CondemnRecord, RevokeRecord
from spraydry.parallel import default_threads, ordered_map
from spraydry.repository import losses
from spraydry.repository.catalog import Catalog
from spraydry.repository.frames import Frames
from spraydry.repository.local import cache_folder
from spraydry.repository.log import Log
from spraydry.repository.opening import Opened
from spraydry.stores.base import Stored

_TOGETHER_BYTES = 2 << 20


class Indexed(Frames):
    """Frames with the catalog that says which of them holds which chunk, and the log. Blocks; threads may share it."""

    def __init__(self, opened: Opened, catalog: Catalog, url: str) -> None:
        super().__init__(opened.store)
        self.opened = opened
        self.config = opened.config
        self.catalog = catalog
        self.url = url
        self.log = Log(self.store)
        self.read_only = self.store.read_only
        self.behind: str | None = None  # why this is not the newest there is
        self.damaged_runs: dict[str, str] = {}  # name -> what is wrong; what only they name cannot be found

    def refresh(self) -> None:
        """Take in what others committed since: log slots, index runs. Raises CorruptData for a log cut short."""
        configuration = self.opened.configuration
        lost = losses.pending(configuration, self.catalog)
        seen = None if lost else self.catalog.state("head")
        seen_slot = 0 if seen is None else int.from_bytes(seen[:8], "big")
        slot = self.log.read()
        if seen_slot > slot and not self.store.silent:
            slot = self.log.read(seen_slot)
        self.behind = None
        if seen is not None:
            if seen_slot > slot and configuration is not None and configuration.owner in self.store.silent:
                self.behind = f"{configuration.owner}, which owns the log, does not answer, and has newer versions"
                return
            if seen_slot > slot or (seen_slot and self.log.digests[seen_slot - 1] != seen[8:]):
                raise CorruptData(f"{self.url}: the log was cut short or replaced (slot {seen_slot} was seen before)")
        if self.catalog.database.read_only:
            return
        fresh = self.log.records[seen_slot:]
        self._take_runs()
        if lost:
            self.catalog.remember("head", bytes(8) + NO_RECORD)  # of the log, too, something may be lost
        if fresh:
            self.remember_head()
        if lost and not self.read_only and configuration is not None:
            losses.settle(configuration, self.catalog, self.store, cache_folder(self.config.repository))

    def heed(self) -> int:
        """Take in the log's newest records, as `refresh` does, but no index runs; the newest slot, up to which nothing
        that was condemned counts as known from here on. Cheap where nothing or little came: for who only has to know
        what was condemned and what keys name."""
        slot = self.log.follow()
        seen = self.catalog.state("head")
        noted = 0 if seen is None else int.from_bytes(seen[:8], "big")
        if noted > slot:
            self.refresh()  # which says what is wrong
            return noted
        if noted < slot and not self.read_only:
            with self.batch():
                self.remember_head()
        return slot

    def _take_runs(self) -> int:
        """Take in the index runs that are new; how many that were.

        Many at a time: each row is then moved down fewer levels of the catalog, and far stores are asked less often.
        """
        known, took = self.catalog.runs() | self.damaged_runs.keys(), 0
        for names in _together(stored for stored in self.store.list("index") if stored.name not in known):
            taken: list[str] = []
            infos: list[FrameInfo] = []
            rows: list[tuple[bytes, int, int, int]] = []
            for name, value in self.store.get_many("index", names):
                if value is None:
                    continue  # merged into another meanwhile
                try:
                    run_infos, run_rows = _decode(name, value)
                except CorruptData as error:  # the rest can be read, and rebuild_catalog does without it
                    self.damaged_runs[name] = str(error)
                    continue
                first = len(infos)
                infos += run_infos
                rows += [(chunk, first + place, offset, length) for chunk, place, offset, length in run_rows]
                taken.append(name)
            with self.catalog.taking():
                self.catalog.add_run(None, infos, rows, verified=False)
                self._heed({info.name for info in infos} & self.log.condemned)
                for name in taken:
                    self.catalog.replace_runs([], name)
            took += len(taken)
        return took

    def take_decoded(self, name: str, infos: Sequence[FrameInfo], rows: Sequence[Row]) -> None:
        """Take in a run that was stored just now, and of which each row is what this process found by decoding."""
        with self.catalog.database.transaction():
            self.catalog.add_run(name, infos, rows, verified=True)
            self._heed({info.name for info in infos} & self.log.condemned)

    def vouch(self, names: Iterable[bytes]) -> set[bytes]:
        """Those of `names` that lie in frames which others have indexed, after these were read, decoded and verified.

        Only then do they count for deduplication: an index that lies must not make a version lose what it needs.
        """

        def read(frame: bytes) -> tuple[FrameInfo, list[Row]] | None:
            try:
                return self.decode_frame(frame)[:2]
            except SprayDryError:
                return None  # whoever reads it meets the error; here, what it holds is stored again

        wanted, found = set(names), set()
        claimed = sorted(self.catalog.claimed(list(wanted)))
        if self.opened.origin is not None:  # not worth fetching: what is to be stored is at hand
            claimed = [frame for frame in claimed if self.store.info("frames", frame.hex()) is not None]
        for decoded in ordered_map(read, claimed, max(default_threads(), self.store.traits.concurrency)):
            if decoded is not None:
                info, rows = decoded
                self.catalog.add_run(None, [info], rows, verified=True)
                if not self.catalog.trusts(info.name):
                    continue  # it was condemned meanwhile, or the dictionary it uses
                found |= wanted & {row.digest for row in rows}
        return found

    def reindex(self) -> int:
        """Make the catalog anew from the store's index runs, reading no frame; the number of frames they name.

        What they say counts for deduplication only once it was verified: see `vouch`. Raises StoreUnavailable where a
        store does not answer: what only it holds would be forgotten.
        """
        self._check_complete()
        with self.batch():
            self.catalog.clear()
            self.damaged_runs.clear()
            self._take_runs()
            self.remember_head()
        return self.catalog.frames_count()

    def rebuild_catalog(self) -> int:
        """Make the catalog anew from the store's frames; the number of frames found.

        Reads every frame once, decoding it: the time is that of `verify`. Of frames that are damaged or gone it knows
        what the index runs say, so that an error can name them; nothing is deduplicated against them.
        """
        self._check_complete()
        with self.store.uncached(), self.batch():
            self.catalog.clear()
            self.damaged_runs.clear()
            count = 0
            for stored in self.store.list("frames"):
                value = self.store.get("frames", stored.name)
                name = digest(value)
                if name.hex() != stored.name:
                    continue
                try:
                    info, rows, _ = self.decoded(name, value)
                except SprayDryError:
                    continue
                self.catalog.add_run(None, [info], rows, verified=True)
                count += 1
            self._take_runs()
            for stored in self.store.list("index"):
                self.catalog.replace_runs([], stored.name)
            self.remember_head()
        return count

    def _check_complete(self) -> None:
        if self.store.silent:
            raise StoreUnavailable(
                f"{', '.join(self.store.silent)} does not answer: the catalog would forget what is there"
            )

    def remember_head(self) -> None:
        """Let the catalog heed what was condemned, pardoned and collected up to the newest slot that was read, and note
        that slot, so that a log cut short is noticed. Not needed again for what it noted before."""
        slot, name = self.log.head
        with self.catalog.database.transaction():
            seen = self.catalog.state("head")
            before = 0 if seen is None else int.from_bytes(seen[:8], "big")
            if before >= slot:
                return  # another process shares this catalog, and has read more
            fresh = self.log.records[before:]
            self.catalog.drop(self.log.dropped, self.log.condemned)
            pardoned = {
                frame
                for record in fresh
                if isinstance(record, RevokeRecord)
                and isinstance(made := self.log.records[record.slot - 1], CondemnRecord)
                for frame in made.frames
            }
            if pardoned:
                self.catalog.pardon(pardoned - self.log.condemned)
                self.catalog.forget_runs()  # what they say of those was passed over while they were condemned
            collected = [record.slot for record in fresh if isinstance(record, CollectRecord)]
            since = min([before, *(slot - 1 for slot in collected)])
            self._heed(self.log.condemned_since(since))
            self.catalog.remember("head", slot.to_bytes(8, "big") + name)

    def condemned(self) -> set[bytes]:
        """The frames that count for nothing any more: those that were condemned themselves, and those of which the
        index says that they use a dictionary which was given up."""
        return self.log.condemned | self.catalog.users(self.log.dropped).keys()

    def _heed(self, condemned: Set[bytes]) -> None:
        """Nothing may count on these frames any more; those that were collected cannot even be read."""
        if condemned:
            collected = {f for _, record, gone in self.log.sentences() if gone for f in record.frames} & condemned
            self.catalog.condemn(condemned - collected)
            self.catalog.bury(collected)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written inside becomes durable together at its end, where store and catalog are one file."""
        if self.opened.bundle is not None:
            raise StoreReadOnly(f"{self.url} is a bundle, which is only read: `spraydry pull {self.url}` takes it in")
        if self.read_only:
            raise StoreReadOnly(
                f"{self.url} cannot be written (permissions, a read-only medium, a server that takes nothing)"
            )
        with ExitStack() as stack:
            # The catalog's ends last: it must never know of a frame that the store did not keep.
            stack.enter_context(self.catalog.database.transaction())
            stack.enter_context(self.store.batch())
            yield

    @contextmanager
    def committing(self) -> Iterator[None]:
        """A batch in which a record is appended. Until it has ended other threads do not read the log: what is in it
        may yet be rolled back, and cannot be seen by others. Belongs into no batch."""
        with self.log.held(), self.batch():
            yield


def _decode(name: str, value: bytes) -> tuple[Sequence[FrameInfo], Sequence[Row]]:
    if digest(value).hex() != name:
        raise CorruptData(f"index run {name} is damaged")
    infos, rows = decode_run(value)
    return infos, list(rows)


def _together(runs: Iterable[Stored]) -> Iterator[list[str]]:
    """Their names in groups of at most _TOGETHER_BYTES: so much is fetched and taken in at a time, at about five times
    that in memory."""
    names: list[str] = []
    held = 0
    for stored in list(runs):  # a listing that is left open while others write may tie them up
        if names and held + stored.size > _TOGETHER_BYTES:
            yield names
            names, held = [], 0
        names.append(stored.name)
        held += stored.size
    if names:
        yield names
