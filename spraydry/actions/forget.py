"""Forgetting a path: every version of a root that holds it is made again without it, and the old ones can go."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spraydry.actions.commit import Proposal, commit, same
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.remove import discard
from spraydry.actions.tag import tag
from spraydry.errors import PathNotFound, StoreUnavailable, UsageError, VersionExists
from spraydry.format.entry import Totals
from spraydry.format.version import TagRecord, VersionRecord
from spraydry.repository.address import parse
from spraydry.repository.log import Log
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer

_TRIES = 5
_VERB = "forget"
_MADE_BY = re.compile(rf".* {_VERB} (\S+)")  # what made a version says of which one
_AGAIN = re.compile(r"(.+)-[0-9]+")


@dataclass(frozen=True)
class Rewritten:
    """A version that held the path, under its names, and the names of what stands for it without the path, in the same
    order; `gone` is what lay at the path."""

    old: tuple[Version, ...]
    new: tuple[str, ...]
    gone: Totals


@dataclass(frozen=True)
class Forgotten:
    """What became of the versions of a root. `newest` names the copy that was made of a version which did not hold the
    path, so that it is the newest one again; None where none was needed, and in dry runs. `pruned`: the old versions
    were removed. `untouched` counts the versions that did not hold the path."""

    root: str
    path: bytes
    rewritten: list[Rewritten]
    newest: str | None
    untouched: int
    pruned: bool


def forget(
    repository: Repository, address: str, *, prune: bool = False, dry_run: bool = False, progress: Report = unheard
) -> Forgotten:
    """Take `ROOT:PATH` out of every version of a root: each one that holds it is made again without it, under its names
    with -1 (-2, ...) behind them, with its time; with `prune` the old ones are then removed.

    They are made in the order of the old ones, and what was the newest version is the newest one afterwards. Run again,
    this makes nothing twice. Raises UsageError, RootNotFound, PathNotFound, StoreError, CorruptData.
    """
    named = parse(address)
    if named.version or not named.path:
        example = f"{named.root}:{os.fsdecode(named.path) or 'PATH'}"
        raise UsageError(f"{address!r}: a path is taken out of all versions of a root, written {example}")
    log = repository.log
    log.read()
    log.find(named.root)
    began_at = log.head[0]
    with Theatre(repository) as theatre, Writer(repository, dry_run=dry_run) as writer:
        run = _Forgetting(repository, theatre, writer, named.root, named.path, began_at)
        holders = run.holders()
        if not holders:
            raise PathNotFound(f"no version of {named.root!r} holds {os.fsdecode(named.path)!r}")
        if dry_run:
            names = run.proposed(holders)
            rewritten = [Rewritten(tuple(old), names[old[0].made_in], run.gone(old[0])) for old in holders]
            return Forgotten(named.root, named.path, rewritten, None, run.versions() - len(holders), prune)
        untouched = run.versions() - len(holders)
        newest: str | None = None
        found: dict[int, Rewritten] = {}
        for _ in range(_TRIES):
            fresh = [names for names in run.holders() if names[0].made_in not in found]
            if not fresh and run.is_settled():
                break
            proposals = run.proposals(fresh, progress)
            with repository.batch():  # where there are such, readers see all of it or nothing
                found.update((one.old[0].made_in, one) for one in run.rewrite(fresh, proposals))
                newest = run.restate() or newest
            log.read()  # another writer may have committed meanwhile
        else:
            raise StoreUnavailable(f"others committed to {named.root!r} {_TRIES} times meanwhile; run it again")
        if prune:
            discard(repository, [version for one in found.values() for version in one.old])
        merge_runs(repository)
        repository.store.flush()
    return Forgotten(named.root, named.path, [*found.values()], newest, untouched, prune)


class _Forgetting:
    """The steps of one run. For one thread."""

    def __init__(
        self, repository: Repository, theatre: Theatre, writer: Writer, root: str, path: bytes, began_at: int
    ) -> None:
        self._repository = repository
        self._log: Log = repository.log
        self._theatre = theatre
        self._writer = writer
        self._root = root
        self._path = path
        self._began_at = began_at

    # -- what is there

    def versions(self) -> int:
        """How many versions the root has."""
        return len({version.made_in for version in self._log.versions(self._root)})

    def holders(self) -> list[list[Version]]:
        """The versions that hold the path, each under its names, in their order."""
        names: dict[int, list[Version]] = {}
        for version in self._log.versions(self._root):
            names.setdefault(version.made_in, []).append(version)
        entry_at = self._theatre.surgery.at
        holding = [found for found in names.values() if entry_at(found[0].record.entry, self._path) is not None]
        places = self._places()
        return sorted(holding, key=lambda found: max((places[one.slot], one.slot) for one in found))

    def gone(self, version: Version) -> Totals:
        """What lies at the path in a version."""
        entry = self._theatre.surgery.at(version.record.entry, self._path)
        return entry.totals if entry is not None else Totals()

    def _places(self) -> dict[int, tuple[int, ...]]:
        """What gives each name of the root, by its slot, its place in the order of versions: what came in the place of
        a version stands directly behind it, before what had come in its place earlier."""
        by_name: dict[str, tuple[int, ...]] = {}
        places: dict[int, tuple[int, ...]] = {}
        for slot, record in enumerate(self._log.records, 1):
            if isinstance(record, VersionRecord | TagRecord) and record.root == self._root:
                of = by_name.get(self._made_of(slot) or "")
                own = places[record.slot] if isinstance(record, TagRecord) else (slot,)
                places[slot] = by_name[record.name] = own if of is None else (*of, -slot)
        return places

    def _made_of(self, slot: int) -> str | None:
        """The name of the version from which one like `v3-1` was made here; None for any other."""
        record = self._log.records[slot - 1]
        made = _MADE_BY.fullmatch(record.made_by) if isinstance(record, VersionRecord | TagRecord) else None
        return made[1] if made else None

    def _base(self, name: str, slot: int) -> str:
        """The name that one like `v3-1` is numbered behind; any other as it is."""
        again = _AGAIN.fullmatch(name)
        return again[1] if again and self._made_of(slot) else name

    def _last(self) -> Version:
        """The version that is to be the newest one."""
        places = self._places()
        versions = self._log.versions(self._root)
        return max(versions, key=lambda version: (places[version.slot], version.slot))

    # -- names

    def _free(self, version: Version, taken: set[str]) -> str:
        base = self._base(version.name, version.slot)[:190]
        number = 1
        while True:
            name = f"{base}-{number}"
            try:
                self._log.check_unused(self._root, name)
            except VersionExists:
                pass
            else:
                if name not in taken:
                    taken.add(name)
                    return name
            number += 1

    def proposed(self, holders: Sequence[Sequence[Version]]) -> dict[int, tuple[str, ...]]:
        """The names that the new versions would get, by the slots of the old ones."""
        taken: set[str] = set()
        found: dict[int, tuple[str, ...]] = {}
        for names in holders:
            standing = self._standing(names, self._proposal(names[0]))
            new = [one.name for one in standing] + [self._free(one, taken) for one in names[len(standing) :]]
            found[names[0].made_in] = tuple(new)
        return found

    # -- doing it

    def proposals(self, holders: Sequence[Sequence[Version]], progress: Report) -> list[Proposal]:
        """The versions without the path; what they need is stored."""
        proposals = []
        for number, names in enumerate(holders):
            progress(Done("taking it out", number, total_files=len(holders), counted="versions"))
            proposals.append(self._proposal(names[0]))
        self._writer.finish()
        return proposals

    def rewrite(self, holders: Sequence[Sequence[Version]], proposals: Sequence[Proposal]) -> list[Rewritten]:
        """Make every version that stands for one without the path, unless it is there."""
        done = []
        for names, proposal in zip(holders, proposals, strict=True):
            standing = self._standing(names, proposal)
            if not standing:
                standing = [self._commit(names[0], proposal)]
            for version in names[len(standing) :]:
                name = self._free(version, set())
                tag(self._repository, str(standing[0]), name, verb=f"{_VERB} {version.name}")
                standing.append(self._log.find(self._root, name))
            done.append(Rewritten(tuple(names), tuple(one.name for one in standing), self.gone(names[0])))
        return done

    def _proposal(self, version: Version) -> Proposal:
        """A version without the path; its new pages go to the writer."""
        part = self._without(version)
        self._theatre.store(self._writer, part)
        return self._like(version, part)

    def _like(self, version: Version, part: Part) -> Proposal:
        record = version.record
        return Proposal(
            root=self._root,
            name=None,
            entry=part.entry,
            links=part.links,
            spec=record.spec,
            users=record.users,
            groups=record.groups,
            verb=f"{_VERB} {version.name}",
            incomplete=record.incomplete,
            made_ns=record.made_ns,
        )

    def _standing(self, names: Sequence[Version], proposal: Proposal) -> list[Version]:
        """What stands for a version already, from an earlier run, under as many of its names as were made."""
        versions = self._log.versions(self._root)
        first = names[0].name
        for found in versions:
            if self._made_of(found.slot) == first and same(found, proposal):
                standing = [found]
                for name in names[1:]:
                    tags = (one for one in versions if one.made_in == found.made_in)
                    if (one := next((one for one in tags if self._made_of(one.slot) == name.name), None)) is None:
                        break
                    standing.append(one)
                return standing
        return []

    def _commit(self, old: Version, proposal: Proposal) -> Version:
        named = replace(proposal, name=self._free(old, set()))
        return commit(self._repository, named, self._began_at).version

    def restate(self) -> str | None:
        """Make a copy of what is to be the newest version, if it is not; its name."""
        if self.is_settled():
            return None
        last = self._last()
        return self._commit(last, self._like(last, self._without(last))).name

    def is_settled(self) -> bool:
        """Whether the newest version is what is to be that, without the path, or an equal one."""
        newest, last = self._log.newest(self._root), self._last()
        return newest is not None and same(newest, self._like(last, self._without(last)))

    def _without(self, version: Version) -> Part:
        """A version without the path; new pages are in the theatre."""
        part = Part(version.record.entry, version.record.links)
        held = self._theatre.surgery.at(part.entry, self._path) is not None
        return self._theatre.cut(part, [self._path]) if held else part
