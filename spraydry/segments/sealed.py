"""The sealed segments of a folder: which there are, and where the newest record of each key is."""

from __future__ import annotations

import os
import re
from binascii import crc32
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

from spraydry.errors import CorruptData
from spraydry.segments.data import scan, sync_mark
from spraydry.segments.files import File
from spraydry.segments.index import SortedIndex, key_hash, write_sorted
from spraydry.segments.layout import MARK, SORTED, VALUE, Damaged, IndexHeader, Row, pack_row, row_of
from spraydry.segments.merge import Block, merged

_MERGE_RATIO = 2  # sorted indexes are merged with the one before unless that has so many times their rows
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

    @cached_property
    def fingerprint(self) -> int:
        """Stands for the set of segments there are."""
        return crc32(repr(self.numbers).encode())

    def newest(self, key: bytes) -> Row | None:
        """The row of the newest record of `key`; None if there is none."""
        hashed = key_hash(key)
        for table in self.tables:
            try:
                packed = table.find(key, hashed)
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

    def sources(self, after: bytes) -> list[Iterator[Block]]:
        """For each sorted index, newest first, its keys greater than `after` with their packed rows."""
        return [self.blocks_of(table, after) for table in self.tables]

    def blocks_of(self, table: SortedIndex, after: bytes = b"") -> Iterator[Block]:
        """The rows of one sorted index."""
        try:
            yield from table.blocks(after)
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

    def counting(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Of sorted rows those that count."""
        there = self._packed_numbers
        for keys, rows in blocks:
            kept = [(row[4] == VALUE and row[8:12] in there) or self.counts(row_of(row)) for row in rows]
            if any(kept):
                yield list(compress(keys, kept)), list(compress(rows, kept))

    @cached_property
    def _packed_numbers(self) -> set[bytes]:
        return {number.to_bytes(4, "little") for number in self.numbers}

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

    def __init__(self, folder: str, memory_bytes: int) -> None:
        self._folder = folder
        self._memory_bytes = memory_bytes // 8  # of one index; the next one has half as many rows, or fewer
        self.rebuilt = 0  # how often an index was made again from its data
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
            table = SortedIndex(File(self.index_path(first, last)), self._memory_bytes)
        except (Damaged, FileNotFoundError):
            return None
        return table if table.header[1:3] == (first, last) else None

    def records_of(self, number: int) -> Iterator[Block]:
        """The keys and packed rows of one segment, to whoever may write."""
        return self.view.blocks_of(self.opened(number, number) or self._rebuilt(number, False))

    def add_number(self, number: int) -> None:
        """A segment was begun."""
        self.view = View((*self.view.numbers, number), self.view.tables, self._mistrusted)

    def sealed(self, number: int, rows: Block) -> View:
        """The view with the index of a segment that is being sealed."""
        tables = [self._written(number, rows, self.index_path(number, number)), *self.view.tables]
        try:
            held, count = tables[0].header.rows, 1
            while count < len(tables) and tables[count].header.rows < _MERGE_RATIO * held:
                held, count = held + tables[count].header.rows, count + 1
            if count > 1:  # all at once: one by one, rows would be written again and again
                tables[:count] = [self._merged(tables[:count])]
        except (Damaged, OSError):
            pass  # whoever meets a damaged row has it made again; without room or permission they stay as many
        return View(self.view.numbers, tuple(tables), self._mistrusted)

    def drop(self, number: int) -> None:
        """Remove the files of a segment in which nothing counts any more."""
        numbers = tuple(there for there in self.view.numbers if there != number)
        tables = tuple(table for table in self.view.tables if table.header[1:3] != (number, number))
        self.view = View(numbers, tables, self._mistrusted)
        # In this order: data without an index are read again, an index without data is a loss.
        with suppress(FileNotFoundError):
            os.unlink(self.index_path(number, number))
        with suppress(FileNotFoundError):
            data = File(self.data_path(number), os.O_WRONLY)
            os.unlink(self.data_path(number))
            os.ftruncate(data.fd, 0)  # gives the room back even where a mount, or an error's trace, has it open

    def data_path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:08d}.data")

    def index_path(self, first: int, last: int) -> str:
        name = f"{first:08d}.index" if first == last else f"{first:08d}-{last:08d}.merged"
        return os.path.join(self._folder, name)

    def _merged(self, tables: list[SortedIndex]) -> SortedIndex:
        """One index instead of several, newest first."""
        view, headers = self.view, [table.header for table in tables]
        first, last = headers[-1].first, headers[0].last
        header = IndexHeader(SORTED, first, last, max(header.key_bytes for header in headers))
        blocks = view.counting(merged([view.blocks_of(table) for table in tables]))
        rows = sum(header.rows for header in headers)
        one = write_sorted(self.index_path(first, last), blocks, header, rows, self._memory_bytes)
        for header in headers:
            if header.first < header.last:
                os.unlink(self.index_path(header.first, header.last))
        return one

    def _written(self, number: int, rows: Block, path: str | None) -> SortedIndex:
        """The index of one segment."""
        header = IndexHeader(SORTED, number, number, max(map(len, rows[0]), default=1))
        return write_sorted(path, [rows] if rows[0] else [], header, len(rows[0]), self._memory_bytes)

    def _rebuilt(self, number: int, read_only: bool) -> SortedIndex:
        """The sorted index of a segment whose own is gone or damaged, from its data; their values are not read."""
        try:
            data = File(self.data_path(number))
        except FileNotFoundError:
            message = f"the data of segment {number} in {self._folder} are missing: remove {number:08d}.index, too, to"
            raise CorruptData(f"{message} go on without it") from None
        newest: dict[bytes, bytes] = {}
        for found in scan(data, number, sync_mark(data, number), verify=False):
            newest[found.key] = pack_row(found.row, found.key)
        keys = sorted(newest)
        path = None if read_only else self.index_path(number, number)
        table = self._written(number, (keys, [newest[key] for key in keys]), path)
        self.rebuilt += 1
        if not read_only:
            self._mistrusted.discard((number, number))
        return table
