"""The open segment: the one that records are appended to, with its index in memory."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from spraydry.errors import CorruptData
from spraydry.format.digest import Buffer
from spraydry.segments.data import scan, sync_mark
from spraydry.segments.files import File
from spraydry.segments.layout import (
    DATA_HEADER,
    FENCE_ROWS,
    INDEX_HEADER,
    MAX_KEY_BYTES,
    OPEN,
    ROW,
    Damaged,
    IndexHeader,
    check_of,
    pack_record,
    pack_row,
    row_key,
    row_of,
    unpack_index_header,
)
from spraydry.segments.merge import Block

_WIDTH = ROW.size + MAX_KEY_BYTES
_READ = 4096  # rows


Write = tuple[int, int, bytes, Buffer]  # a record to append: kind, first (as in Row), key, value


class Tail:
    """The newest segment while it takes records. Not thread-safe: Segments holds its lock.

    Whoever appends holds the lock between processes too; others see what is in the index, which is written behind the
    data, once those are durable.
    """

    def __init__(self, number: int, data: File, index: File) -> None:
        self.number = number
        self.data = data
        self.end = DATA_HEADER.size  # of the last record that is known
        self._index = index
        self.recovered = False  # whether records were found again, all but those that are damaged
        self._rows = 0  # those of the index that are known
        self._pending: list[bytes] = []
        self._durable_end = self.end
        self.entries: dict[bytes, bytes] = {}
        self._order: list[bytes] = []
        self._unordered: list[bytes] = []
        try:
            known = unpack_index_header(index.read(INDEX_HEADER.size, 0)).sync
        except Damaged:
            known = b""
        try:
            self._sync = sync_mark(data, number)
        except CorruptData:
            if not known:
                raise
            self._sync = known
        self.index_sound = known == self._sync

    def load(self) -> bool:
        """Take in what others appended; whether there was something."""
        known = self._rows
        if not self.index_sound or self._index.size() < INDEX_HEADER.size + (known + 1) * _WIDTH:
            return False
        try:
            while rows := self._index.read(_READ * _WIDTH, INDEX_HEADER.size + self._rows * _WIDTH):
                for at in range(0, len(rows), _WIDTH):
                    key, row = row_key(rows, at), row_of(rows, at)
                    if row.segment != self.number or row.record_at(key) < self.end:
                        raise Damaged("a row of an index is of another place")
                    self._add(key, row.offset + row.length, rows[at : at + ROW.size])
                    self._rows += 1
        except Damaged:
            pass  # being written at this moment; what stays so is recovered by the next who holds the lock
        self._durable_end = self.end
        return self._rows > known

    def recover(self, read_only: bool) -> bool:
        """Under the lock: take in what others appended, find again what the index lacks, cut off an append that did
        not come to its end; whether there was something of that."""
        grown = self.load()
        index_end = INDEX_HEADER.size + self._rows * _WIDTH
        if self.data.size() <= self.end and self._index.size() == index_end and self.index_sound:
            return grown
        self.recovered |= self.data.size() > self.end
        for found in scan(self.data, self.number, self._sync, self.end, verify=True):
            packed = pack_row(found.row, found.key)
            self._add(found.key, found.row.offset + found.row.length, packed[: ROW.size])
            if not read_only:
                self._pending.append(packed)
        if not read_only:
            if self.data.size() > self.end:
                os.ftruncate(self.data.fd, self.end)
            os.ftruncate(self._index.fd, index_end)
            header = IndexHeader(OPEN, self.number, self.number, MAX_KEY_BYTES, sync=self._sync)
            self._index.write([header.pack()], 0)
            self.index_sound = True
            self.sync()
            self.publish()
        return True

    def append(self, writes: Sequence[Write]) -> None:
        """Write records that are there together or not at all, durable once `sync` returns."""
        parts: list[Buffer] = []
        rows = []
        at, left, number = self.end, len(writes), self.number
        for kind, first, key, value in writes:
            left -= 1
            length, check = len(value), check_of(value)
            head = pack_record(self._sync, kind, left > 0, first, length, check, key)
            at += len(head)
            rows.append((key, pack_row((kind, number, first, at, length, check), key)))
            at += length
            parts += (head, value)
        try:
            self.data.write(parts, self.end)
        except BaseException:
            os.ftruncate(self.data.fd, self.end)
            raise
        for key, packed in rows:
            self._add(key, at, packed[: ROW.size])
            self._pending.append(packed)

    def sync(self) -> None:
        """Make durable what was appended."""
        if self._pending:
            os.fdatasync(self.data.fd)

    def publish(self) -> None:
        """Show others what was appended and is durable."""
        if self._pending:
            # The index needs no fsync: what a power cut takes from it is found again in the data.
            rows = [row.ljust(_WIDTH, b"\0") for row in self._pending]
            self._index.write(rows, INDEX_HEADER.size + self._rows * _WIDTH)
            self._rows += len(rows)
            self._pending.clear()
            self._durable_end = self.end

    def roll_back(self) -> None:
        """Take back what was appended and not published. The tail must be made anew then."""
        os.ftruncate(self.data.fd, self._durable_end)
        os.ftruncate(self._index.fd, INDEX_HEADER.size + self._rows * _WIDTH)

    def keys(self, prefix: bytes, after: bytes = b"") -> list[bytes]:
        """The keys that begin with `prefix` and are greater than `after`, in order."""
        if self._unordered:
            self._order += self._unordered
            self._order.sort()
            self._unordered.clear()
        start, stop = (bisect_right(self._order, bound) for bound in (max(prefix, after), prefix + b"\xff"))
        return self._order[start:stop]

    def rows(self) -> Block:
        """All keys in order, each with its packed row."""
        keys = self.keys(b"")
        return keys, [self.entries[key] + key for key in keys]

    def blocks(self, prefix: bytes, after: bytes) -> Iterator[Block]:
        """Those of `keys`, each with its row as it is when asked for, without the key behind it."""
        keys, start, count = self.keys(prefix, after), 0, FENCE_ROWS
        while start < len(keys):
            block = keys[start : start + count]
            yield block, [self.entries[key] for key in block]
            start, count = start + count, 2 * count

    def _add(self, key: bytes, end: int, fixed: bytes) -> None:
        if key not in self.entries:
            self._unordered.append(key)
        self.entries[key] = fixed
        self.end = end
