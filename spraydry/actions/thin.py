"""Thinning out the versions of roots: retention rules say which are kept, the others are removed."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from spraydry.actions.remove import discard
from spraydry.actions.retention import Candidate, Rules, reasons
from spraydry.errors import UsageError
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


@dataclass(frozen=True)
class Decided:
    """A version, under each of its names that are there (the first one first), and why it is kept; it goes if there is
    no reason."""

    names: tuple[Version, ...]
    kept_by: tuple[str, ...]


def thin(
    repository: Repository, roots: Sequence[str], rules: Rules, *, force: bool = False, dry_run: bool = False
) -> list[Decided]:
    """Remove what the rules do not keep, in each root by itself, under all its names; all versions of the roots, oldest
    first.

    The oldest go first: interrupted, the same rules keep the same versions again. Raises RootNotFound, StoreReadOnly,
    and UsageError where nothing would be kept of a root, unless `force` says that this is meant.
    """
    decided: list[Decided] = []
    for root in dict.fromkeys(roots):
        here = _decide(repository, root, rules)
        if not force and not any(one.kept_by for one in here):
            raise UsageError(
                f"these rules keep none of the {len(here)} versions of {root}: write --force if that is meant"
            )
        decided += here
    if not dry_run:
        discard(repository, [name for one in decided if not one.kept_by for name in one.names])
    return decided


def _decide(repository: Repository, root: str, rules: Rules) -> list[Decided]:
    named: dict[int, list[Version]] = {}
    for version in repository.versions(root):
        named.setdefault(version.made_in, []).append(version)
    versions = [tuple(named[slot]) for slot in sorted(named)]  # one may be left only under a name it got much later
    candidates = [Candidate(tuple(name.name for name in names), made_on(names[0].record.made_ns)) for names in versions]
    kept_by = reasons(candidates, rules)
    return [Decided(names, tuple(why)) for names, why in zip(versions, kept_by, strict=True)]


def made_on(made_ns: int) -> datetime.date:
    """The local date of a time in ns since 1970; any clock may have said any time."""
    return datetime.datetime.fromtimestamp(made_ns // 10**9).date()
