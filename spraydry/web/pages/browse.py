"""A directory's page: its entries, so many at a time, in some order, with what its README says."""

from __future__ import annotations

from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from spraydry.actions.history import distinct
from spraydry.actions.listing import NAME, SIZE, TIME, by_name, ordered, size_of
from spraydry.errors import SprayDryError
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree
from spraydry.format.tree import Tree
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.web.pages.page import Ask, Elsewhere, Page, answered, asked
from spraydry.web.pages.reading import beginning, is_text, lines_of
from spraydry.web.pages.shown import media
from spraydry.web.served import Served

_A_PAGE = 250
_MOST_ORDERED = 10_000  # of a directory in another order than by name
_README_BYTES = 32 << 10
_READMES = (b"README.md", b"README", b"README.txt", b"README.rst", b"readme.md", b"readme.txt", b"Readme.md")
_MOST_VERSIONS = 200
_THUMBNAIL_BYTES = 16 << 20
_PICTURES = 60


async def browse(request: Request, served: Served, found: Found) -> Response:
    """The page of a directory that was found."""

    def make(repository: Repository, ask: Ask) -> Page | Elsewhere:
        return folder(repository, ask, found)

    return await answered(request, asked(request, served), make)


@dataclass(frozen=True)
class Crumb:
    """A directory on the way to what is shown."""

    name: bytes
    path: bytes


def crumbs(path: bytes) -> list[Crumb]:
    """The names on the way to a path, the path's own at the end."""
    parts = path.split(b"/") if path else []
    return [Crumb(part, b"/".join(parts[: place + 1])) for place, part in enumerate(parts)]


@dataclass(frozen=True)
class Around:
    """The versions before and after one, and all names one may change to, the newest first."""

    older: Version | None
    newer: Version | None
    names: list[Version]


def around(repository: Repository, version: Version) -> Around:
    """What is beside a version in its root."""
    line = distinct(repository, version.root)
    place = next((at for at, one in enumerate(line) if one.made_in == version.made_in), len(line) - 1)
    names = repository.versions(version.root)[::-1][:_MOST_VERSIONS]
    if all(one.name != version.name for one in names):
        names.append(version)
    return Around(line[place - 1] if place else None, line[place + 1] if place + 1 < len(line) else None, names)


def folder(repository: Repository, ask: Ask, found: Found) -> Page | Elsewhere:
    """The entries of a directory; another kind of entry has a page elsewhere."""
    ask.grant.require("list", root=found.version.root)
    content = found.entry.content
    if not isinstance(content, Subtree):
        return Elsewhere(ask.links.view(found.version, found.path))
    tree = repository.tree(content)
    by = ask.get("by", NAME)
    by = by if by in (SIZE, TIME) else NAME
    pictures = ask.get("show") == "pictures"
    most = _PICTURES if pictures else _A_PAGE
    page = max(ask.number("page"), 1)
    if by == NAME:
        listed = by_name(
            tree, most, after=ask.path_of("after"), before=ask.path_of("before"), first=ask.path_of("from")
        )
        if not listed.earlier and not listed.later:  # all of it: folders first, as people expect
            listed = replace(listed, entries=sorted(listed.entries, key=lambda entry: entry.kind != DIRECTORY))
    else:
        page = min(page, _MOST_ORDERED // most)
        listed = ordered(tree, by, most, (page - 1) * most, ask.patience)
    may_read = ask.grant.allows("read", root=found.version.root)
    return Page(
        "folder.html",
        {
            "found": found,
            "crumbs": crumbs(found.path),
            "around": around(repository, found.version),
            "listed": listed,
            "size_of": size_of,
            "largest": max(map(size_of, listed.entries), default=0) or 1,
            "below": content,
            "by": by,
            "page": page,
            "last_page": page >= _MOST_ORDERED // most,
            "most_ordered": _MOST_ORDERED,
            "readme": readme(repository, tree) if may_read and not pictures else None,
            "pictures": pictures,
            "pictured": _pictured if may_read else _none_pictured,
            "has_pictures": any(map(_pictured, listed.entries)) and may_read,
            "jump": _jump(tree) if by == NAME and (listed.earlier or listed.later) else [],
        },
    )


def _pictured(entry: Entry) -> bool:
    return entry.kind == FILE and 0 < entry.size <= _THUMBNAIL_BYTES and media(entry.name)[0] == "image"


def _none_pictured(_: Entry) -> bool:
    return False


def _jump(tree: Tree) -> list[bytes]:
    """Names at which the parts of a large directory begin, some of them."""
    top = tree.top()
    if top.leaf:
        return []
    firsts = [item.first for item in top.items]  # type: ignore[union-attr]
    step = max(1, -(-len(firsts) // 24))
    return firsts[::step]


def readme(repository: Repository, tree: Tree) -> tuple[bytes, list[bytes], bool] | None:
    """What a directory says of itself: the name of the file, its lines, whether it has more of them; or None."""
    for name in _READMES:
        found = tree.lookup(name)
        if found is None or found[0].kind != FILE or not found[0].size:
            continue
        try:
            text = beginning(repository, found[0], _README_BYTES)
        except SprayDryError:
            continue  # the listing is worth having without it
        if is_text(text):
            return name, lines_of(text), found[0].size > len(text)
    return None
