"""Removing versions, or second names of them, and taking that back."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass

import spraydry
from spraydry.actions.fence import append_whole
from spraydry.actions.pardon import pardon
from spraydry.errors import CollectedMeanwhile, UsageError, VersionNotFound
from spraydry.format.version import AnyRecord, RemovalRecord, RevokeRecord, TagRecord, VersionRecord
from spraydry.repository.address import parse
from spraydry.repository.log import RECORD_FORMAT, Log
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


@dataclass(frozen=True)
class Removed:
    """What was (or would be) removed or brought back; `other_names` are those under which the same version stays, or
    is there already."""

    version: Version
    other_names: list[str]


def remove(repository: Repository, addresses: Sequence[str], *, dry_run: bool = False) -> list[Removed]:
    """Take the versions `ROOT@VERSION` out of their roots, all of them or none. Their names stay used; their bytes stay
    until they are collected.

    Raises UsageError, RootNotFound, VersionNotFound, StoreReadOnly.
    """
    log = repository.log
    found = (log.find(*_named(repository, address)) for address in addresses)
    going = {version.slot: version for version in found}
    if not dry_run:
        discard(repository, [*going.values()])
    return [Removed(version, _other_names(log, version, going)) for version in going.values()]


def discard(repository: Repository, versions: Sequence[Version]) -> None:
    """Remove versions, a record each, in this order; those that another writer removed meanwhile are passed over."""
    log = repository.log

    def remover(version: Version) -> Callable[[bytes, int], AnyRecord]:
        def make(previous: bytes, now_ns: int) -> AnyRecord:
            if log.is_removed(version):
                raise _Gone
            return RemovalRecord(
                format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_made_by("rm"), slot=version.slot
            )

        return make

    with repository.committing():
        for version in versions:
            with suppress(_Gone):
                log.append(remover(version))
        repository.remember_head()
    repository.store.flush()


def bring_back(repository: Repository, addresses: Sequence[str], *, dry_run: bool = False) -> list[Removed]:
    """Take back the removals of `ROOT@VERSION`, of all of them or none, and what was condemned of what they need.
    Raises VersionNotFound for what was not removed, or is deleted already."""
    log = repository.log
    found = dict(_removal(log, *_named(repository, address)) for address in addresses)
    records = {version.made_in: version.record for version in map(log.named_in, found)}
    needed = [(record.entry, record.links) for record in records.values()]

    def revoker(slot: int) -> Callable[[bytes, int], AnyRecord]:
        def make(previous: bytes, now_ns: int) -> AnyRecord:
            version = log.named_in(slot)
            _, removal = _removal(log, version.root, version.name)
            return RevokeRecord(
                format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_made_by("undelete"), slot=removal
            )

        return make

    try:
        checked = pardon(repository, needed, dry_run=dry_run)
        for slot in () if dry_run else found:
            append_whole(repository, revoker(slot), needed, checked)
    except CollectedMeanwhile as error:
        names = ", ".join(str(log.named_in(slot)) for slot in found)
        raise VersionNotFound(f"{names} cannot come back: what only this needs is deleted already ({error})") from None
    if not dry_run:
        repository.store.flush()
    return [Removed(version, _other_names(log, version, found)) for version in map(log.named_in, found)]


@dataclass(frozen=True)
class Past:
    """A name of a version that was removed, and when: ns since 1970."""

    version: Version
    removed_ns: int


def removed(repository: Repository, root: str | None = None) -> list[Past]:
    """What was removed from a root, or all of them, and not brought back, in the order it was made in. Raises
    RootNotFound for a root that never was."""
    log = repository.log
    when: dict[int, int] = {}
    ever = False
    for slot, record in enumerate(log.records, 1):
        if isinstance(record, VersionRecord | TagRecord) and root in (None, record.root):
            ever = True
            if log.is_removed(log.named_in(slot)):
                when[slot] = record.made_ns
        elif isinstance(record, RemovalRecord) and record.slot in when:
            when[record.slot] = record.made_ns  # the last one: those before were taken back
    if root is not None and not ever:
        log.find(root)
    return [Past(log.named_in(slot), removed_ns) for slot, removed_ns in when.items()]


class _Gone(Exception):
    pass


def _made_by(verb: str) -> str:
    return f"spraydry {spraydry.__version__} {verb}"


def _named(repository: Repository, address: str) -> tuple[str, str]:
    named = parse(address)
    if named.path or not named.version:
        versions = [version.name for version in repository.log.versions(named.root)][-3:]
        example = f"{named.root}@{versions[-1] if versions else 'v1'}"
        raise UsageError(f"{address!r} is not a version: write ROOT@VERSION, such as {example}")
    return named.root, named.version


def _removal(log: Log, root: str, name: str) -> tuple[int, int]:
    """The slots where a name was made and where it was removed."""
    made = removed = 0
    for slot, record in enumerate(log.records, 1):
        if isinstance(record, VersionRecord | TagRecord) and (record.root, record.name) == (root, name):
            made = slot
        elif isinstance(record, RemovalRecord) and record.slot == made:
            removed = slot
        elif isinstance(record, RevokeRecord) and record.slot == removed:
            removed = 0
    if not removed:
        log.find(root, name)  # says which names there are, if this is none
        raise VersionNotFound(f"{root}@{name} was not removed")
    return made, removed


def _other_names(log: Log, version: Version, besides: Container[int]) -> list[str]:
    """The other names under which a version is there, but for those made in the slots `besides`."""
    same = (other for other in log.versions(version.root) if other.made_in == version.made_in)
    return [other.name for other in same if other.slot != version.slot and other.slot not in besides]
