"""How storing pays: what deduplication, frames and dictionaries leave of all versions."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.actions.dictionaries import Known, dictionaries
from spraydry.actions.info import info
from spraydry.repository.repository import Repository
from spraydry.web.grant import Refused
from spraydry.web.pages.overview import visible
from spraydry.web.pages.page import Ask, Page


@dataclass(frozen=True)
class Stage:
    """What is left of the bytes behind one way of saving; `share` is its part of those of all versions."""

    name: str
    bytes: int
    share: float
    detail: str


@dataclass(frozen=True)
class Kind:
    """The frames of a class, with and without dictionaries."""

    name: str
    frames: int
    plain_bytes: int
    stored_bytes: int
    with_dictionary: int


def savings(repository: Repository, ask: Ask) -> Page:
    """The sums over everything: for those who may see all roots."""
    if len(visible(repository, ask)) < len(repository.roots()):
        raise Refused("these are sums over all roots, and this token does not show all of them", True)
    told = info(repository)
    whole = told.logical_bytes or 1
    stages = [
        Stage("All versions, side by side", told.logical_bytes, 1.0, "what copying each of them would take"),
        Stage(
            "After deduplication",
            told.plain_bytes,
            told.plain_bytes / whole,
            "each chunk once, however many files and versions have it",
        ),
        Stage(
            "After compression",
            told.stored_bytes,
            told.stored_bytes / whole,
            "similar chunks side by side in frames, with dictionaries where they pay",
        ),
    ]
    kinds: dict[str, list[int]] = {}
    for usage in told.classes:
        sums = kinds.setdefault(usage.frame_class, [0, 0, 0, 0])
        sums[0] += usage.frames
        sums[1] += usage.plain_bytes
        sums[2] += usage.stored_bytes
        sums[3] += usage.frames if usage.dictionary else 0
    return Page(
        "savings.html",
        {
            "told": told,
            "stages": stages,
            "kinds": sorted((Kind(name, *sums) for name, sums in kinds.items()), key=lambda one: -one.stored_bytes),
            "dictionaries": [one for one in dictionaries(repository) if _counts(one)],
            "others": sum(1 for one in dictionaries(repository) if not _counts(one)),
        },
    )


def _counts(one: Known) -> bool:
    return one.stored or bool(one.frames or one.adopted)
