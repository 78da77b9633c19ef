"""The sealed segments of a folder: which there are, and where the newest record of each key is."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from spraydry.errors import CorruptData
from spraydry.segments.data import scan, sync_mark
from spraydry.segments.files import File
from spraydry.segments.index import SortedIndex, write_sorted
from spraydry.segments.layout import MARK, Damaged, Row, row_of
from spraydry.segments.merge import merged_rows

_MERGE_RATIO = 4  # a sorted index is merged with the one before unless that has so many times its rows
_SINGLE = re.compile(r"([0-9]{8})\.(data|index)")
_MERGED = re.compile(r"([0-9]{8})-([0-9]{8})\.merged")

Cover = tuple[int, int]  # the first and last segment a sorted index covers


@dataclass(frozen=True)
class View:
    """The sealed segments at one moment; never changes, so threads may share it. What reads an index may raise Damaged,
    after the index was put among the `mistrusted`."""

    numbers: tuple[int, ...]  # of all segments there are, the open one too
    tables: tuple[SortedIndex, ...]  # newest first
    mistrusted: set[Cover]

    def newest(self, key: bytes) -> Row | None:
        """The row of the newest record of `key`; None if there is none."""
        for table in self.tables:
            try:
                packed = table.find(key)
            except Damaged:
                self.mistrusted.add(table.header[1:3])
                raise
            if packed is not None:
                row = row_of(packed)
                return row if self.has(row.segment) else None
        return None

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix`, deleted or not."""
        with self._mistrusting():
            return max((key for table in self.tables if (key := table.last(prefix)) is not None), default=None)

    def sources(self, after: bytes) -> list[Iterator[tuple[bytes, bytes]]]:
        """For each sorted index, newest first, its keys greater than `after` with their packed rows."""
        return [self.rows_of(table, after) for table in self.tables]

    def rows_of(self, table: SortedIndex, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The rows of one sorted index."""
        try:
            yield from table.rows(after)
        except Damaged:
            self.mistrusted.add(table.header[1:3])
            raise

    def has(self, number: int) -> bool:
        """Whether there is a segment of that number."""
        place = bisect_left(self.numbers, number)
        return place < len(self.numbers) and self.numbers[place] == number

    def counts(self, row: Row) -> bool:
        """Whether the newest row of a key says anything: a mark only while something older may be there."""
        if row.kind != MARK:
            return self.has(row.segment)
        place = bisect_left(self.numbers, row.first)
        return place < len(self.numbers) and self.numbers[place] < row.segment

    @contextmanager
    def _mistrusting(self) -> Iterator[None]:
        try:
            yield
        except Damaged:
            self.mistrusted.update(table.header[1:3] for table in self.tables)
            raise


class Sealed:
    """The sorted indexes of a folder. `view` is replaced, never changed; every method but those of `view` needs the
    lock between processes and threads."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._mistrusted: set[Cover] = set()
        self.view = View((), (), self._mistrusted)

    def load(self, read_only: bool) -> int | None:
        """Look what files there are, and make again what is missing or damaged of what is derived; the number of the
        open segment, if one is open."""
        data: set[int] = set()
        covers: set[Cover] = set()
        for name in os.listdir(self._folder):
            if match := _SINGLE.fullmatch(name):
                number = int(match[1])
                covers.add((number, number))
                if match[2] == "data":
                    data.add(number)
            elif match := _MERGED.fullmatch(name):
                covers.add((int(match[1]), int(match[2])))
            elif name.endswith(".tmp") and not read_only:
                os.unlink(os.path.join(self._folder, name))
        newest = max(data, default=0)
        open_number, covered = None, 0
        tables: list[SortedIndex] = []
        for first, last in sorted(covers, key=lambda cover: (cover[0], -cover[1])):
            table = self.opened(first, last) if first > covered else None
            if first == last and table is None and first > covered:
                if first == newest:
                    open_number = first
                    continue
                table = self._rebuilt(first, read_only)
            if table is not None:
                tables.insert(0, table)
                covered = last
            elif first < last and not read_only:
                os.unlink(self.index_path(first, last))
                self._mistrusted.discard((first, last))
        numbers = tuple(sorted(first for first, last in covers if first == last))
        self.view = View(numbers, tuple(tables), self._mistrusted)
        return open_number

    def opened(self, first: int, last: int) -> SortedIndex | None:
        """The sorted index of these segments; None if they have none, or a damaged one."""
        if (first, last) in self._mistrusted:
            return None
        try:
            table = SortedIndex(File(self.index_path(first, last)))
        except (Damaged, FileNotFoundError):
            return None
        return table if table.header[1:3] == (first, last) else None

    def records_of(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        """The keys and packed rows of one segment, to whoever may write."""
        return self.view.rows_of(self.opened(number, number) or self._rebuilt(number, False))

    def add_number(self, number: int) -> None:
        """A segment was begun."""
        self.view = View((*self.view.numbers, number), self.view.tables, self._mistrusted)

    def sealed(self, number: int, rows: Iterable[tuple[bytes, bytes]], key_bytes: int) -> View:
        """The view with the index of a segment that is being sealed; `rows` in order of their keys."""
        tables = [write_sorted(self.index_path(number, number), rows, number, number, key_bytes), *self.view.tables]
        try:
            while len(tables) > 1 and tables[1].header.rows < _MERGE_RATIO * tables[0].header.rows:
                tables[:2] = [self._merged(tables[0], tables[1])]
        except (Damaged, OSError):
            pass  # whoever meets a damaged row has it made again; without room or permission they stay as many
        return View(self.view.numbers, tuple(tables), self._mistrusted)

    def drop(self, number: int) -> None:
        """Remove the files of a segment in which nothing counts any more."""
        numbers = tuple(there for there in self.view.numbers if there != number)
        tables = tuple(table for table in self.view.tables if table.header[1:3] != (number, number))
        self.view = View(numbers, tables, self._mistrusted)
        # In this order: data without an index are read again, an index without data is a loss.
        for path in (self.index_path(number, number), self.data_path(number)):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass

    def data_path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:08d}.data")

    def index_path(self, first: int, last: int) -> str:
        name = f"{first:08d}.index" if first == last else f"{first:08d}-{last:08d}.merged"
        return os.path.join(self._folder, name)

    def _merged(self, newer: SortedIndex, older: SortedIndex) -> SortedIndex:
        view = self.view
        first, last = older.header.first, newer.header.last
        width = max(newer.header.key_bytes, older.header.key_bytes)
        rows = merged_rows([view.rows_of(newer), view.rows_of(older)])
        counting = ((key, row) for key, row in rows if view.counts(row_of(row)))
        merged = write_sorted(self.index_path(first, last), counting, first, last, width)
        for header in (newer.header, older.header):
            if header.first < header.last:
                os.unlink(self.index_path(header.first, header.last))
        return merged

    def _rebuilt(self, number: int, read_only: bool) -> SortedIndex:
        """The sorted index of a segment whose own is gone or damaged, from its data; their values are not read."""
        try:
            data = File(self.data_path(number))
        except FileNotFoundError:
            message = f"the data of segment {number} in {self._folder} are missing: remove {number:08d}.index, too, to"
            raise CorruptData(f"{message} go on without it") from None
        newest: dict[bytes, bytes] = {}
        for found in scan(data, number, sync_mark(data, number), verify=False):
            newest[found.key] = found.row.pack(found.key)
        path = None if read_only else self.index_path(number, number)
        table = write_sorted(path, sorted(newest.items()), number, number, max(map(len, newest), default=1))
        if not read_only:
            self._mistrusted.discard((number, number))
        return table
