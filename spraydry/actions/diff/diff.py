"""What changed from one version to another: added, removed, changed, renamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.actions.compare import Pair, aspects, compare
from spraydry.actions.diff.renames import Renames
from spraydry.actions.diff.sides import Side
from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.repository.repository import Repository

ADDED, REMOVED, CHANGED, RENAMED = "added", "removed", "changed", "renamed"


@dataclass(frozen=True)
class Change:
    """`what` (added, removed, changed or renamed) happened at `path`, which is below what was compared: b"" is that
    itself, if it is a directory; a file has its name.

    `was` is the path before of what was renamed. `aspects` are what differs, as `compare.aspects` has them, both sides
    there; none for a file that was only renamed.
    """

    what: str
    path: bytes
    was: bytes | None
    aspects: tuple[str, ...]
    before: Entry | None
    after: Entry | None


def diff(repository: Repository, before: Side, after: Side, progress: Report = unheard) -> Iterator[Change]:
    """Every change, by path: directories before what is in them. What is the same, by digest, is not read.

    A file is renamed where its content is gone at one path and there at another, preferring those that kept their name;
    it is told at its new path. A directory of which only what lies below changed is no change. The trees are gone
    through twice, for what is renamed is known at the end; memory is bounded, what was added and removed is kept in a
    scratch database meanwhile. Raises CorruptData, ChunkNotFound.
    """

    def pairs(phase: str) -> Iterator[Pair]:
        for number, pair in enumerate(compare(before.entry, after.entry, repository.page, repository.page), 1):
            progress(Done(phase, number, counted="entries"))
            one = pair.after or pair.before
            alone = not pair.path and one is not None and one.kind != DIRECTORY
            yield pair._replace(path=after.name) if alone else pair

    with Renames(pairs("comparing")) as renames:
        for pair in pairs("telling"):
            if pair.before is None or pair.after is None:
                change = _one_sided(pair, renames)
            else:
                change = _two_sided(pair, pair.before, pair.after)
            if change is not None:
                yield change


def _one_sided(pair: Pair, renames: Renames) -> Change | None:
    if pair.after is None:
        return None if renames.moved_away(pair) else Change(REMOVED, pair.path, None, (), pair.before, None)
    if (source := renames.source(pair)) is None:
        return Change(ADDED, pair.path, None, (), None, pair.after)
    was, entry = source
    return Change(RENAMED, pair.path, was, aspects(entry, pair.after), entry, pair.after)


def _two_sided(pair: Pair, before: Entry, after: Entry) -> Change | None:
    differs = aspects(before, after)
    if isinstance(before.content, Subtree) and isinstance(after.content, Subtree):
        differs = tuple(aspect for aspect in differs if aspect != "content")  # told by what is below
    return Change(CHANGED, pair.path, None, differs, before, after) if differs else None
