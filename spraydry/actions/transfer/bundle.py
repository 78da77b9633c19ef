"""Bundles: versions as one file to carry, which is a repository of its own that is only read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from spraydry.actions.joining import check_folder
from spraydry.actions.progress import Report, unheard
from spraydry.actions.transfer.choose import content_name, named
from spraydry.actions.transfer.transfer import Transferred, check, shared_versions, transfer
from spraydry.errors import StoreError, UsageError
from spraydry.repository.bundles import Prerequisite, write_bundle
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.stores.database.files import remove_files
from spraydry.stores.sqlite import SqliteStore


@dataclass(frozen=True)
class Bundled:
    """What is (or would be) in a bundle, the versions it builds on, the bytes of its file (None: it was not made)."""

    transferred: Transferred
    prerequisites: list[str]
    file_bytes: int | None


def bundle(
    source: Repository,
    path: str,
    addresses: Sequence[str],
    *,
    hoards: Sequence[str] = (),
    since: Sequence[str] = (),
    having: Repository | None = None,
    dry_run: bool = False,
    report: Report = unheard,
) -> Bundled:
    """Write versions (ROOT, ROOT@VERSION) and `hoards` to a new file at `path`, without what is in the versions
    `since`, or in those that `having` has, too.

    The file is there whole or not at all. Raises UsageError where one is there already, or its folder is not,
    RootNotFound, VersionNotFound, and as `transfer`.
    """
    if not (addresses or hoards):
        raise UsageError("name what is to be in the bundle: ROOT, ROOT@VERSION, or --hoard HOARD")
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already: name a new file, or remove it first")
    check_folder(os.path.abspath(path))
    versions = check(source, addresses, None, hoards)
    there = _there(source, since, having)
    left_out = {version.made_in for version in there}
    addresses = [str(version) for version in versions if version.made_in not in left_out]
    if not (addresses or hoards):
        raise UsageError("nothing is to be carried: the other side has all of that")
    part = os.path.join(os.path.dirname(os.path.abspath(path)), f".{os.path.basename(path)}.{os.getpid()}.part")
    if dry_run:
        with Repository.open("memory:", create=True) as made:
            done = transfer(source, made, addresses, hoards=hoards, assumed=there, dry_run=True, report=report)
        return Bundled(done, [str(version) for version in there], None)
    remove_files(part)
    try:
        with Repository.open(part, create=True) as made:
            done = transfer(source, made, addresses, hoards=hoards, assumed=there, report=report)
            write_bundle(
                made.store, tuple(Prerequisite(str(version), content_name(version.record)) for version in there)
            )
            assert isinstance(made.opened.owner, SqliteStore)
            made.opened.owner.database.seal()
        _put_in_place(part, path)
    finally:
        remove_files(part)
    return Bundled(done, [str(version) for version in there], os.path.getsize(path))


def _there(source: Repository, since: Sequence[str], having: Repository | None) -> list[Version]:
    found = {version.made_in: version for version in named(source.log, since)} if since else {}
    if having is not None:
        for versions in shared_versions(source.log, having.log).values():
            found |= {version.made_in: version for version in versions}
    return [found[slot] for slot in sorted(found)]


def _put_in_place(part: str, path: str) -> None:
    try:
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.rename(part, path)
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None
