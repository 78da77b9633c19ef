"""Comparing: two versions as a list of what changed, two files as lines or pictures side by side."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from spraydry.actions.diff import Change, Side, Summary, diff, sides, summed
from spraydry.actions.diff.lines import Hunk, hunks
from spraydry.actions.history import distinct
from spraydry.errors import UsageError
from spraydry.format.entry import FILE, Entry
from spraydry.repository.address import Address, parse
from spraydry.repository.repository import Repository
from spraydry.web.pages.browse import crumbs
from spraydry.web.pages.page import Ask, OutOfTime, Page
from spraydry.web.pages.reading import beginning, is_text, lines_of
from spraydry.web.pages.shown import media

_A_PAGE = 300
_TEXT_BYTES = 1 << 20
_MOST_LINES = 4000
_WHATS = ("added", "removed", "changed", "renamed")


def compare(repository: Repository, ask: Ask) -> Page:
    """What differs between two versions, or between two files."""
    before, after = _sides(repository, ask)
    context = {
        "before": before,
        "after": after,
        "path": after.path,
        "was": before.path,
        "unified": unified,
        "crumbs": crumbs(after.path),
        "choices": {root: distinct(repository, root)[::-1][:200] for root in {before.version.root, after.version.root}},
    }
    if _is_file(before.entry) or _is_file(after.entry):
        for side in (before, after):
            ask.grant.require("read", root=side.version.root)
        return Page("compare_files.html", {**context, **_files(repository, ask, before, after)})
    return Page("compare.html", {**context, **_listed(repository, ask, before, after)})


def _sides(repository: Repository, ask: Ask) -> tuple[Side, Side]:
    """The two that are asked for; where only one version is named, it and the one before it."""
    path = ask.path_of("path")
    was = ask.path_of("was") or path
    named = [parse(text.partition(":")[0]) for text in (ask.get("from"), ask.get("to")) if text]
    if not named:
        raise UsageError("nothing to compare: choose two versions on a root's page")
    for one in named:
        ask.grant.require("list", root=one.root)
    if len(named) == 1:
        version = repository.log.find(named[0].root, named[0].version)
        line = distinct(repository, version.root)
        place = next((at for at, one in enumerate(line) if one.made_in == version.made_in), 0)
        if not place:
            raise UsageError(f"{version} is the first version of its root: there is none before it to compare with")
        named = [Address(version.root, line[place - 1].name), Address(version.root, version.name)]
    if was != path:
        before, _ = sides(repository, [str(named[0]), str(named[0]), f":{os.fsdecode(was)}"])
        _, after = sides(repository, [str(named[1]), str(named[1]), f":{os.fsdecode(path)}"])
        return before, after
    return sides(repository, [str(named[0]), str(named[1]), f":{os.fsdecode(path)}"])


def _is_file(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == FILE


# -- versions


def _listed(repository: Repository, ask: Ask, before: Side, after: Side) -> dict[str, object]:
    """Changes of the kinds asked for, so many at a time, and the sums of all, where there was time for all."""
    only = ask.get("only")
    only = only if only in _WHATS else ""
    skip = ask.number("skip")
    changes: list[Change] = []
    counts: Counter[str] = Counter()
    summary: Summary | None = None
    more = stopped = False

    def noted() -> Iterator[Change]:
        nonlocal more
        for change in diff(repository, before, after, ask.patience):
            counts[change.what] += 1
            if not only or change.what == only:
                place = (counts[only] if only else counts.total()) - 1
                if skip <= place < skip + _A_PAGE:
                    changes.append(change)
                more = more or place >= skip + _A_PAGE
            yield change

    try:
        summary = summed(noted())
    except OutOfTime:
        stopped = True
    return {
        "changes": changes,
        "summary": summary,
        "counts": counts,
        "only": only,
        "skip": skip,
        "a_page": _A_PAGE,
        "more": more,
        "stopped": stopped,
    }


# -- files


@dataclass(frozen=True)
class Row:
    """A line on both sides, as far as it is there; `kind` is same, changed, added or removed."""

    kind: str
    old: int | None
    old_text: bytes
    new: int | None
    new_text: bytes


def _files(repository: Repository, ask: Ask, before: Side, after: Side) -> dict[str, object]:
    told: dict[str, object] = {"kind": "other", "split": ask.get("view") != "unified", "hunks": [], "clipped": False}
    files = [side.entry for side in (before, after) if side.entry is not None and side.entry.kind == FILE]
    same = len(files) == 2 and files[0].file_digest is not None and files[0].file_digest == files[1].file_digest
    told["same"] = same
    if all(media(side.name)[0] == "image" for side in (before, after)):
        told["kind"] = "image"
    if same or told["kind"] == "image":
        return told
    if any(entry.size > _TEXT_BYTES for entry in files):
        return {**told, "kind": "large"}
    texts = [
        beginning(repository, side.entry, _TEXT_BYTES) if side.entry is not None and side.entry.kind == FILE else b""
        for side in (before, after)
    ]
    if not all(map(is_text, texts)):
        return told
    old, new = map(lines_of, texts)
    found: list[tuple[Hunk, list[Row]]] = []
    left = _MOST_LINES
    for hunk in hunks(old, new):
        if left <= 0:
            told["clipped"] = True
            break
        found.append((hunk, list(islice(rows_of(hunk), left))))
        left -= len(hunk.lines)
    counts = Counter(line[:1] for hunk, _ in found for line in hunk.lines)
    return {**told, "kind": "text", "hunks": found, "plus": counts[b"+"], "minus": counts[b"-"]}


def rows_of(hunk: Hunk) -> Iterator[Row]:
    """A hunk's lines side by side: what was removed stands beside what was added in its place."""
    old, new = hunk.old, hunk.new
    gone: list[bytes] = []
    came: list[bytes] = []

    def flush() -> Iterator[Row]:
        nonlocal old, new
        for place in range(max(len(gone), len(came))):
            has_old, has_new = place < len(gone), place < len(came)
            old += has_old
            new += has_new
            yield Row(
                "changed" if has_old and has_new else "removed" if has_old else "added",
                old if has_old else None,
                gone[place] if has_old else b"",
                new if has_new else None,
                came[place] if has_new else b"",
            )
        gone.clear()
        came.clear()

    for line in hunk.lines:
        if line[:1] == b"-":
            gone.append(line[1:])
        elif line[:1] == b"+":
            came.append(line[1:])
        else:
            yield from flush()
            old, new = old + 1, new + 1
            yield Row("same", old, line[1:], new, line[1:])
    yield from flush()


def unified(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows as lines below each other: removed ones before those in their place."""
    waiting: list[Row] = []
    for row in rows:
        if row.kind == "same":
            yield from waiting
            waiting.clear()
            yield row
            continue
        if row.old is not None:
            yield Row("removed", row.old, row.old_text, None, b"")
        if row.new is not None:
            waiting.append(Row("added", None, b"", row.new, row.new_text))
    yield from waiting
