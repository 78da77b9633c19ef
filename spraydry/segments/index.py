"""Sorted indexes: rows of fixed width in the order of their keys, every 64th key again, for finding them, and a filter
that tells of most keys which are not there that they are not."""

from __future__ import annotations

import os
import tempfile
from binascii import crc32
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from spraydry.segments.files import File
from spraydry.segments.layout import (
    FENCE_ROWS,
    INDEX_HEADER,
    ROW,
    SORTED,
    Damaged,
    IndexHeader,
    row_key,
    unpack_index_header,
)
from spraydry.segments.merge import Block

_FIRST_READ, _MOST_READ = 4, 1024  # rows that are read at once, twice as many each time: perhaps few are wanted
_IO_BYTES = 1 << 20
_FILTER_BYTES = 2  # for each row: of 70 keys that are not there, one is searched for
_GOLDEN = 0x9E3779B97F4A7C15  # spreads a hash over more bits
_OBJECT_BYTES = 48  # what a key in memory takes beside its bytes


def key_hash(key: bytes) -> int:
    """What a filter knows a key by."""
    return crc32(key)


class SortedIndex:
    """A sorted index on disk. Never changes. Blocks; threads may share it.

    Memory: 2 bytes a row for the filter, and one key per 64 rows; where that is more than `memory_bytes`, no filter and
    fewer keys. Every row is checked when it is used. Raises Damaged when the file is not what was written, also from
    `blocks`.
    """

    def __init__(self, file: File, memory_bytes: int) -> None:
        self._file = file
        self.header = header = unpack_index_header(file.read(INDEX_HEADER.size, 0))
        if header.kind != SORTED or header.first > header.last:
            raise Damaged("an index is not sorted")
        self._width = header.row_bytes
        count = -(-header.rows // FENCE_ROWS)
        at = INDEX_HEADER.size + header.rows * self._width
        if file.size() != at + count * header.key_bytes + header.filter_bytes:
            raise Damaged("an index is not as long as it says")
        step = 1
        while -(-count // step) * (header.key_bytes + _OBJECT_BYTES) > memory_bytes and step < count:
            step *= 2
        self._block_rows = FENCE_ROWS * step
        self._fences: list[bytes] = []
        crc, width, left = 0, header.key_bytes, count
        most = max(_IO_BYTES // width // step, 1) * step
        while left:
            packed = file.read(min(left, most) * width, at)
            crc = crc32(packed, crc)
            self._fences += [
                packed[place : place + width].rstrip(b"\0") for place in range(0, len(packed), width * step)
            ]
            at, left = at + len(packed), left - min(left, most)
        keep = header.filter_bytes + len(self._fences) * (width + _OBJECT_BYTES) <= memory_bytes
        kept = bytearray()
        while at < file.size():
            packed = file.read(_IO_BYTES, at)
            crc = crc32(packed, crc)
            kept += packed if keep else b""
            at += len(packed)
        if crc != header.behind_crc:
            raise Damaged("what stands behind the rows of an index is not whole")
        self._filter = bytes(kept)
        self._filter_bits = 8 * len(kept)

    def find(self, key: bytes, hashed: int) -> bytes | None:
        """The packed row of `key`, whose `key_hash` is `hashed`; None if there is none."""
        if bits := self._filter_bits:
            bit = hashed % bits
            if not self._filter[bit >> 3] >> (bit & 7) & 1:
                return None
            bit = (hashed * _GOLDEN >> 32) % bits
            if not self._filter[bit >> 3] >> (bit & 7) & 1:
                return None
        if len(key) > self.header.key_bytes or (block := bisect_right(self._fences, key) - 1) < 0:
            return None
        width = self._width
        rows = self._read(block * self._block_rows, self._block_rows)
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

    def blocks(self, after: bytes = b"") -> Iterator[Block]:
        """Keys greater than `after`, in order, each with its packed row."""
        width = self._width
        start, count = 0, _FIRST_READ
        if (block := bisect_right(self._fences, after) - 1) >= 0:
            start = block * self._block_rows
            rows = self._read(start, self._block_rows)
            start += bisect_right(range(len(rows) // width), after, key=lambda at: row_key(rows, at * width))
        while start < self.header.rows:
            read = self._read(start, count)
            start, count = start + count, min(2 * count, _MOST_READ)
            packed = [read[at : at + width] for at in range(0, len(read), width)]
            yield list(map(row_key, packed)), packed

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix`."""
        block = bisect_right(self._fences, prefix + b"\xff") - 1
        found = None
        if block >= 0:
            rows = self._read(block * self._block_rows, self._block_rows)
            for at in range(0, len(rows), self._width):
                if (key := row_key(rows, at)).startswith(prefix):
                    found = key
        return found

    def _read(self, start: int, count: int) -> bytes:
        count = min(count, self.header.rows - start)
        rows = self._file.read(count * self._width, INDEX_HEADER.size + start * self._width)
        if len(rows) != count * self._width:
            raise Damaged("an index was cut short")
        return rows


def write_sorted(
    path: str | None, blocks: Iterable[Block], header: IndexHeader, most_rows: int, memory_bytes: int
) -> SortedIndex:
    """A new index of `blocks` (at most `most_rows` rows), durable under its name when this returns; None: a temporary
    one, for who may not write. Of `header` the numbers of rows and checks are filled in."""
    if path is None:
        scratch, name = tempfile.mkstemp(prefix="spraydry-")
        os.close(scratch)
        file = File(name, os.O_RDWR)
        os.unlink(name)
    else:  # what stays of it after an error is removed by the next who opens the segments
        file = File(path + ".tmp", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    width = header.row_bytes
    at, count, fences, waiting = INDEX_HEADER.size, 0, bytearray(), bytearray()
    filter_bytes = _FILTER_BYTES * most_rows
    bits = bytearray(filter_bytes if filter_bytes <= memory_bytes else 0)
    for keys, rows in blocks:
        waiting += b"".join([row if len(row) == width else row[:width].ljust(width, b"\0") for row in rows])
        fences += b"".join([key.ljust(header.key_bytes, b"\0") for key in keys[-count % FENCE_ROWS :: FENCE_ROWS]])
        if bits:
            for hashed in map(key_hash, keys):
                bit = hashed % (8 * filter_bytes)
                bits[bit >> 3] |= 1 << (bit & 7)
                bit = (hashed * _GOLDEN >> 32) % (8 * filter_bytes)
                bits[bit >> 3] |= 1 << (bit & 7)
        count += len(keys)
        if len(waiting) >= _IO_BYTES:
            at += file.write([waiting], at)
            waiting = bytearray()
    behind_crc = crc32(bits, crc32(fences))
    file.write([waiting, fences, bits], at)
    file.write([header._replace(rows=count, filter_bytes=len(bits), behind_crc=behind_crc).pack()], 0)
    if path is not None:
        os.fsync(file.fd)
        os.rename(path + ".tmp", path)
    return SortedIndex(file, memory_bytes)
