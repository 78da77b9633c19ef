"""Composing: a version from an expression, or from a part of another version, moving no content."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spraydry.actions.commit import Proposal, commit, same
from spraydry.actions.compose.evaluate import Composed, evaluate
from spraydry.actions.compose.expression import Lay, read, written
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.progress import Report, unheard
from spraydry.errors import UsageError
from spraydry.format.version import check_new_name
from spraydry.repository.address import parse, resolve
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer, Written


@dataclass(frozen=True)
class Made:
    """What came of it. `version` is None in a dry run that would make one; `new` unless the newest version was equal,
    `named` if that one got another name. `expression` names every version it was made of; `new_bytes` are those of
    folders and lists that were made anew, `stored_bytes` what they take up."""

    root: str
    version: Version | None
    new: bool
    named: bool
    expression: str
    files: int
    size: int
    incomplete: bool
    new_bytes: int
    stored_bytes: int


def compose(
    repository: Repository,
    root: str,
    expression: str,
    *,
    name: str | None = None,
    dry_run: bool = False,
    progress: Report = unheard,
) -> Made:
    """Make the newest version of `root` what an expression says (`name`: the version's). One that is equal to the
    newest makes none. Raises ExpressionError, UsageError, VersionExists, StoreError."""
    _check(repository, root, name)
    steps = read(expression)
    began_at = repository.log.head[0]
    with Theatre(repository, progress) as theatre:
        composed = evaluate(repository, theatre, steps, expression)
        proposal = composed.proposal(root, name, "compose")
        return _made(repository, theatre, proposal, composed.expression, began_at, dry_run)


def split(
    repository: Repository,
    address: str,
    root: str,
    *,
    name: str | None = None,
    dry_run: bool = False,
    progress: Report = unheard,
) -> Made:
    """Make the newest version of `root` what `ROOT[@VERSION]:PATH` names, a folder or a file, and only that. Raises
    UsageError, NotFound, VersionExists, StoreError."""
    _check(repository, root, name)
    named = parse(address)
    if not named.path:
        raise UsageError(f"{address!r} is a whole version: name what is to be split off, ROOT[@VERSION]:PATH")
    began_at = repository.log.head[0]
    found = resolve(repository, named)
    record = found.version.record
    with Theatre(repository, progress) as theatre:
        part = theatre.take(Part(record.entry, record.links), found.path)
        assert part is not None
        composed = Composed(part, [found.version], [Lay(replace(named, version=found.version.name), None, 0)])
        proposal = composed.proposal(root, name, "split")
        return _made(repository, theatre, proposal, written(composed.steps), began_at, dry_run)


def _check(repository: Repository, root: str, name: str | None) -> None:
    check_new_name(root, "root")
    if name is not None:
        check_new_name(name, "version")
        repository.log.check_unused(root, name)


def _made(
    repository: Repository, theatre: Theatre, proposal: Proposal, expression: str, began_at: int, dry_run: bool
) -> Made:
    with Writer(repository, dry_run=dry_run) as writer:
        theatre.store(writer, Part(proposal.entry, proposal.links))
        written = writer.finish()
    if dry_run:
        newest = repository.log.newest(proposal.root)
        new = newest is None or not same(newest, proposal)
        return _told(proposal, None if new else newest, new, proposal.name is not None, expression, written)
    proposal = replace(proposal, new_bytes=written.plain_bytes, stored_bytes=written.stored_bytes)
    committed = commit(repository, proposal, began_at)
    merge_runs(repository)
    repository.store.flush()
    named = committed.named and not committed.new
    return _told(proposal, committed.version, committed.new, named, expression, written)


def _told(
    proposal: Proposal, version: Version | None, new: bool, named: bool, expression: str, written: Written
) -> Made:
    totals = proposal.entry.totals
    return Made(
        root=proposal.root,
        version=version,
        new=new,
        named=named,
        expression=expression,
        files=totals.files,
        size=totals.size,
        incomplete=proposal.incomplete,
        new_bytes=written.plain_bytes,
        stored_bytes=written.stored_bytes,
    )
