"""Where the space goes: a directory's entries as areas, and the same as a table."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

from spraydry.actions.listing import size_of
from spraydry.actions.space import Largest, Part, largest
from spraydry.actions.space import space as weighed
from spraydry.format.entry import Entry, Subtree
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.web.pages.browse import around, crumbs
from spraydry.web.pages.links import below_of
from spraydry.web.pages.page import Ask, Elsewhere, OutOfTime, Page
from spraydry.web.pages.treemap import Box, squarified
from spraydry.web.pages.view import named

SECONDS = 20.0
_MOST = 60
WIDTH, HEIGHT = 960, 480
_TINTS = 8
_LEAST = 1.0  # of a side that can be seen
_MOST_INNER = 24
_MOST_INNER_INODES = 50_000
_MEASURES = ("apparent", "stored", "exclusive")
_HELD = 64


@dataclass(frozen=True)
class Area:
    """An entry's box; None stands for all that are too small to be shown alone. `tint` numbers its colour, `inner` are
    the boxes of what is in it, where there is room for them."""

    entry: Entry | None
    path: bytes
    bytes: int
    box: Box
    tint: int
    inner: tuple[Area, ...] = ()


def space(repository: Repository, ask: Ask) -> Page | Elsewhere:
    """The page of a directory; what its entries take alone is counted where it is asked for."""
    found = named(repository, ask, "list")
    if not isinstance(found.entry.content, Subtree):
        return Elsewhere(ask.links.view(found.version, found.path))
    by = ask.get("by")
    by = by if by in _MEASURES else "apparent"
    entries = largest(repository, found, _MOST)
    parts, stopped = _counted.get(_key(repository, found)), False
    if parts is None and by != "apparent":
        try:
            parts = weighed(repository, found, entries.entries, ask.patience)
            _counted.keep(_key(repository, found), parts)
        except OutOfTime:
            stopped = True
    if parts is None:
        by = "apparent"
        parts_shown = [Part(entry, size_of(entry), 0, 0) for entry in entries.entries]
    else:
        parts_shown = parts
    return Page(
        "space.html",
        {
            "found": found,
            "crumbs": crumbs(found.path),
            "around": around(repository, found.version),
            "by": by,
            "counted": parts is not None,
            "stopped": stopped,
            "seconds": SECONDS,
            "parts": sorted(parts_shown, key=lambda part: -_measure(part, by)),
            "largest": entries,
            "areas": _areas(repository, found, parts_shown, entries, by),
            "width": WIDTH,
            "height": HEIGHT,
            "total": sum(_measure(part, by) for part in parts_shown)
            + (entries.others_bytes if by == "apparent" else 0),
        },
    )


def _measure(part: Part, by: str) -> int:
    return {"apparent": part.apparent_bytes, "stored": part.stored_bytes, "exclusive": part.exclusive_bytes}[by]


def _areas(repository: Repository, found: Found, parts: list[Part], entries: Largest, by: str) -> list[Area]:
    sized: list[tuple[int, Entry | None, int]] = [
        (_measure(part, by), part.entry, place % _TINTS) for place, part in enumerate(parts) if _measure(part, by)
    ]
    if by == "apparent" and entries.others_bytes:
        sized.append((entries.others_bytes, None, 0))
    areas = _laid_out(found.path, sized, Box(0, 0, WIDTH, HEIGHT))
    return [_filled(repository, found, area) if by == "apparent" else area for area in areas]


def _laid_out(path: bytes, sized: list[tuple[int, Entry | None, int]], whole: Box) -> list[Area]:
    sized = sorted(sized, key=lambda one: -one[0])
    boxes = squarified([size for size, _, _ in sized], whole)
    return [
        Area(entry, below_of(path, entry.name) if entry else b"", size, box, tint)
        for (size, entry, tint), box in zip(sized, boxes, strict=True)
        if box.width > _LEAST and box.height > _LEAST
    ]


def _filled(repository: Repository, found: Found, area: Area) -> Area:
    """An area with those of what is in it, if it is a directory with room for them and not too long to look at."""
    box, entry = area.box, area.entry
    if entry is None or not isinstance(entry.content, Subtree) or entry.content.inodes > _MOST_INNER_INODES:
        return area
    inside = Box(box.x + 5, box.y + 44, box.width - 10, box.height - 49)
    if inside.width < 60 or inside.height < 40:
        return area
    within = largest(repository, Found(found.version, area.path, entry, 0), _MOST_INNER)
    sized: list[tuple[int, Entry | None, int]] = [(size_of(one), one, area.tint) for one in within.entries]
    if within.others_bytes:
        sized.append((within.others_bytes, None, area.tint))
    return replace(area, inner=tuple(_laid_out(area.path, sized, inside)))


class _Counted:
    """What was counted, for as long as nothing was committed since. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[object, list[Part]] = OrderedDict()

    def get(self, key: object) -> list[Part] | None:
        with self._lock:
            return self._held.get(key)

    def keep(self, key: object, parts: list[Part]) -> None:
        with self._lock:
            self._held[key] = parts
            if len(self._held) > _HELD:
                self._held.popitem(last=False)


_counted = _Counted()


def _key(repository: Repository, found: Found) -> object:
    return repository.config.repository, repository.log.head, found.version.made_in, found.path
