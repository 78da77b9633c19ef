"""What happened to one path through the versions of a root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.actions.compare import aspects
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import PathNotFound, UsageError
from spraydry.format.entry import Entry, Subtree
from spraydry.repository.address import parse
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version

APPEARED, CHANGED, VANISHED = "appeared", "changed", "vanished"


@dataclass(frozen=True)
class Event:
    """In `version` the path `what` (appeared, changed or vanished). `entry` is what is there now, None where it
    vanished; `aspects` are those of `compare.aspects` that changed, `content` of a directory what is below it."""

    version: Version
    what: str
    aspects: tuple[str, ...]
    entry: Entry | None


def history(repository: Repository, address: str, progress: Report = unheard) -> Iterator[Event]:
    """The events of `ROOT:PATH`, the oldest first. Versions between two events left it as it was.

    Removed versions are not looked at. Of each version only the directories on the way are read, and of these none that
    is as it was in the version before. Raises UsageError for an address with a version, RootNotFound, and PathNotFound
    where no version holds anything at the path.
    """
    parsed = parse(address)
    if parsed.version is not None:
        raise UsageError(f"the history of {parsed.root} goes through all its versions: leave away @{parsed.version}")
    versions = distinct(repository, parsed.root)
    parts = parsed.path.split(b"/") if parsed.path else []
    way: list[Entry] = []
    seen = False
    for number, version in enumerate(versions, 1):
        before = way[-1] if len(way) > len(parts) else None
        way = _way(repository, version.record.entry, parts, way)
        after = way[-1] if len(way) > len(parts) else None
        progress(Done("looking through versions", number, 0, len(versions), counted="versions"))
        if event := _event(version, before, after):
            seen = True
            yield event
    if not seen:
        raise PathNotFound(f"no version of {parsed.root!r} holds {os.fsdecode(parsed.path)!r}")


def distinct(repository: Repository, root: str) -> list[Version]:
    """The versions of a root in the order in which they were made, each once, under its first name that is still there.

    Raises RootNotFound.
    """
    found: dict[int, Version] = {}
    for version in repository.versions(root):
        found.setdefault(version.made_in, version)
    return [found[slot] for slot in sorted(found)]


def _way(repository: Repository, top: Entry, parts: list[bytes], before: list[Entry]) -> list[Entry]:
    """The entries from the top to the path, as far as there are any. `before` is the same of another version."""
    way = [top]
    for depth, part in enumerate(parts):
        content = way[-1].content
        if not isinstance(content, Subtree):
            break
        other = before[depth].content if depth < len(before) else None
        if isinstance(other, Subtree) and other.digest == content.digest:
            return way + before[depth + 1 :]
        found = repository.tree(content).lookup(part)
        if found is None:
            break
        way.append(found[0])
    return way


def _event(version: Version, before: Entry | None, after: Entry | None) -> Event | None:
    if before is None:
        return None if after is None else Event(version, APPEARED, (), after)
    if after is None:
        return Event(version, VANISHED, (), None)
    differs = aspects(before, after)
    return Event(version, CHANGED, differs, after) if differs else None
