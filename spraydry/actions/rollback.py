"""Rolling back: a new version of a root that is equal to an old one."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.actions.commit import Proposal, commit, same
from spraydry.errors import UsageError
from spraydry.format.version import check_new_name
from spraydry.repository.address import parse
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


@dataclass(frozen=True)
class RolledBack:
    """`old` is what the root is like now. `version` is the one that stands for it, None in a dry run that would make
    one; `new` unless the newest version was equal, `named` if that one got another name."""

    old: Version
    version: Version | None
    new: bool
    named: bool


def rollback(repository: Repository, address: str, *, name: str | None = None, dry_run: bool = False) -> RolledBack:
    """Make the version `ROOT@VERSION` the newest one again, as a new version (`name`: its name); nothing is stored for
    that, and no version in between is lost.

    Raises UsageError, RootNotFound, VersionNotFound, VersionExists, StoreReadOnly.
    """
    named = parse(address)
    if named.path or named.version is None:
        raise UsageError(f"{address!r} is not a version: write ROOT@VERSION, such as {named.root}@v1")
    log = repository.log
    began_at = log.head[0]
    old = log.find(named.root, named.version)
    if name is not None:
        check_new_name(name, "version")
        log.check_unused(old.root, name)
    record = old.record
    proposal = Proposal(
        root=old.root,
        name=name,
        entry=record.entry,
        links=record.links,
        spec=record.spec,
        users=record.users,
        groups=record.groups,
        verb="rollback",
        incomplete=record.incomplete,
    )
    if dry_run:
        newest = log.find(old.root)
        new = not same(newest, proposal)
        return RolledBack(old, None if new or name else newest, new, not new and name is not None)
    committed = commit(repository, proposal, began_at)
    repository.store.flush()
    return RolledBack(old, committed.version, committed.new, committed.named and not committed.new)
