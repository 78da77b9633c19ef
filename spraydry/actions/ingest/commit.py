"""Committing what an ingest built: a new version, a second name for an old one, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import spraydry
from spraydry.actions.ingest.build import Built
from spraydry.errors import StoreUnavailable
from spraydry.format.version import AnyRecord, TagRecord, VersionRecord
from spraydry.repository.log import RECORD_FORMAT, Version
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Written

MADE_BY = f"spraydry {spraydry.__version__}"


@dataclass(frozen=True)
class Committed:
    """The version that stands for what was ingested now: `new` unless it was there, `named` if it got a name."""

    version: Version
    new: bool
    named: bool


def commit(
    repository: Repository,
    root: str,
    name: str | None,
    built: Built,
    spec: str,
    owners: tuple[Iterable[int], Iterable[int]],
    incomplete: bool,
    written: Written,
    began_at: int,
    verb: str = "ingest",
) -> Committed:
    """Append the record that makes the version be; everything it names must be durable by now.

    A tree equal to the newest version's makes no version; with a `name` of its own it makes a tag. `began_at` is the
    newest slot when the first chunk was taken for known: frames condemned since may have held it. Raises VersionExists.
    """
    log = repository.log
    users, groups = (tuple(sorted(table.items())) for table in _names(*owners))

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        if log.condemned_since(began_at) and (missing := unstored(repository, built)):
            raise StoreUnavailable(f"{missing} chunks were collected while this ran; run it again")
        if name is not None:
            log.check_unused(root, name)
        newest = log.newest(root)
        if newest is not None and _same(newest, built, spec, incomplete):
            if name is None:
                raise _Unchanged(newest)
            return TagRecord(
                format=RECORD_FORMAT,
                previous=previous,
                made_ns=now_ns,
                made_by=f"{MADE_BY} {verb}",
                root=root,
                name=name,
                slot=newest.made_in,
            )
        return VersionRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=now_ns,
            made_by=f"{MADE_BY} {verb}",
            root=root,
            name=name or log.next_name(root),
            entry=built.entry,
            links=built.links,
            spec=spec,
            users=users,
            groups=groups,
            incomplete=incomplete,
            new_bytes=written.plain_bytes,
            stored_bytes=written.stored_bytes,
        )

    try:
        with repository.batch():
            _, record = log.append(make)
            repository.remember_head()
    except _Unchanged as unchanged:
        return Committed(unchanged.version, False, False)
    assert isinstance(record, VersionRecord | TagRecord)
    return Committed(log.find(root, record.name), isinstance(record, VersionRecord), True)


class _Unchanged(Exception):
    def __init__(self, version: Version) -> None:
        self.version = version


def _same(version: Version, built: Built, spec: str, incomplete: bool) -> bool:
    record = version.record
    return (record.entry, record.links, record.spec, record.incomplete) == (
        built.entry,
        built.links,
        spec,
        incomplete,
    )


def unstored(repository: Repository, built: Built) -> int:
    """How many of the chunks that a built tree needs are in no frame."""
    from spraydry.actions.closure import chunks_of

    names = list(chunks_of(repository, built.entry, built.links))
    return len(set(names) - repository.catalog.known(names))


def _names(users: Iterable[int], groups: Iterable[int]) -> tuple[dict[int, str], dict[int, str]]:
    """The names this machine has for numeric owners."""
    named: tuple[dict[int, str], dict[int, str]] = ({}, {})
    try:
        import grp
        import pwd
    except ImportError:  # not on Unix
        return named
    finders: tuple[Callable[[int], str], Callable[[int], str]] = (
        lambda uid: pwd.getpwuid(uid).pw_name,
        lambda gid: grp.getgrgid(gid).gr_name,
    )
    for ids, find, names in zip((users, groups), finders, named, strict=True):
        for number in ids:
            with contextlib.suppress(KeyError, OverflowError):
                names[number] = find(number)
    return named
