"""The verify itself: frames, then what versions and hoards need of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.verify.chunks import Sound
from spraydry.actions.verify.frames import (
    Absence,
    CheckedFrame,
    DamagedFrame,
    check_frames,
    check_rest,
    everywhere,
    known_frames,
    listed_frames,
)
from spraydry.actions.verify.sample import Sample, sampled
from spraydry.actions.verify.trees import Damage, TreeChecker
from spraydry.errors import CorruptData, StoreError
from spraydry.repository.bundles import check_whole
from spraydry.repository.local import cache_folder
from spraydry.repository.losses import forget_unchanged
from spraydry.repository.proofs import Proofs
from spraydry.repository.repository import Repository
from spraydry.stores.over.member import Member

MAX_TOLD = 1000  # paths of a directory with damage below it that are told one by one
_NOTED_FRAMES = 1000
_NOTED_S = 10.0

BadFrames = dict[bytes, frozenset[bytes]]


@dataclass
class Verified:
    """What was looked at and what was found. A `sample` looks at versions only if one of its frames was damaged.
    `unindexed` chunks lie in sound frames the catalog does not name for them: a rebuild helps.
    `bad_copies` says of stores, by name, how many of their copies are damaged where another store's is sound: `heal`
    with `every_copy` replaces them. `silent` stores did not answer, and were not looked at. `unreferenced` frames are
    named by no index: an interrupted writer left them, and nothing needs them. Frames that were condemned are passed
    by. `foreign` damaged frames are as they were written, but not by a program as this one. Not `listed`: the store
    cannot list its frames, so that those were checked which the catalog knows, and no others looked for. `proofs` says
    how many frames are proved since when, this run included, where that is `remembered`; `known_damaged` of them were
    found damaged by another run, and not looked at by this one. Of a lazy clone, `at_origin` counts the frames that
    were never fetched; files of several chunks are not hashed then. Of a relative bundle no versions are looked at."""

    sample: bool
    listed: bool = True
    frames: int = 0
    chunks: int = 0
    plain_bytes: int = 0
    stored_bytes: int = 0
    versions: int = 0
    hoards: int = 0
    unindexed: int = 0
    unreferenced: int = 0
    known_damaged: int = 0
    at_origin: int = 0
    damaged_frames: list[DamagedFrame] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    bad_copies: dict[str, int] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    remembered: bool = True
    proofs: Proofs = Proofs(0, 0, 0, None)  # noqa: RUF009 (frozen)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (
            self.damaged_frames or self.damage or self.other or self.unindexed or self.bad_copies or self.known_damaged
        )


def verify(
    repository: Repository,
    *,
    sample: Sample | None = None,
    now_s: int | None = None,
    report: Report = unheard,
) -> Verified:
    """Check a repository: every frame against its name, its chunks and the catalog, then every version, down to the
    digest of each file. A `sample` looks at the frames whose last proof is oldest, and at versions only if there is
    damage to attribute. Caches are passed by: what they hold is compared with its name whenever it is read.

    Writes nothing but the catalog, where it can: when each frame was looked at (at `now_s`, by default now), and that
    what lies in damaged ones must not be counted on when something is stored. Raises StoreUnavailable.
    """
    with repository.store.uncached():
        return _verify(repository, sample, int(time.time()) if now_s is None else now_s, report)


def _verify(repository: Repository, sample: Sample | None, began_s: int, report: Report) -> Verified:
    result = Verified(sample is not None)
    bad = look_at_frames(repository, result, sample, began_s, report)
    result.other += check_rest(repository)
    bundle = repository.opened.bundle
    if bundle is not None:
        try:
            check_whole(repository.store, bundle)
        except CorruptData as error:
            result.other.append(str(error))
    relative = bundle is not None and bundle.prerequisites  # what it builds on is elsewhere
    if (sample is None or bad) and not relative:
        _versions(repository, result, bad, sample is None and repository.opened.origin is None, report)
    result.silent.update(repository.store.silent)
    result.proofs = repository.catalog.proofs.summary()
    result.remembered = repository.catalog.proofs.kept
    result.known_damaged = repository.catalog.proofs.damaged_before(began_s)
    return result


def look_at_frames(
    repository: Repository, result: Verified, sample: Sample | None, began_s: int, report: Report
) -> BadFrames:
    """Read frames, count them in `result`, and remember what they were like; the damaged ones, and those that are gone,
    each with the chunks that can be had from it all the same."""
    stored_bytes = sum(usage.stored for usage in repository.catalog.usage())
    names = _standing(repository)
    result.listed = names is not None
    absence = Absence(repository)
    held: Iterable[tuple[str, list[Member]]] = known_frames(repository) if names is None else absence.passing(names)
    if sample is not None:
        for _ in held if result.listed else ():
            pass  # what is missing is found by the listing alone
        members = everywhere(repository)
        held = ((due.name.hex(), members) for due in sampled(repository, sample, began_s, stored_bytes))
        stored_bytes = sample.budget_bytes(stored_bytes) or 0
    bad: BadFrames = {}
    notes = _Notes(repository, began_s)
    for checked in _noted(notes, check_frames(repository, held)):
        _count(result, checked)
        if checked.reason is not None:
            bad[checked.name] = checked.whole
            result.damaged_frames.append(DamagedFrame(checked.name.hex(), checked.reason))
            result.foreign += [checked.name.hex()] if checked.foreign else []
        report(Done("reading frames", 0, result.stored_bytes, None, stored_bytes or None))
    if repository.opened.origin is not None:
        # What a lazy clone never had is not missing; what it counts on is.
        result.at_origin = len(absence.missing)
        absence.missing = [name for name in absence.missing if repository.catalog.trusts(name)]
        result.at_origin -= len(absence.missing)
    for name in absence.missing:
        # What nothing was deduplicated against is no damage by itself: what needs it says so.
        if name not in bad and (repository.catalog.trusts(name) or repository.catalog.proofs.failed(name)):
            result.damaged_frames.append(DamagedFrame(name.hex(), "it is gone"))
            notes.write([(name, False)])
        bad[name] = frozenset()
    if bad and not repository.read_only:
        try:
            repository.catalog.distrust(bad)
        except StoreError:
            pass  # no room: then the next one that can says it
        forget_unchanged(cache_folder(repository.config.repository))
    return bad


def _standing(repository: Repository) -> Iterator[tuple[str, list[Member]]] | None:
    """The frames that the store lists, without those that were condemned; None where it cannot list them."""
    condemned = {name.hex() for name in repository.condemned()}
    names = listed_frames(repository)
    return None if names is None else (one for one in names if one[0] not in condemned)


def _count(result: Verified, checked: CheckedFrame) -> None:
    result.frames += 1
    result.chunks += checked.chunks
    result.plain_bytes += checked.plain_bytes
    result.stored_bytes += checked.stored_bytes
    result.unindexed += checked.unindexed
    result.unreferenced += not checked.indexed
    for store in checked.bad_copies:
        result.bad_copies[store] = result.bad_copies.get(store, 0) + 1


class _Notes:
    """Remembers what frames were like, every so often: a run that is killed need not begin anew."""

    def __init__(self, repository: Repository, began_s: int) -> None:
        self._proofs = repository.catalog.proofs
        self._began_s = began_s
        self._held: dict[bytes, bool] = {}
        self._next_s = time.monotonic() + _NOTED_S
        self._proofs.tidy()

    def add(self, name: bytes, sound: bool) -> None:
        self._held[name] = sound
        if len(self._held) >= _NOTED_FRAMES or time.monotonic() >= self._next_s:
            self.end()

    def end(self) -> None:
        self.write(self._held.items())
        self._held = {}
        self._next_s = time.monotonic() + _NOTED_S

    def write(self, looked_at: Iterable[tuple[bytes, bool]]) -> None:
        self._proofs.note(looked_at, self._began_s)


def _noted(notes: _Notes, following: Iterator[CheckedFrame]) -> Iterator[CheckedFrame]:
    try:
        for checked in following:
            # A frame with a bad copy on one of several stores is not proved, though it can be had.
            notes.add(checked.name, checked.reason is None and not checked.bad_copies)
            yield checked
    finally:
        notes.end()


def _versions(repository: Repository, result: Verified, bad: BadFrames, hash_files: bool, report: Report) -> None:
    entries = size = 0

    def looked(file_bytes: int) -> None:
        nonlocal entries, size
        entries += 1
        size += file_bytes
        report(Done("checking versions", entries, size, counted="entries"))

    checker = TreeChecker(Sound(repository, bad), hash_files, MAX_TOLD, looked)
    done: set[int] = set()
    for root in repository.roots():
        for version in repository.versions(root):
            if version.made_in not in done:
                done.add(version.made_in)
                result.versions += 1
                result.damage += checker.check(version)
    for hoard, view in repository.log.hoards.views().items():
        result.hoards += 1
        result.damage += checker.check_hoard(hoard, view)
