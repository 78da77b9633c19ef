"""Where the space goes: a directory's entries as areas, and the same as a table."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from spraydry.actions.listing import size_of
from spraydry.actions.space import Largest, Part, largest
from spraydry.actions.space import space as weighed
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.web.pages.browse import around, crumbs
from spraydry.web.pages.page import Ask, Elsewhere, OutOfTime, Page
from spraydry.web.pages.treemap import Box, squarified
from spraydry.web.pages.view import named

SECONDS = 20.0
_MOST = 60
WIDTH, HEIGHT = 960, 480
_MEASURES = ("apparent", "stored", "exclusive")
_HELD = 64


@dataclass(frozen=True)
class Area:
    """An entry's box; None stands for all that are too small to be shown alone. `tint` numbers its colour."""

    entry: Entry | None
    bytes: int
    box: Box
    tint: int


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
            "areas": _areas(parts_shown, entries, by),
            "width": WIDTH,
            "height": HEIGHT,
            "total": sum(_measure(part, by) for part in parts_shown)
            + (entries.others_bytes if by == "apparent" else 0),
        },
    )


def _measure(part: Part, by: str) -> int:
    return {"apparent": part.apparent_bytes, "stored": part.stored_bytes, "exclusive": part.exclusive_bytes}[by]


def _areas(parts: list[Part], entries: Largest, by: str) -> list[Area]:
    sized: list[tuple[int, Entry | None, int]] = [
        (_measure(part, by), part.entry, place % 8) for place, part in enumerate(parts) if _measure(part, by)
    ]
    if by == "apparent" and entries.others_bytes:
        sized.append((entries.others_bytes, None, 8))
    sized.sort(key=lambda one: -one[0])
    boxes = squarified([size for size, _, _ in sized], Box(0, 0, WIDTH, HEIGHT))
    return [
        Area(entry, size, box, tint)
        for (size, entry, tint), box in zip(sized, boxes, strict=True)
        if box.width > 0.5 and box.height > 0.5
    ]


def is_folder(entry: Entry) -> bool:
    """Whether its area leads to its own areas."""
    return entry.kind == DIRECTORY


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
