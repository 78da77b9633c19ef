"""Committing what was built: a new version, a second name for an old one, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

import spraydry
from spraydry.actions.fence import append_whole
from spraydry.errors import VersionNotFound
from spraydry.format.entry import Entry
from spraydry.format.version import AnyRecord, TagRecord, VersionRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version

Owners = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Proposal:
    """What a version is to hold, in the words of its record. `name` None takes the next free one, `made_ns` None the
    time of the commit; `verb` is what makes it."""

    root: str
    name: str | None
    entry: Entry
    links: bytes | None
    spec: str
    users: Owners
    groups: Owners
    verb: str
    incomplete: bool = False
    new_bytes: int = 0
    stored_bytes: int = 0
    made_ns: int | None = None


@dataclass(frozen=True)
class Committed:
    """The version that stands for what was proposed: `new` unless it was there, `named` if it got a name."""

    version: Version
    new: bool
    named: bool


def commit(
    repository: Repository, proposal: Proposal, began_at: int, check: Callable[[], None] = lambda: None
) -> Committed:
    """Append the record that makes the version be; everything it names must be durable by now.

    A tree equal to the newest version's makes no version; with a `name` of its own it makes a tag. `began_at` is the
    newest slot when the first chunk was taken for known: frames condemned since may have held it, and then it is stored
    again (see fence). `check` is called when every slot before was read, and may raise to give up. Not to be called in
    a batch. Raises VersionExists, CollectedMeanwhile.
    """
    log = repository.log
    root, name = proposal.root, proposal.name

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        check()
        if name is not None:
            log.check_unused(root, name)
        newest = log.newest(root)
        made_by = f"spraydry {spraydry.__version__} {proposal.verb}"
        made_ns = now_ns if proposal.made_ns is None else proposal.made_ns
        if newest is not None and same(newest, proposal):
            if name is None:
                raise _Unchanged(newest)
            return TagRecord(
                format=RECORD_FORMAT,
                previous=previous,
                made_ns=made_ns,
                made_by=made_by,
                root=root,
                name=name,
                slot=newest.made_in,
            )
        return VersionRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=made_ns,
            made_by=made_by,
            root=root,
            name=name or log.next_name(root),
            entry=proposal.entry,
            links=proposal.links,
            spec=proposal.spec,
            users=proposal.users,
            groups=proposal.groups,
            incomplete=proposal.incomplete,
            new_bytes=proposal.new_bytes,
            stored_bytes=proposal.stored_bytes,
        )

    try:
        _, record = append_whole(repository, make, [(proposal.entry, proposal.links)], began_at)
    except _Unchanged as unchanged:
        return Committed(unchanged.version, False, False)
    assert isinstance(record, VersionRecord | TagRecord)
    return Committed(log.find(root, record.name), isinstance(record, VersionRecord), True)


def commit_copy(repository: Repository, record: VersionRecord | TagRecord, began_at: int) -> Version:
    """Append a record that was made for another repository, as it is but for what it follows: a version all of whose
    chunks are here, or a further name of one (`slot` is this repository's). Raises as `commit`."""
    log = repository.log

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        log.check_unused(record.root, record.name)
        if isinstance(record, TagRecord) and record.slot not in log.living():
            raise VersionNotFound(f"{log.named_in(record.slot)}, which was to get another name, was removed meanwhile")
        return msgspec.structs.replace(record, previous=previous)

    needed = [(record.entry, record.links)] if isinstance(record, VersionRecord) else []
    append_whole(repository, make, needed, began_at)
    return log.find(record.root, record.name)


class _Unchanged(Exception):
    def __init__(self, version: Version) -> None:
        self.version = version


def same(version: Version, proposal: Proposal) -> bool:
    """Whether a version is what was proposed: then none is made."""
    record = version.record
    return (record.entry, record.links, record.spec, record.incomplete) == (
        proposal.entry,
        proposal.links,
        proposal.spec,
        proposal.incomplete,
    )
