"""The walk a restore makes: into directories, out of them, past entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from spraydry.errors import SprayDryError
from spraydry.format.entry import DIRECTORY
from spraydry.repository.address import Found, children
from spraydry.repository.repository import Repository
from spraydry.repository.stream import Part


class Step(NamedTuple):
    """One move: `kind` is `enter` or `leave` (a directory) or `entry`. `parts` is what a file holds, if it was fetched;
    `error` says why a directory's list ends early, or why a file could not be fetched."""

    kind: str
    found: Found
    parts: list[Part] | None = None
    error: SprayDryError | None = None


def steps(repository: Repository, base: Found) -> Iterator[Step]:
    """All moves below a directory, ending with leaving it. What cannot be read of a directory ends its list early."""
    stack = [(base, children(repository, base))]
    while stack:
        found, below = stack[-1]
        try:
            child = next(below, None)
        except SprayDryError as error:
            stack.pop()
            yield Step("leave", found, error=error)
            continue
        if child is None:
            stack.pop()
            yield Step("leave", found)
        elif child.entry.kind == DIRECTORY:
            yield Step("enter", child)
            stack.append((child, children(repository, child)))
        else:
            yield Step("entry", child)
