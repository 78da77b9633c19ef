"""Sorted indexes: rows of fixed width in the order of their keys, and every 64th key again, for finding them."""

from __future__ import annotations

import os
import tempfile
from binascii import crc32
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from spraydry.segments.files import File
from spraydry.segments.layout import INDEX_HEADER, ROW, SORTED, Damaged, IndexHeader, row_key, unpack_index_header

_FENCE = 64  # rows
_READ = 64 * _FENCE  # rows that are read at once when many are wanted
_WRITE_BYTES = 1 << 20


class SortedIndex:
    """A sorted index on disk; memory: one key per 64 rows. Never changes. Blocks; threads may share it.

    Every row is checked when it is used. Raises Damaged when the file is not what was written, also from `rows`.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self.header = header = unpack_index_header(file.read(INDEX_HEADER.size, 0))
        if header.kind != SORTED or header.first > header.last:
            raise Damaged("an index is not sorted")
        self._width = header.row_bytes
        self._fence_count = -(-header.rows // _FENCE)
        fences_at = INDEX_HEADER.size + header.rows * self._width
        if file.size() != fences_at + self._fence_count * header.key_bytes:
            raise Damaged("an index is not as long as it says")
        self._fences = file.read(self._fence_count * header.key_bytes, fences_at)
        if crc32(self._fences) != header.fences_crc:
            raise Damaged("the keys behind the rows of an index are not whole")

    def find(self, key: bytes) -> bytes | None:
        """The packed row of `key`; None if there is none."""
        if len(key) > self.header.key_bytes or (block := self._block(key)) < 0:
            return None
        width = self._width
        rows = self._read(block * _FENCE, _FENCE)
        at = rows.find(key)
        while at >= 0:  # one look at the bytes finds most that are there; only damage or nothing is left to the search
            if at % width == ROW.size and row_key(rows, at - ROW.size) == key:
                return rows[at - ROW.size : at - ROW.size + width]
            at = rows.find(key, at + 1)
        count = len(rows) // width
        place = bisect_left(range(count), key, key=lambda at: row_key(rows, at * width))
        if place < count and row_key(rows, place * width) == key:
            return rows[place * width : (place + 1) * width]
        return None

    def rows(self, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys greater than `after`, in order, each with its packed row."""
        width = self._width
        start, count = max(self._block(after), 0) * _FENCE, _FENCE
        while start < self.header.rows:
            rows = self._read(start, count)
            start, count = start + count, min(2 * count, _READ)
            for at in range(0, len(rows), width):
                key = row_key(rows, at)
                if key > after:
                    yield key, rows[at : at + width]

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix`."""
        block = self._block(prefix + b"\xff")
        found = None
        if block >= 0:
            rows = self._read(block * _FENCE, _FENCE)
            for at in range(0, len(rows), self._width):
                if (key := row_key(rows, at)).startswith(prefix):
                    found = key
        return found

    def _block(self, key: bytes) -> int:
        """The only 64 rows where `key` can be; -1: before all."""
        width, fences = self.header.key_bytes, self._fences
        padded = key.ljust(width, b"\0")
        return bisect_right(range(self._fence_count), padded, key=lambda at: fences[at * width : (at + 1) * width]) - 1

    def _read(self, start: int, count: int) -> bytes:
        count = min(count, self.header.rows - start)
        rows = self._file.read(count * self._width, INDEX_HEADER.size + start * self._width)
        if len(rows) != count * self._width:
            raise Damaged("an index was cut short")
        return rows


def write_sorted(
    path: str | None, rows: Iterable[tuple[bytes, bytes]], first: int, last: int, key_bytes: int
) -> SortedIndex:
    """A new index of `rows` (keys in order, packed rows), durable under its name when this returns; None: a temporary
    one, for who may not write. `key_bytes` is at least the length of the longest key."""
    if path is None:
        scratch, name = tempfile.mkstemp(prefix="spraydry-")
        os.close(scratch)
        file = File(name, os.O_RDWR)
        os.unlink(name)
    else:  # what stays of it after an error is removed by the next who opens the segments
        file = File(path + ".tmp", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    header = IndexHeader(SORTED, first, last, key_bytes)
    at, count, fences, waiting = INDEX_HEADER.size, 0, bytearray(), bytearray()
    for key, row in rows:
        if not count % _FENCE:
            fences += key.ljust(key_bytes, b"\0")
        waiting += row[: header.row_bytes].ljust(header.row_bytes, b"\0")
        count += 1
        if len(waiting) >= _WRITE_BYTES:
            at += file.write([waiting], at)
            waiting = bytearray()
    file.write([waiting, fences], at)
    file.write([header._replace(rows=count, fences_crc=crc32(fences)).pack()], 0)
    if path is not None:
        os.fsync(file.fd)
        os.rename(path + ".tmp", path)
    return SortedIndex(file)
