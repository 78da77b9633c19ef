"""The repair itself: look, have what is lost from elsewhere, make versions without the rest, give damaged frames up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from spraydry.actions.compose.theatre import Theatre
from spraydry.actions.heal import heal
from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.repair.checkpoints import checkpoints_again
from spraydry.actions.repair.cures import Cured, Cures, Remotes, mend_dictionaries
from spraydry.actions.repair.indexes import MendedIndex, mend_index
from spraydry.actions.repair.mending import Had, Mended
from spraydry.actions.repair.originals import check_folders, originals
from spraydry.actions.repair.prune import Lack
from spraydry.actions.repair.verbatim import replace_frames
from spraydry.actions.repair.without import Without, commit_without, make_without
from spraydry.actions.verify.frames import DamagedFrame
from spraydry.actions.verify.sample import Sample
from spraydry.actions.verify.trees import Damage, TreeChecker
from spraydry.actions.verify.verify import BadFrames, Verified, look_at_frames
from spraydry.errors import StoreReadOnly, StoreUnavailable
from spraydry.format.chunker import DEFAULT_SPEC
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import CheckpointRecord, DropRecord, RevokeRecord, VersionRecord
from spraydry.repository.condemned import condemn
from spraydry.repository.hoards import Puts
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer
from spraydry.stores.over.indexes import Healed

_MOST_TOLD = 1000

__all__ = ["Lack", "Repaired", "Without", "repair"]


@dataclass
class Repaired:
    """What was found and what was done, or (not `written`) would be.

    `frames` were looked at, `damaged_frames` of them cannot be read, or are gone. `had` says what was lost and had from
    where. `condemned` frames hold nothing any more that cannot be had elsewhere, and are for `gc` to delete; `kept`
    damaged ones are all there is of something that a version needs, and stay. `without` are the new versions of roots
    whose newest version lacks something that nothing has; `damage` is what versions (all of them) still name and cannot
    have. `left_alone` says what was not touched because it was not understood. `healed` is what became of the copies
    on several stores; in a plan `bad_copies` counts those that are to be replaced.
    """

    written: bool
    frames: int = 0
    versions: int = 0
    damaged_frames: list[DamagedFrame] = field(default_factory=list)
    bad_copies: dict[str, int] = field(default_factory=dict)
    dictionaries: dict[str, str] = field(default_factory=dict)
    had: dict[str, Had] = field(default_factory=dict)
    lost_chunks: int = 0
    condemned: int = 0
    kept: int = 0
    without: list[Without] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    index: MendedIndex = MendedIndex()  # noqa: RUF009 (frozen)
    left_alone: list[str] = field(default_factory=list)
    healed: Healed | None = None

    @property
    def sound(self) -> bool:
        """Whether there was nothing to repair."""
        return not (
            self.damaged_frames
            or self.damage
            or self.had
            or self.bad_copies
            or self.dictionaries
            or self.index.named
            or self.index.damaged
            or self.left_alone
        )

    @property
    def whole(self) -> bool:
        """Whether every version has all it needs now."""
        return not self.damage and not self.left_alone


def repair(
    repository: Repository,
    *,
    write: bool = False,
    known: bool = False,
    remotes: Sequence[str] = (),
    sources: Sequence[str] = (),
    now_s: int | None = None,
    report: Report = unheard,
) -> Repaired:
    """Find what is damaged or gone, and what that takes from versions; with `write`, mend it.

    What is lost is had, in this order, from other copies (of a repository on several stores), from what damaged frames
    still give, from `remotes` (URLs of other repositories), from files below the folders `sources`. A root whose newest
    version lacks something after that gets a new one without it. With `known` only those frames are read which a verify
    found damaged, beside looking for such that are gone.

    Everything is stored beside what is there; damaged frames are condemned when nothing needs them, and none is
    deleted. Killed at any point it leaves nothing worse, and goes on when called again. Raises StoreUnavailable where a
    store does not answer, UsageError, StoreError.
    """
    if write and repository.read_only:
        raise StoreReadOnly(f"{repository.url} cannot be written (permissions, or a read-only medium)")
    check_folders(sources)
    began_at = repository.log.head[0]
    result = Repaired(write)
    with ExitStack() as stack:
        stack.enter_context(repository.store.uncached())
        others = stack.enter_context(Remotes(repository, remotes))
        _check_answers(repository)
        if write and repository.opened.spread is not None:
            result.healed = heal(repository, report, every_copy=not known)
        dictionaries = mend_dictionaries(repository, others, write)
        result.dictionaries = dictionaries.restored
        result.left_alone += [f"{why}, and frames need it" for why in dictionaries.lost.values()]
        result.index = _index(repository, result, write)
        bad, foreign = _survey(repository, result, known, now_s, report)
        theatre = stack.enter_context(Theatre(repository))
        for name in replace_frames(repository, bad, others, theatre.surgery.emit, write, result.had):
            del bad[name]
        writer = stack.enter_context(Writer(repository)) if write else None
        cures = Cures(repository, bad, others)
        mended = Mended(repository, bad, foreign, cures, theatre.surgery.emit, writer, result.had)
        seen = repository.log.head[0]
        checker = _mend(repository, theatre, mended, sources, result, report)
        for whole in bad.values():
            mended.unsound(sorted(whole))  # also what only removed versions need, or one that is being made
        if writer is not None:
            writer.finish()
        result.lost_chunks = len(mended.lost)
        if mended.not_understood:
            result.left_alone.append(
                f"{len(mended.not_understood)} chunks that versions need lie in frames this program cannot read:"
                " install a current spraydry; until then no version is made without them"
            )
        else:
            for version in _affected(repository, result.damage):
                without = make_without(theatre, mended, checker, version, writer)
                if without.entry is not None and writer is not None:
                    without = commit_without(repository, theatre, writer, without, began_at)
                result.without.append(without)
        _give_up(repository, mended, result, list(bad), seen)
        if write:
            repository.store.flush()
    return result


def _index(repository: Repository, result: Repaired, write: bool) -> MendedIndex:
    if repository.catalog.database.read_only:
        result.left_alone.append("the index was not looked at: the catalog cannot be written")
        return MendedIndex()
    return mend_index(repository, write)


def _survey(
    repository: Repository, result: Repaired, known: bool, now_s: int | None, report: Report
) -> tuple[BadFrames, set[bytes]]:
    """Read frames: those that are damaged or gone, and those that are not understood, which are left alone."""
    survey = Verified(known)
    began_s = int(time.time()) if now_s is None else now_s
    bad = look_at_frames(repository, survey, Sample(known_damaged=True) if known else None, began_s, report)
    _check_answers(repository)
    if survey.unindexed and not repository.read_only:
        repository.reindex()  # the catalog had lost rows that the store's index runs have
    result.frames, result.damaged_frames, result.bad_copies = survey.frames, survey.damaged_frames, survey.bad_copies
    foreign = {bytes.fromhex(name) for name in survey.foreign}
    for name in list(bad):
        told = f"frame {name.hex()}" if len(name) == DIGEST_BYTES else repr(name)
        if name in foreign:
            result.left_alone.append(f"{told} is not of this format: it stays as it is")
        elif not repository.catalog.has_frame(name):
            result.left_alone.append(f"{told} is damaged, and no index says what was in it: it stays as it is")
        else:
            continue
        del bad[name]
    return bad, foreign


def _check_answers(repository: Repository) -> None:
    if repository.store.silent:
        raise StoreUnavailable(
            f"{', '.join(repository.store.silent)} does not answer: what only it holds would be taken for lost"
        )


def _versions(repository: Repository) -> Iterator[Version]:
    """Every version once, under its first name."""
    done: set[int] = set()
    for root in repository.roots():
        for version in repository.versions(root):
            if version.made_in not in done:
                done.add(version.made_in)
                yield version


def _mend(
    repository: Repository,
    theatre: Theatre,
    mended: Mended,
    sources: Iterable[str],
    result: Repaired,
    report: Report,
) -> TreeChecker:
    """Go through all versions, and have what they lack from wherever it can be had; the checker that went last.

    The originals are searched for all that is missing at once; a manifest that was had names more to look for.
    """
    specs = sorted({DEFAULT_SPEC, *(version.record.spec for version in _versions(repository))})
    entries = size = 0

    def looked(file_bytes: int) -> None:
        nonlocal entries, size
        entries, size = entries + 1, size + file_bytes
        report(Done("checking versions", entries, size, counted="entries"))

    while True:
        checker = TreeChecker(mended, False, _MOST_TOLD, looked)
        result.versions, result.damage = 0, []
        for version in _versions(repository):
            result.versions += 1
            result.damage += checker.check(version)
        for hoard, view in repository.log.hoards.views().items():
            result.damage += checker.check_hoard(hoard, view)
        count = mended.take(_links_counted(repository, theatre, mended, result.damage)) if mended.lost else 0
        count += mended.take(checkpoints_again(repository, lambda: mended.lost)) if mended.lost else 0
        for source in sources:
            count += mended.take(originals(source, specs, lambda: mended.lost, report)) if mended.lost else 0
        if not count:
            return checker
        mended.forget_pages()


def _links_counted(
    repository: Repository, theatre: Theatre, mended: Mended, damage: Sequence[Damage]
) -> Iterator[Cured]:
    """The lost pages of links lists that come out again when the hardlinks in a tree, which is whole, are counted."""
    wrong: dict[str, bool] = {}
    for one in (one for one in damage if not one.is_key):
        wrong[one.version] = wrong.get(one.version, True) and one.is_links
    for version in _versions(repository):
        links = version.record.links
        if wrong.get(str(version)) and links is not None and theatre.counted(version.record.entry).links == links:
            for name in repository.links(links).pages():
                if mended.is_nowhere(name):
                    yield Cured(name, bytes(repository.read_chunk(name)), "the folders themselves")


def _affected(repository: Repository, damage: Sequence[Damage]) -> Iterator[Version]:
    """The newest version of each root, where something is wrong with it."""
    wrong = {one.version for one in damage if not one.is_key}
    for root in repository.roots():
        newest = repository.log.newest(root)
        if newest is None:
            continue
        same = (version for version in repository.versions(root) if version.made_in == newest.made_in)
        if any(str(version) in wrong for version in same):
            yield newest


def _give_up(repository: Repository, mended: Mended, result: Repaired, bad: list[bytes], seen: int) -> None:
    """Condemn the damaged frames from which nothing that versions need is missing now. What lies below a page that is
    lost may be needed: while there is such a one, nothing that is only in a damaged frame is given up. `seen` is the
    newest slot when versions were looked through."""
    unseen = mended.lost_pages
    needed = {
        frame
        for chunk, frame in repository.catalog.chunks.in_frames(bad)
        if chunk in mended.lost or (unseen and mended.is_nowhere(chunk))
    }
    given_up = [name for name in bad if name not in needed]
    result.condemned, result.kept = len(given_up), len(needed)
    if not result.written or not given_up:
        return
    ours = {without.made.made_in for without in result.without if without.made is not None}

    def check() -> None:
        """What others committed since may need what is lost here, or give up what was stored; then the next repair,
        which sees it, decides."""
        for slot, record in enumerate(repository.log.records[seen:], seen + 1):
            if isinstance(record, _CHANGING) and slot not in ours:
                raise _CommittedMeanwhile

    try:
        condemn(repository, given_up, "repair", check)
    except _CommittedMeanwhile:
        result.condemned = 0
        result.left_alone.append("another writer committed meanwhile: no damaged frame was given up, run it again")


_CHANGING = VersionRecord | RevokeRecord | DropRecord | CheckpointRecord | Puts


class _CommittedMeanwhile(Exception):
    pass
