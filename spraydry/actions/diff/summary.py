"""Changes in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spraydry.actions.diff.diff import ADDED, CHANGED, REMOVED, RENAMED, Change
from spraydry.format.entry import DIRECTORY, FILE


@dataclass
class Counted:
    """How many entries of each kind; `bytes` of the files, as they are after, of those removed as they were before."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0


@dataclass
class Summary:
    """All changes, each counted once: `changed` where content or kind differ, `attributes` where only others do;
    `before_bytes` are those of the changed files as they were."""

    added: Counted = field(default_factory=Counted)
    removed: Counted = field(default_factory=Counted)
    renamed: Counted = field(default_factory=Counted)
    changed: Counted = field(default_factory=Counted)
    attributes: Counted = field(default_factory=Counted)
    before_bytes: int = 0


def summed(changes: Iterable[Change]) -> Summary:
    """Go through all changes and count them."""
    summary = Summary()
    for change in changes:
        counted = {ADDED: summary.added, REMOVED: summary.removed, RENAMED: summary.renamed}.get(change.what)
        if change.what == CHANGED:
            whole = "content" in change.aspects or "kind" in change.aspects
            counted = summary.changed if whole else summary.attributes
            if whole and change.before is not None and change.before.kind == FILE:
                summary.before_bytes += change.before.size
        entry = change.after or change.before
        assert counted is not None and entry is not None
        if entry.kind == FILE:
            counted.files += 1
            counted.bytes += entry.size
        elif entry.kind == DIRECTORY:
            counted.directories += 1
        else:
            counted.others += 1
    return summary
