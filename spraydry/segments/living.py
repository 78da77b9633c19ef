"""What still lives in sealed segments, and removing those in which nothing does."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.segments.folder import Folder
from spraydry.segments.layout import Row, row_of


class Living:
    """Which records of a folder's sealed segments are the newest of their keys. Blocks; only for who has the right to
    write (`Folder.locked`)."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._known: dict[int, bytes] = {}  # of each segment a key that lived when last looked at
        self._killed_bytes: dict[int, int] = {}  # by this process

    def of(self, number: int) -> Iterator[tuple[bytes, Row]]:
        """The records of a sealed segment which are the newest of their keys and say anything."""
        folder = self._folder
        known = self._known.get(number)  # the key that lived last time tells most often all that is asked
        if known is not None:
            row = folder.newest(known)
            if row is not None and row.segment == number and folder.sealed.view.counts(row):
                yield known, row
        for keys, rows in folder.sealed.records_of(number):
            for key, row in zip(keys, map(row_of, rows), strict=True):
                if key != known and folder.newest(key) == row and folder.sealed.view.counts(row):
                    self._known[number] = key
                    yield key, row

    def drop_dead(self) -> None:
        """Remove the sealed segments in which nothing lives."""
        for number in self.sealed_numbers():
            if self._folder.trusting(lambda number=number: next(self.of(number), None)) is None:  # type: ignore[misc]
                self._folder.drop(number)
                self._known.pop(number, None)
                self._killed_bytes.pop(number, None)

    def sealed_numbers(self) -> tuple[int, ...]:
        """All but the newest, which stays so that no number is used twice."""
        return self._folder.sealed.view.numbers[:-1]

    def killed(self, number: int, size: int) -> None:
        """So many bytes of a segment are of no use any more."""
        self._killed_bytes[number] = self._killed_bytes.get(number, 0) + size

    def is_half_dead(self, number: int) -> bool:
        """Whether this process killed more than half of a segment."""
        killed = self._killed_bytes.get(number, 0)
        return killed > 0 and 2 * killed > self._folder.file(number).size()

    def living_bytes(self, number: int) -> int:
        """What is left of a segment, as far as this process killed it."""
        return self._folder.file(number).size() - self._killed_bytes.get(number, 0)
