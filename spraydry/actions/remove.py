"""Removing a version, or a second name of one, and taking that back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import spraydry
from spraydry.errors import UsageError, VersionNotFound
from spraydry.format.version import AnyRecord, RemovalRecord, RevokeRecord, TagRecord, VersionRecord
from spraydry.repository.address import parse
from spraydry.repository.log import RECORD_FORMAT, Log, Version
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Removed:
    """What was (or would be) removed or brought back; `other_names` are those under which the same version stays."""

    version: Version
    other_names: list[str]


def remove(repository: Repository, address: str, *, dry_run: bool = False) -> Removed:
    """Take the version `ROOT@VERSION` out of its root. Its name stays used; its bytes stay until they are collected.

    Raises UsageError, RootNotFound, VersionNotFound, StoreReadOnly.
    """
    root, name = _named(repository, address)
    version = repository.log.find(root, name)

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        slot = repository.log.find(root, version.name).slot
        return RemovalRecord(format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_MADE_BY, slot=slot)

    if not dry_run:
        _append(repository, make)
    return Removed(version, _other_names(repository.log, version))


def bring_back(repository: Repository, address: str, *, dry_run: bool = False) -> Removed:
    """Take back the removal of `ROOT@VERSION`. Raises VersionNotFound when no such version was removed."""
    root, name = _named(repository, address)
    slot, _ = _removal(repository.log, root, name)

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        _, removal = _removal(repository.log, root, name)
        return RevokeRecord(format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_MADE_BY, slot=removal)

    if not dry_run:
        _append(repository, make)
    version = repository.log.named_in(slot)
    return Removed(version, _other_names(repository.log, version))


_MADE_BY = f"spraydry {spraydry.__version__} rm"


def _append(repository: Repository, make: Callable[[bytes, int], AnyRecord]) -> None:
    with repository.batch():
        repository.log.append(make)
        repository.remember_head()
    repository.store.flush()


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


def _other_names(log: Log, version: Version) -> list[str]:
    versions = log.versions(version.root)
    return [other.name for other in versions if other.made_in == version.made_in and other.name != version.name]
