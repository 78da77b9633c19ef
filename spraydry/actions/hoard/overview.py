"""The hoards of a repository, with what they hold."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.repository.keys import Keys
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class HoardInfo:
    """A hoard: how many keys it has, and the bytes of the files these name."""

    name: str
    keys: int
    bytes: int


def hoards(repository: Repository) -> list[HoardInfo]:
    """The hoards that have keys, by name. Looks up each key that was changed since the last checkpoint."""
    found = []
    for name, view in repository.log.hoards.views().items():
        count, size = Keys(view, repository.tree).totals()
        if count:
            found.append(HoardInfo(name, count, size))
    return found
