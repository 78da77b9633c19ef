"""What a collection goes by: the marks, which frames are dead by them, and whether that still holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from spraydry.actions.closure import chunks_of_files
from spraydry.actions.collect.marking import kept_removed, mark_hoards, mark_removed, mark_versions
from spraydry.actions.progress import Done, Report
from spraydry.errors import CorruptData, NotFound
from spraydry.format.version import CollectRecord, DictionariesRecord, RemovalRecord, VersionRecord
from spraydry.repository.hoards import Puts, View
from spraydry.repository.leases import Held, heeded, kept_frames
from spraydry.repository.marks import Life, Marks
from spraydry.repository.repository import Repository

_PORTION_BYTES = 256 << 20
_PORTIONS = 8


class Plan:
    """Marks with the slot up to which they hold. Not thread-safe."""

    class Stale(Exception):
        """What came meanwhile may rest on what is to be condemned."""

    def __init__(self, repository: Repository, marks: Marks, leases: Mapping[str, Held], report: Report) -> None:
        self._repository = repository
        self._marks = marks
        self._leases = leases
        self._report = report
        self.versions: dict[int, VersionRecord] = {}  # those that were marked
        self._removed: dict[int, VersionRecord] = {}
        self.hoards: dict[str, View] = {}  # those that were marked, as they were then
        self._put: set[bytes] = set()  # frames that hold what was put since the frames were weighed
        self.weighed_at = 0
        self.missing = 0
        self.spared = 0

    def note_stored(self) -> None:
        """Read which frames the store holds."""

        def listed() -> Iterator[tuple[bytes, int]]:
            for count, stored in enumerate(self._repository.store.list("frames")):
                if len(stored.name) == 64:
                    yield bytes.fromhex(stored.name), stored.size
                if count % 1000 == 0:
                    self._report(Done("listing", count, counted="frames"))

        self._marks.note_stored(listed())

    def mark(self) -> None:
        """Mark what lives, and weigh the frames by it."""
        # Taken first: what is committed while the rest is done is met by `check`.
        self.weighed_at = self._repository.log.head[0]
        self._mark_fresh()
        self._marks.weigh()
        self.missing = self._marks.missing()

    def _mark_fresh(self) -> None:
        """Mark the versions that came since, and what writers stored."""
        log = self._repository.log
        fresh = {slot: record for slot, record in log.living().items() if slot not in self.versions}
        mark_versions(self._repository, self._marks, fresh, self._report)
        self.versions |= fresh
        removed = kept_removed(self._repository, list(self._leases.values()))
        removed = {slot: record for slot, record in removed.items() if slot not in self.versions | self._removed}
        mark_removed(self._repository, self._marks, removed)
        self._removed |= removed
        hoards = {name: log.stand(name)[1] for name in log.hoards.names()}
        mark_hoards(self._repository, self._marks, {name: self._fresh(name, view) for name, view in hoards.items()})
        self.hoards = hoards
        self._spare()

    def _fresh(self, hoard: str, view: View) -> View:
        """Of a hoard, what is to be marked yet."""
        before = self.hoards.get(hoard)
        if before is None or before.base is not view.base:
            return view
        changes = {name: change for name, change in view.changes.items() if before.changes.get(name) is not change}
        return View(None, view.upto, changes)

    def _spare(self) -> set[bytes]:
        spared = set(kept_frames(self._repository, self._leases)) | self._put
        self.spared = len(spared)
        self._marks.spare(spared)
        return spared

    def spared_now(self) -> set[bytes]:
        """What writers list by now: some may have begun, or stored more, since the frames were weighed."""
        self._leases = heeded(self._repository)
        return self._spare()

    def dead(self) -> dict[bytes, int]:
        """The frames in which nothing lives, with their stored sizes; as well those that no run names, unless somebody
        is writing, or they may hold what is missing."""
        dead = {life.info.name: life.info.stored for life in self._frames_without_life()}
        writing = any(lease.writing for lease in self._leases.values())
        if not writing and not self.missing and not self._repository.damaged_runs:
            dead.update(self._marks.orphans())
            dead.update(self._with_dropped())
        return dead

    def _with_dropped(self) -> dict[bytes, int]:
        """The frames that count for nothing only because they use a dictionary that was given up: what a writer needed
        of them is stored again."""
        repository = self._repository
        users = repository.catalog.users(repository.log.dropped).keys() - repository.log.condemned
        return self._marks.stored(users - set(kept_frames(repository, self._leases)))

    def _frames_without_life(self) -> Iterator[Life]:
        return (life for life in self._marks.frames() if not life.bytes)

    def check(self, frames: Collection[bytes] | None = None) -> None:
        """Raises Stale unless all that came since the frames were weighed leaves them as dead as they were; where only
        these `frames` are to be given up, at least them: into hoards something may be put all the time."""
        for slot, record in enumerate(self._repository.log.records[self.weighed_at :], self.weighed_at + 1):
            if isinstance(record, Puts) and frames is not None:
                self._heed_put(slot, record.hoard)
            elif not isinstance(record, RemovalRecord | CollectRecord | DictionariesRecord):
                raise Plan.Stale
        if frames is not None and not self._put.isdisjoint(frames):
            raise Plan.Stale

    def _heed_put(self, slot: int, hoard: str) -> None:
        """Spare all frames that hold what was put in a slot. Raises Stale where one of its chunks is in none that is
        known."""
        catalog = self._repository.catalog
        changes = list(self._repository.log.hoards.view(hoard).changes.values())
        entries = [change.entry for change in changes if change.slot == slot and change.entry is not None]
        try:
            for name in chunks_of_files(self._repository, entries):
                frames = {place.frame for place in catalog.chunks.locate(name)}
                if not any(map(catalog.has_frame, frames)):
                    raise Plan.Stale
                self._put |= frames
        except (NotFound, CorruptData):
            raise Plan.Stale from None

    def catch_up(self) -> dict[bytes, int]:
        """Take in what came since; what is dead now."""
        self._repository.refresh()
        self._leases = heeded(self._repository)
        self.mark()
        return self.dead()

    def portions(self, sparse: Sequence[Life]) -> Iterator[list[Life]]:
        """The frames to be rewritten, as many at a time as are condemned together."""
        limit = max(_PORTION_BYTES, sum(life.bytes for life in sparse) // _PORTIONS)
        part: list[Life] = []
        held = 0
        for life in sparse:
            part.append(life)
            held += life.bytes
            if held >= limit:
                yield part
                part, held = [], 0
        if part:
            yield part
