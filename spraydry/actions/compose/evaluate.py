"""Evaluating an expression: from its steps to one part, and what the versions it is made of say of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from spraydry.actions.commit import Owners, Proposal
from spraydry.actions.compose.expression import Lay, Step, has_operator, is_expression, read, written
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.errors import ExpressionError, NotFound, UsageError
from spraydry.format.entry import DIRECTORY
from spraydry.format.version import NO_RECORD, VersionRecord
from spraydry.repository.address import Found, resolve
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


@dataclass(frozen=True)
class Composed:
    """A part and the versions it is made of, in the order of the terms; `steps` are those of the expression, in which
    every address names its version."""

    part: Part
    versions: Sequence[Version]
    steps: list[Step]

    @property
    def expression(self) -> str:
        """What gives the same at any time."""
        return written(self.steps)

    def proposal(self, root: str, name: str | None, verb: str) -> Proposal:
        """The version that this would be: owners have the names that the first of the terms knows, the chunker spec is
        the first one's, and it is incomplete if one of them is."""
        records = [version.record for version in self.versions]
        return Proposal(
            root=root,
            name=name,
            entry=self.part.entry,
            links=self.part.links,
            spec=records[0].spec,
            users=merged([record.users for record in records]),
            groups=merged([record.groups for record in records]),
            verb=verb,
            incomplete=any(record.incomplete for record in records),
        )


def merged(tables: Sequence[Owners]) -> Owners:
    """Owners in one table; the first name for a number counts."""
    names: dict[int, str] = {}
    for table in tables:
        for number, name in table:
            names.setdefault(number, name)
    return tuple(sorted(names.items()))


def evaluate(repository: Repository, theatre: Theatre, steps: Sequence[Step], text: str) -> Composed:
    """Do the steps that were read from `text`, in order. Raises ExpressionError where one names what is not there."""
    part: Part | None = None
    versions: list[Version] = []
    done: list[Step] = []
    for step in steps:
        if isinstance(step, Lay):
            try:
                found = resolve(repository, step.address)
            except NotFound as error:
                raise _at(error, text, step.place) from None
            part = _laid(theatre, part, found, step, text)
            versions.append(found.version)
            done.append(replace(step, address=replace(step.address, version=found.version.name)))
            continue
        assert part is not None
        if theatre.surgery.at(part.entry, step.path) is None:
            raise ExpressionError(f"there is no {os.fsdecode(step.path)!r} to cut out", text, step.place)
        part = theatre.cut(part, [step.path])
        done.append(step)
    assert part is not None
    return Composed(part, versions, done)


@dataclass(frozen=True)
class Unstored(Version):
    """What an expression gives, as a version that is in no log; `root` is the expression."""

    def __str__(self) -> str:
        return self.root


@contextmanager
def found_by(repository: Repository, text: str) -> Iterator[tuple[Found, list[int]]]:
    """What an address names, or what an expression gives, which can be read inside; with the slots of the versions it
    is made of. What names something as an address is one, whatever signs are in it.

    Raises UsageError, NotFound, ExpressionError.
    """
    try:
        found = resolve(repository, text)
    except (NotFound, UsageError) as error:
        steps = _meant(text, error)
    else:
        yield found, [found.version.made_in]
        return
    with Theatre(repository) as theatre:
        composed = evaluate(repository, theatre, steps, text)
        one = composed.proposal(composed.expression, "", "mount")
        record = VersionRecord(
            format=RECORD_FORMAT,
            previous=NO_RECORD,
            made_ns=max(version.record.made_ns for version in composed.versions),
            made_by="mount",
            root=one.root,
            name="",
            entry=one.entry,
            links=one.links,
            spec=one.spec,
            users=one.users,
            groups=one.groups,
            incomplete=one.incomplete,
            new_bytes=0,
            stored_bytes=0,
        )
        version = Unstored(one.root, "", 0, 0, record)
        yield Found(version, b"", one.entry, 0), [one.made_in for one in composed.versions]


def _meant(text: str, error: NotFound | UsageError) -> list[Step]:
    """The steps of what was no address; raises `error` where it is no expression either."""
    if not is_expression(text):
        raise error
    try:
        return read(text)
    except ExpressionError:
        if has_operator(text):
            raise
        raise error from None


def _laid(theatre: Theatre, lower: Part | None, found: Found, step: Lay, text: str) -> Part:
    record = found.version.record
    upper = theatre.take(Part(record.entry, record.links), found.path)
    assert upper is not None
    target = step.target
    if upper.entry.kind != DIRECTORY:
        if target == b"":
            raise ExpressionError("this is no folder: it needs a name where it goes", text, step.place)
        target = target or found.path.rpartition(b"/")[2] or os.fsencode(found.version.root)
    if lower is None and not target:
        return upper
    return theatre.lay(lower or theatre.empty(upper.entry), upper, target or b"")


def _at(error: NotFound, text: str, place: int) -> ExpressionError:
    placed = ExpressionError(str(error), text, place)
    placed.exit_code = error.exit_code
    return placed
