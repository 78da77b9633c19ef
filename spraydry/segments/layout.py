"""The byte layouts of segment files: the head, data records, index rows. Pure: no I/O. Layout: FORMAT.md."""

from __future__ import annotations

import struct
from binascii import crc32
from typing import NamedTuple

from spraydry.format.digest import Buffer, digest

FORMAT = 1
VALUE, MARK = 1, 2  # the kinds of records: a value, and the mark that deletes one
MAX_KEY_BYTES = 232
CHECK_BYTES = 16

HEAD = struct.Struct("<8sIIQI")  # magic, format, max_files, max_file_size, crc32 of what stands before it
HEAD_MAGIC = b"SDrySegs"
GENERATION_AT = 64  # in the head: a counter, odd while the set of files is being changed
GENERATION = struct.Struct("<Q")

DATA_HEADER = struct.Struct("<8sII8sII")  # magic, format, segment, sync mark, zeros, crc32 of what stands before it
DATA_MAGIC = b"SDrySegd"
SYNC_BYTES = 8

RECORD = struct.Struct("<8sBBHIQ16sII")  # sync mark, kind, more, key bytes, first, value bytes, check, zeros, crc32
_RECORD_CRC_AT = RECORD.size - 4

ROW = struct.Struct("<IBBHIIQQ16s")  # crc32, kind, zero, key bytes, segment, first, offset, length, check
INDEX_HEADER = struct.Struct("<8sIIIIIIQ8sII")
INDEX_MAGIC = b"SDrySegi"
OPEN, SORTED = 1, 2  # the kinds of indexes: in the order of the appends, in the order of the keys
FENCE_ROWS = 64

TOTALS = struct.Struct("<QIIQQQI")  # generation, crc32 of segments, open one, its end, values, bytes, crc32
TOTALS_AT = 72  # in the head

_CRC = struct.Struct("<I")
_ROW_HEAD = struct.Struct("<IHH")  # crc32, kind and zero, key bytes
_ROW_FIELDS = struct.Struct("<4xB3xIIQQ16s")  # those of Row


class Damaged(Exception):
    """Bytes of an index are not what was written: it is made again from the data. Never leaves this package."""


RowFields = tuple[int, int, int, int, int, bytes]  # of a Row, where making one for each value would cost too much


class Row(NamedTuple):
    """Where the newest record of a key is: `offset` and `length` of its value in the data file of `segment`.

    `first` is a segment before which no record of the key is. `check` begins the value's digest.
    """

    kind: int
    segment: int
    first: int
    offset: int
    length: int
    check: bytes

    def record_at(self, key: bytes) -> int:
        """Where the record starts in the data file."""
        return self.offset - len(key) - RECORD.size


class Totals(NamedTuple):
    """How many values a folder of segments holds, and their length together."""

    values: int
    bytes: int


def pack_totals(totals: Totals, generation: int, segments: int, open_segment: int, end: int) -> bytes:
    """Totals as the head keeps them, with what tells whether they are still right: the generation, a number that
    stands for the set of segments, the open segment (0: none) and where its last record ends."""
    packed = TOTALS.pack(generation, segments, open_segment, end, *totals, 0)[:-4]
    return packed + _CRC.pack(crc32(packed))


def unpack_totals(packed: bytes) -> Totals | None:
    """None: none are kept."""
    if len(packed) < TOTALS.size or packed[-4:] != _CRC.pack(crc32(packed[:-4])):
        return None
    return Totals(*TOTALS.unpack(packed)[4:6])


class Record(NamedTuple):
    """The header of a record in a data file; `more`: another of the same append follows."""

    kind: int
    more: bool
    first: int
    length: int
    check: bytes
    key: bytes


def check_of(value: Buffer) -> bytes:
    """What tells a value from a damaged one."""
    return digest(value)[:CHECK_BYTES]


def pack_row(row: RowFields, key: bytes) -> bytes:
    """A row as an index holds it, without padding."""
    kind, segment, first, offset, length, check = row
    packed = ROW.pack(0, kind, 0, len(key), segment, first, offset, length, check)[4:] + key
    return _CRC.pack(crc32(packed)) + packed


def row_key(packed: bytes, start: int = 0) -> bytes:
    """The key of the row at `start`. Raises Damaged."""
    if len(packed) < start + ROW.size:
        raise Damaged("a row of an index is cut short")
    crc, _, key_bytes = _ROW_HEAD.unpack_from(packed, start)
    stop = start + ROW.size + key_bytes
    if len(packed) < stop or crc32(packed[start + 4 : stop]) != crc:
        raise Damaged("a row of an index is not whole")
    return packed[start + ROW.size : stop]


def row_of(packed: Buffer, start: int = 0) -> Row:
    """The row at `start`, whose soundness was checked."""
    return Row._make(_ROW_FIELDS.unpack_from(packed, start))


def row_length(packed: bytes) -> int:
    """The length of the value of a row whose soundness was checked."""
    return int.from_bytes(packed[24:32], "little")


def shown_key(key: bytes) -> str:
    """A key in an error."""
    return key.replace(b"\0", b"/").decode("ascii", "backslashreplace")


def pack_record(sync: bytes, kind: int, more: bool, first: int, length: int, check: bytes, key: bytes) -> bytes:
    """What stands before the value in a data file: the fields of a Record."""
    header = RECORD.pack(sync, kind, more, len(key), first, length, check, 0, 0)[:_RECORD_CRC_AT]
    return header + _CRC.pack(crc32(key, crc32(header))) + key


def unpack_record(sync: bytes, packed: Buffer) -> Record | None:
    """The record at the start of `packed` (RECORD.size + MAX_KEY_BYTES bytes, fewer at the end); None: none is."""
    if len(packed) < RECORD.size or packed[:SYNC_BYTES] != sync:
        return None
    _, kind, more, key_bytes, first, length, check, _, crc = RECORD.unpack_from(packed)
    key = bytes(packed[RECORD.size : RECORD.size + key_bytes])
    if len(key) != key_bytes or crc32(key, crc32(packed[:_RECORD_CRC_AT])) != crc:
        return None
    return Record(kind, bool(more), first, length, check, key)


def pack_data_header(segment: int, sync: bytes) -> bytes:
    """How a data file begins."""
    header = DATA_HEADER.pack(DATA_MAGIC, FORMAT, segment, sync, 0, 0)[:-4]
    return header + _CRC.pack(crc32(header))


def unpack_data_header(packed: Buffer) -> bytes | None:
    """The sync mark of a data file; None: its header is damaged."""
    if len(packed) < DATA_HEADER.size:
        return None
    magic, _, _, sync, _, crc = DATA_HEADER.unpack_from(packed)
    return sync if magic == DATA_MAGIC and crc == crc32(packed[: DATA_HEADER.size - 4]) else None


class IndexHeader(NamedTuple):
    """How an index begins. A sorted one covers the segments `first` to `last`; `key_bytes` is the width of its keys,
    `behind_crc` covers what stands behind the rows: the key of each 64th row, and the filter of `filter_bytes`."""

    kind: int
    first: int
    last: int
    key_bytes: int
    rows: int = 0
    sync: bytes = bytes(SYNC_BYTES)
    behind_crc: int = 0
    filter_bytes: int = 0

    @property
    def row_bytes(self) -> int:
        return ROW.size + self.key_bytes

    def pack(self) -> bytes:
        kind, first, last, key_bytes, rows, sync, behind, filtered = self
        header = INDEX_HEADER.pack(INDEX_MAGIC, FORMAT, kind, first, last, key_bytes, filtered, rows, sync, behind, 0)
        return header[:-4] + _CRC.pack(crc32(header[:-4]))


def unpack_index_header(packed: Buffer) -> IndexHeader:
    """Raises Damaged."""
    if len(packed) >= INDEX_HEADER.size:
        magic, _, kind, first, last, key_bytes, filtered, rows, sync, behind, crc = INDEX_HEADER.unpack_from(packed)
        if magic == INDEX_MAGIC and crc == crc32(packed[: INDEX_HEADER.size - 4]):
            return IndexHeader(kind, first, last, key_bytes, rows, sync, behind, filtered)
    raise Damaged("an index does not begin as one")
