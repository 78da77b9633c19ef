"""Which stores a value is put on: weighted rendezvous hashing, and how many copies each class of frames gets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from spraydry.errors import FrameCorrupt
from spraydry.format import frame as frames
from spraydry.format.digest import digest

ID_BYTES = 16
DICTIONARY_CLASS = "dictionary"  # what dictionaries count as
_PREFIX = b"spraydry place "


class Weighted(Protocol):
    """A store as placement sees it: `id` (ID_BYTES) never changes, `weight` (0: no new frames) may."""

    @property
    def id(self) -> bytes: ...

    @property
    def weight(self) -> float: ...


W = TypeVar("W", bound=Weighted)


def score(store: bytes, weight: float, name: str) -> float:
    """How much a store of that id wants a value: -weight / ln(h), h uniform in (0, 1) from a digest of both.

    Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (IEEE/ACM Transactions on Networking 6(1),
    1998): the highest score wins, so another store takes only what it wins and one that goes gives away only its own.
    Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (SPAA 2005), the logarithmic method: with this form
    a store wins in proportion to its weight, and changing one weight moves values only from or to that store.
    """
    if len(store) != ID_BYTES:
        raise ValueError(f"not a store's id: {store!r}")
    front = int.from_bytes(digest(_PREFIX + store + name.encode("ascii"))[:8], "big")
    return -weight / math.log(((front >> 12) + 0.5) / (1 << 52))


def rank(name: str, stores: Iterable[W]) -> list[W]:
    """The stores with a weight, the one that is to have the value `name` first, then those that take its place."""
    scored = [(score(one.id, one.weight, name), one.id, one) for one in stores if one.weight > 0]
    return [one for _, _, one in sorted(scored, key=lambda each: each[:2], reverse=True)]


@dataclass(frozen=True)
class Copies:
    """How many stores have each value: `default`, or what `by_class` says for frames of a class.

    More than there are stores means all of them. Dictionaries are of class "dictionary".
    """

    default: int = 1
    by_class: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.default < 1 or any(number < 1 for number in self.by_class.values()):
            raise ValueError("each value needs at least one copy")

    @property
    def most(self) -> int:
        """The most copies any class has."""
        return max(self.default, *self.by_class.values(), 1)

    def of_class(self, frame_class: str) -> int:
        """The number of copies of frames of that class."""
        return self.by_class.get(frame_class, self.default)

    def of(self, namespace: str, value: bytes) -> int:
        """The number of copies of a value; what is in `frames` but no frame gets the default."""
        if namespace.startswith("dictionaries"):
            return self.of_class(DICTIONARY_CLASS)
        if namespace.startswith("frames"):
            try:
                return self.of_class(frames.header(value).frame_class)
            except FrameCorrupt:
                pass
        return self.default
