"""Data files: records one after another, found again by scanning when no index tells where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from spraydry.errors import CorruptData
from spraydry.segments.files import File
from spraydry.segments.layout import (
    DATA_HEADER,
    MAX_KEY_BYTES,
    RECORD,
    SYNC_BYTES,
    Record,
    Row,
    check_of,
    pack_data_header,
    unpack_data_header,
    unpack_record,
)

_SEARCH_BYTES = 1 << 20


class Found(NamedTuple):
    """A record that a scan found: its row, its key, and where it ends in the file."""

    row: Row
    key: bytes
    end: int


def make_data_file(path: str, segment: int) -> None:
    """A new, empty data file; durable, but for its name."""
    file = File(path + ".tmp", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    file.write([pack_data_header(segment, os.urandom(SYNC_BYTES))], 0)
    os.fsync(file.fd)
    os.rename(path + ".tmp", path)


def sync_mark(file: File, segment: int) -> bytes:
    """The random bytes with which each record of this file begins: nobody can put them into a value beforehand, so a
    search for them finds records only. Raises CorruptData."""
    head = file.read(DATA_HEADER.size + RECORD.size + MAX_KEY_BYTES, 0)
    sync = unpack_data_header(head)
    if sync is None:  # the first record has it too
        sync = head[DATA_HEADER.size :][:SYNC_BYTES]
        if unpack_record(sync, head[DATA_HEADER.size :]) is None:
            raise CorruptData(f"segment {segment} begins with damaged bytes: remove its two files to go on without it")
    return sync


def scan(file: File, segment: int, sync: bytes, start: int = 0, *, verify: bool) -> Iterator[Found]:
    """The records from offset `start` on. What is damaged is passed over; an append that is not whole at the end of the
    file counts as never made. With `verify` the values are read, and records of damaged ones passed over."""
    at, size = max(start, DATA_HEADER.size), file.size()
    waiting: list[Found] = []  # of an append whose last record has not come yet
    while at < size:
        record = unpack_record(sync, file.read(RECORD.size + MAX_KEY_BYTES, at))
        end = at + RECORD.size + len(record.key) + record.length if record else 0
        if record is None or end > size:
            at = _search(file, sync, at + 1, size)
            continue
        at = end
        found = _found(file, segment, record, end, verify)
        if found is not None:
            waiting.append(found)
        if not record.more and found is not None:
            yield from waiting
            waiting.clear()


def _found(file: File, segment: int, record: Record, end: int, verify: bool) -> Found | None:
    offset = end - record.length
    if verify and check_of(file.read(record.length, offset)) != record.check:
        return None
    return Found(Row(record.kind, segment, record.first, offset, record.length, record.check), record.key, end)


def _search(file: File, sync: bytes, start: int, size: int) -> int:
    """Where the sync mark is found next; `size` if nowhere."""
    while start < size:
        found = file.read(_SEARCH_BYTES + SYNC_BYTES, start).find(sync)
        if found >= 0:
            return start + found
        start += _SEARCH_BYTES
    return size
