"""The verify itself: frames, then what versions need of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.verify.frames import (
    DamagedFrame,
    check_frames,
    check_rest,
    known_frames,
    listed_frames,
    missing_frames,
)
from spraydry.actions.verify.trees import Damage, TreeChecker
from spraydry.errors import UsageError
from spraydry.repository.repository import Repository

MAX_TOLD = 1000  # paths of a directory with damage below it that are told one by one


@dataclass
class Verified:
    """What was looked at and what was found. `fraction` below 1: a sample of the frames, and versions only if one of
    them was damaged. `unindexed` chunks lie in sound frames the catalog does not name for them: a rebuild helps.
    `bad_copies` says of stores, by name, how many of their copies are damaged where another store's is sound: `heal`
    with `every_copy` replaces them. `silent` stores did not answer, and were not looked at. `unreferenced` frames are
    named by no index: an interrupted writer left them, and nothing needs them. Not `listed`: the store cannot list its
    frames, so that those were checked which the catalog knows, and no others looked for."""

    fraction: float
    listed: bool = True
    frames: int = 0
    chunks: int = 0
    plain_bytes: int = 0
    stored_bytes: int = 0
    versions: int = 0
    unindexed: int = 0
    unreferenced: int = 0
    damaged_frames: list[DamagedFrame] = field(default_factory=list)
    bad_copies: dict[str, int] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged_frames or self.damage or self.other or self.unindexed or self.bad_copies)


def verify(
    repository: Repository,
    *,
    sample: float | None = None,
    seed: int = 0,
    report: Report = unheard,
) -> Verified:
    """Check a repository: every frame against its name, its chunks and the catalog, then every version, down to the
    digest of each file. With `sample` (0 to 1) that part of the frames, chosen by `seed`, and versions only if there is
    damage to attribute. Caches are passed by: what they hold is compared with its name whenever it is read. Writes
    nothing. Raises UsageError, StoreUnavailable.
    """
    if sample is not None and not 0 < sample <= 1:
        raise UsageError(f"a sample is a part of the frames, above 0% and up to 100%, not {sample:.0%}")
    with repository.store.uncached():
        return _verify(repository, sample, seed, report)


def _verify(repository: Repository, sample: float | None, seed: int, report: Report) -> Verified:
    result = Verified(1.0 if sample is None else sample)
    total = int(sum(usage.stored for usage in repository.catalog.usage()) * result.fraction)
    bad: set[bytes] = set()
    names = listed_frames(repository)
    result.listed = names is not None
    for checked in check_frames(
        repository, known_frames(repository) if names is None else names, result.fraction, seed
    ):
        result.frames += 1
        result.chunks += checked.chunks
        result.plain_bytes += checked.plain_bytes
        result.stored_bytes += checked.stored_bytes
        result.unindexed += checked.unindexed
        result.unreferenced += not checked.indexed
        for store in checked.bad_copies:
            result.bad_copies[store] = result.bad_copies.get(store, 0) + 1
        if checked.reason is not None:
            bad.add(checked.name)
            result.damaged_frames.append(DamagedFrame(checked.name.hex(), checked.reason))
        report(Done("reading frames", 0, result.stored_bytes, None, total))
    for name in missing_frames(repository) if result.listed else ():
        known_bad = name in bad
        bad.add(name)
        # What nothing is deduplicated against is no damage by itself: what needs it says so.
        if not known_bad and repository.catalog.trusts(name):
            result.damaged_frames.append(DamagedFrame(name.hex(), "it is gone"))
    result.other += check_rest(repository)
    if sample is None or bad:
        _versions(repository, result, bad, sample is None, report)
    result.silent.update(repository.store.silent)
    return result


def _versions(repository: Repository, result: Verified, bad: set[bytes], hash_files: bool, report: Report) -> None:
    files = size = 0

    def looked(file_bytes: int) -> None:
        nonlocal files, size
        files += 1
        size += file_bytes
        report(Done("checking versions", files, size))

    checker = TreeChecker(repository, bad, hash_files, MAX_TOLD, looked)
    done: set[int] = set()
    for root in repository.roots():
        for version in repository.versions(root):
            if version.made_in not in done:
                done.add(version.made_in)
                result.versions += 1
                result.damage += checker.check(version)
