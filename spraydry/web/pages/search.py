"""Searching all versions: for names, or for a text in the files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from itertools import islice

from markupsafe import Markup

from spraydry.actions.contents import Place
from spraydry.actions.find import Query, condition, find
from spraydry.actions.grep import Line, Pattern, grep
from spraydry.errors import RootNotFound, UsageError
from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.web.pages.overview import visible
from spraydry.web.pages.page import Ask, Page, spoken
from spraydry.web.pages.shown import line_shown

SECONDS = 15.0
_MOST = 200
_MOST_PLACES = 4
_MOST_LINES = 6
_MOST_FILE_BYTES = 64 << 20  # of files whose content is searched
_MOST_DOUBLE_STARS = 1  # each tries every place in a path
_AROUND = 160


@dataclass(frozen=True)
class Hit:
    """Something found: where it is, in the first places, and lines of it."""

    entry: Entry
    places: list[Place]
    more_places: bool
    lines: list[tuple[int, Markup]]
    more_lines: bool
    binary: bool
    problem: str | None


def search(repository: Repository, ask: Ask) -> Page:
    """The form, and what was found where something is asked for."""
    roots = visible(repository, ask)
    text = ask.get("q")
    content = ask.get("in") == "content"
    root = ask.get("root")
    context = {
        "q": text,
        "content": content,
        "roots": roots,
        "root": root if root in roots else "",
        "newest": ask.get("newest") == "1",
        "path": ask.get("path"),
        "include": ask.get("include"),
        "case": ask.get("case") == "1",
        "words": ask.get("words") == "1",
        "hits": [],
        "stopped": False,
        "most": _MOST,
        "more": False,
        "seconds": SECONDS,
        "searched": bool(text),
        "wrong": None,
        "largest": _MOST_FILE_BYTES,
    }
    if not text:
        return Page("search.html", context)
    chosen = [root] if root in roots else roots
    if content:
        chosen = [one for one in chosen if ask.grant.allows("read", root=one)]
    if root and root not in roots:
        raise RootNotFound(f"there is no root {root!r} here")
    path = os.fsdecode(ask.path_of("path"))
    version = "@latest" if context["newest"] else ""
    addresses = [f"{one}{version}{f':{path}' if path else ''}" for one in chosen]
    if not addresses:
        return Page("search.html", context)
    try:
        hits = _in_content(repository, ask, addresses, context) if content else _in_names(repository, ask, addresses)
        context["hits"] = hits[:_MOST]
        context["more"] = len(hits) > _MOST
    except UsageError as error:
        context["wrong"] = str(error)
    context["stopped"] = ask.patience.ended
    return Page("search.html", context)


def named(text: str, ignore_case: bool) -> Query:
    """What people type as names: a pattern as `spraydry find` takes, or, without any of `*?[`, what stands anywhere in
    the name, with a slash in the path. Raises UsageError for a pattern that could take for ever."""
    if text.count("**") > _MOST_DOUBLE_STARS:
        raise UsageError("a pattern here has no more than one `**`: `spraydry find` takes any")
    if any(mark in text for mark in "*?["):
        return Query(os.fsencode(text), ignore_case=ignore_case)
    return Query(re.escape(os.fsencode(text)) + (b"" if "/" in text else rb"[^/]*\Z"), True, ignore_case)


def _in_names(repository: Repository, ask: Ask, addresses: list[str]) -> list[Hit]:
    kinds = frozenset(range(1, 8)) if ask.get("folders") == "1" else None
    query = replace(named(ask.get("q"), ask.get("case") != "1"), kinds=kinds)
    hits = []
    for match in find(repository, query, addresses, enough=ask.patience.over):
        places = list(islice(match.places, _MOST_PLACES + 1))
        hits.append(Hit(match.entry, places[:_MOST_PLACES], len(places) > _MOST_PLACES, [], False, False, None))
        if len(hits) > _MOST:
            break
    return hits


def _in_content(repository: Repository, ask: Ask, addresses: list[str], context: dict[str, object]) -> list[Hit]:
    text = ask.get("q")
    case, words = bool(context["case"]), bool(context["words"])
    pattern = Pattern(os.fsencode(text), fixed=True, ignore_case=not case, words=words)
    include = ask.get("include")
    wanted = condition(replace(named(include, True) if include else Query(), most_bytes=_MOST_FILE_BYTES))
    marks = re.compile(re.escape(text), 0 if case else re.IGNORECASE)
    hits = []
    for match in grep(repository, pattern, addresses, wanted=wanted, enough=ask.patience.over):
        places = list(islice(match.places, _MOST_PLACES + 1))
        lines = list(islice(match.lines, _MOST_LINES + 1))
        hits.append(
            Hit(
                match.entry,
                places[:_MOST_PLACES],
                len(places) > _MOST_PLACES,
                [(line.number, _marked(line, marks)) for line in lines[:_MOST_LINES]],
                len(lines) > _MOST_LINES,
                match.binary,
                spoken(repository, match.problem) if match.problem else None,
            )
        )
        if len(hits) > _MOST:
            break
    return hits


def _marked(line: Line, marks: re.Pattern[str]) -> Markup:
    """A line, or what is around the first match in a long one, with what was sought marked."""
    text = line.text.removesuffix(b"\r").decode(errors="surrogateescape")
    first = marks.search(text)
    start = max(first.start() - _AROUND // 2, 0) if first and len(text) > _AROUND * 2 else 0
    part = text[start : start + _AROUND * 2]
    out = Markup("…" if start else "")
    at = 0
    for found in marks.finditer(part):
        out += line_shown(part[at : found.start()]) + Markup("<mark>{}</mark>").format(line_shown(found[0]))
        at = found.end()
    return out + line_shown(part[at:]) + Markup("…" if start + len(part) < len(text) else "")
