"""A file's page: what it looks like, as far as that can be shown safely, and all there is to know of it."""

from __future__ import annotations

import os
import posixpath
from functools import cache

from spraydry.actions.describe import describe
from spraydry.actions.spread import spread
from spraydry.errors import SprayDryError
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Entry
from spraydry.repository.address import Address, Found, resolve
from spraydry.repository.repository import Repository
from spraydry.repository.xattrs import xattrs_of
from spraydry.web.pages.browse import around, crumbs
from spraydry.web.pages.page import Ask, Elsewhere, Page, spoken
from spraydry.web.pages.painting import MOST_BYTES, Painted, Painter
from spraydry.web.pages.reading import beginning, is_text, lines_of
from spraydry.web.pages.shown import media

_TEXT_BYTES = 512 << 10  # shown of a longer one
_MOST_LINES = 8000
MOST_CHUNKS = 200_000  # looked up, of a file of about 12 GiB


def named(repository: Repository, ask: Ask, right: str = "read") -> Found:
    """What the rest of the path names; the newest version where it names none."""
    front, path = ask.address
    root, _, version = front.partition("@")
    ask.grant.require("list" if right == "list" else "read", root=root)
    return resolve(repository, Address(root, version or None, path))


def view(repository: Repository, ask: Ask) -> Page | Elsewhere:
    """The page of a file or of anything that is no directory."""
    found = named(repository, ask)
    entry = found.entry
    if entry.kind == DIRECTORY:
        return Elsewhere(ask.links.folder(found.version, found.path))
    problem = None
    shown: dict[str, object] = {"kind": "", "lines": [], "painted": None, "language": "", "clipped": False}
    located = None
    try:
        if entry.kind == FILE:
            shown.update(preview(repository, entry, name_of(found)))
            located = spread(repository, entry, MOST_CHUNKS, ask.patience)
    except SprayDryError as error:
        problem = spoken(repository, str(error))
    return Page(
        "view.html",
        {
            "found": found,
            "crumbs": crumbs(found.path),
            "around": around(repository, found.version),
            "told": describe(found, found.path),
            "spread": located,
            "xattrs": _xattrs(repository, entry),
            "target": _target(repository, found),
            "problem": problem,
            **shown,
        },
    )


def preview(repository: Repository, entry: Entry, name: bytes) -> dict[str, object]:
    """What a template shows of a file that is called `name`: its `kind`, and the lines of what is text. Raises
    CorruptData, ChunkNotFound."""
    kind, ending = media(name)
    if kind and ending != "svg":
        return {"kind": kind}
    start = beginning(repository, entry, _TEXT_BYTES)
    if not start:
        return {"kind": "empty"}
    if not is_text(start):
        return {"kind": kind}
    lines = lines_of(start)
    clipped = len(start) < entry.size or len(lines) > _MOST_LINES
    lines = lines[:_MOST_LINES]
    painted = None if len(start) > MOST_BYTES or kind else painted_lines(name, lines)
    return {
        "kind": kind or "text",
        "lines": lines,
        "language": painted[0] if painted else "",
        "painted": painted[1] if painted else None,
        "clipped": clipped,
    }


def painted_lines(name: bytes, lines: list[bytes]) -> tuple[str, Painted] | None:
    """The language of a text, and its lines in colours."""
    texts = [line.decode(errors="surrogateescape") for line in lines]
    if any(not text.isprintable() and not text.replace("\t", " ").isprintable() for text in texts):
        return None  # what is not printable is shown as escapes, which no lexer knows
    # By these very bytes: what an entry says of its digest may have been said to see what others' files look like.
    return painter().paint(os.fsdecode(name), digest(b"\n".join(lines)), texts)


@cache
def painter() -> Painter:
    """The one of this process."""
    return Painter()


def name_of(found: Found) -> bytes:
    """The last name of a path, or the root's."""
    return found.path.rpartition(b"/")[2] or found.version.root.encode()


def _xattrs(repository: Repository, entry: Entry) -> list[tuple[bytes, bytes]]:
    try:
        return [(name, value[:200]) for name, value in xattrs_of(entry, repository.read_chunk)]
    except SprayDryError:
        return []


def _target(repository: Repository, found: Found) -> Found | None:
    """What a symlink leads to in its version; None where that is outside or not there."""
    entry = found.entry
    if entry.kind != SYMLINK or not isinstance(entry.content, bytes) or entry.content.startswith(b"/"):
        return None
    path = posixpath.normpath(posixpath.join(b"/" + posixpath.dirname(found.path), entry.content)).strip(b"/")
    up = entry.content.split(b"/").count(b"..")
    if up > found.path.count(b"/"):
        return None
    try:
        return resolve(repository, Address(found.version.root, found.version.name, path))
    except SprayDryError:
        return None
