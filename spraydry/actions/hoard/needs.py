"""Which frames need more copies than their class has, for the sake of hoards that have a number of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from spraydry.actions.closure import chunks_of_hoard
from spraydry.actions.hoard.copies import class_of_hoard
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import CorruptData, NotFound
from spraydry.repository.repository import Repository
from spraydry.stores.over.indexes import Names

_TOGETHER = 1000


class Needs:
    """What was in a hoard before its number was set lies in frames of other classes: so many copies as the hoard has
    are needed of each that holds something of it, unless that is in a frame with enough of them, too.

    Memory: 8 bytes for each such frame. `unknown` has the hoards of which it cannot be told, and why.
    """

    def __init__(self, repository: Repository, report: Report = unheard) -> None:
        """Raises StoreErrors."""
        self._by_number: dict[int, Names] = {}
        self.unknown: dict[str, str] = {}
        spread = repository.opened.spread
        if spread is None or not any(name.startswith("hoard-") for name in spread.copies.by_class):
            return
        try:
            repository.refresh()
        except (NotFound, CorruptData) as error:
            self.unknown["*"] = str(error)
        for hoard in repository.log.hoards.names():
            if (frame_class := class_of_hoard(repository, hoard)) is None:
                continue
            number = spread.copies.of_class(frame_class)
            needed = chunks_of_hoard(repository, repository.log.hoards.view(hoard))
            try:
                self._by_number.setdefault(number, Names()).add(_short(repository, needed, number, report))
            except (NotFound, CorruptData) as error:
                self.unknown[hoard] = str(error)
        for names in self._by_number.values():
            names.seal()

    def of(self, frame: str) -> int:
        """How many copies a frame needs (its name in hex); 0 where its class alone says it."""
        raw = bytes.fromhex(frame)
        return max((number for number, names in self._by_number.items() if raw in names), default=0)


def _short(repository: Repository, chunks: Iterable[bytes], number: int, report: Report) -> Iterator[bytes]:
    """The frames that hold these chunks and have fewer copies by their class, each once for some of them."""
    assert repository.opened.spread is not None
    copies, catalog, done = repository.opened.spread.copies, repository.catalog, 0
    rest = iter(chunks)
    while some := set(islice(rest, _TOGETHER)):
        frames: set[bytes] = set()
        for name in some:
            held = [(place.frame, catalog.frame(place.frame)) for place in catalog.chunks.locate(name)]
            if not any(info is not None and copies.of_class(info.frame_class) >= number for _, info in held):
                frames.update(frame for frame, info in held if info is not None)
        done += len(some)
        report(Done("looking through hoards", done, counted="chunks"))
        yield from frames
