"""Tagging: a second name, in the same root, for a version that is there."""

from __future__ import annotations

import spraydry
from spraydry.errors import UsageError
from spraydry.format.version import AnyRecord, TagRecord, check_new_name
from spraydry.repository.address import parse
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


def tag(repository: Repository, address: str, name: str, *, verb: str = "tag", dry_run: bool = False) -> Version:
    """Give the version `ROOT[@VERSION]` another name; the version as it was found. The name lasts as long as nobody
    removes it, also when the version's other names are removed. `verb` is what the record says that made it.

    Raises UsageError, RootNotFound, VersionNotFound, VersionExists, StoreReadOnly.
    """
    named = parse(address)
    if named.path:
        raise UsageError(f"{address!r} is not a version: only a whole version can be tagged, written ROOT@VERSION")
    check_new_name(name, "version")
    log = repository.log
    version = log.find(named.root, named.version)
    log.check_unused(version.root, name)

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        found = log.find(version.root, version.name)  # removed meanwhile it may be collected
        log.check_unused(found.root, name)
        return TagRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=now_ns,
            made_by=f"spraydry {spraydry.__version__} {verb}",
            root=found.root,
            name=name,
            slot=found.made_in,
        )

    if not dry_run:
        with repository.committing():
            log.append(make)
            repository.remember_head()
        repository.store.flush()
    return version
