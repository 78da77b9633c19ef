"""Committing what was built: a new version, a second name for an old one, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import msgspec

import spraydry
from spraydry.actions.closure import chunks_of
from spraydry.errors import ChunkNotFound, StoreUnavailable
from spraydry.format.entry import Entry
from spraydry.format.version import AnyRecord, TagRecord, VersionRecord
from spraydry.repository.log import RECORD_FORMAT, Version
from spraydry.repository.repository import Repository

_ASKED_CHUNKS = 4096

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


def commit(repository: Repository, proposal: Proposal, began_at: int) -> Committed:
    """Append the record that makes the version be; everything it names must be durable by now.

    A tree equal to the newest version's makes no version; with a `name` of its own it makes a tag. `began_at` is the
    newest slot when the first chunk was taken for known: frames condemned since may have held it. Raises VersionExists.
    """
    log = repository.log
    root, name = proposal.root, proposal.name

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        check_stored(repository, proposal.entry, proposal.links, began_at)
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
        with repository.batch():
            _, record = log.append(make)
            repository.remember_head()
    except _Unchanged as unchanged:
        return Committed(unchanged.version, False, False)
    assert isinstance(record, VersionRecord | TagRecord)
    return Committed(log.find(root, record.name), isinstance(record, VersionRecord), True)


def commit_copy(repository: Repository, record: VersionRecord | TagRecord, began_at: int) -> Version:
    """Append a record that was made for another repository, as it is but for what it follows: a version all of whose
    chunks are here, or a further name of one (`slot` is this repository's). Raises as `commit`."""
    log = repository.log

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        if isinstance(record, VersionRecord):
            check_stored(repository, record.entry, record.links, began_at)
        log.check_unused(record.root, record.name)
        return msgspec.structs.replace(record, previous=previous)

    with repository.batch():
        log.append(make)
        repository.remember_head()
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


def check_stored(repository: Repository, entry: Entry, links: bytes | None, began_at: int) -> None:
    """Raises StoreUnavailable where frames were condemned behind slot `began_at` that held what a version needs."""
    condemned = repository.log.condemned_since(began_at)
    if not condemned:
        return
    repository.catalog.forget_frames(condemned)
    chunks = chunks_of(repository, entry, links, set())
    try:
        while some := list(islice(chunks, _ASKED_CHUNKS)):
            missing = set(some) - repository.catalog.known(some)
            if repository.opened.origin is not None:  # a lazy clone may count on what its origin has
                missing = {name for name in missing if not repository.catalog.locate(name)}
            if missing:
                raise StoreUnavailable("chunks were collected while this ran: run it again")
    except ChunkNotFound:  # of a tree
        raise StoreUnavailable("chunks were collected while this ran: run it again") from None
