"""What an ingest proposes to commit, with the names this machine has for the numbers of owners."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from spraydry.actions.commit import Owners, Proposal
from spraydry.actions.ingest.build import Built
from spraydry.actions.ingest.scan import Findings
from spraydry.repository.writer import Written


def propose(root: str, name: str | None, built: Built, spec: str, findings: Findings, written: Written) -> Proposal:
    """The version that was built; incomplete where something could not be read."""
    users, groups = names_of(findings.users, findings.groups)
    return Proposal(
        root,
        name,
        built.entry,
        built.links,
        spec,
        users,
        groups,
        "ingest",
        bool(findings.problems),
        written.plain_bytes,
        written.stored_bytes,
    )


def names_of(users: Iterable[int], groups: Iterable[int]) -> tuple[Owners, Owners]:
    """Sorted (number, name) of those that have a name here."""
    try:
        import grp
        import pwd
    except ImportError:  # not on Unix
        return (), ()
    return _named(users, lambda uid: pwd.getpwuid(uid).pw_name), _named(groups, lambda gid: grp.getgrgid(gid).gr_name)


def user_number(name: str) -> int:
    """The number of a user of this machine. Raises KeyError."""
    try:
        import pwd
    except ImportError:
        raise KeyError(name) from None
    return pwd.getpwnam(name).pw_uid


def group_number(name: str) -> int:
    """The number of a group of this machine. Raises KeyError."""
    try:
        import grp
    except ImportError:
        raise KeyError(name) from None
    return grp.getgrnam(name).gr_gid


def _named(numbers: Iterable[int], find: Callable[[int], str]) -> Owners:
    named = []
    for number in sorted(set(numbers)):
        with contextlib.suppress(KeyError, OverflowError):
            named.append((number, find(number)))
    return tuple(named)
