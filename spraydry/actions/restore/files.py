"""Writing what files hold: read ahead in threads, verified, holes left as holes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from spraydry.errors import CorruptData
from spraydry.format.digest import hasher
from spraydry.format.entry import FILE, Entry, Runs
from spraydry.repository.stream import Part, ReadChunk
from spraydry.repository.stream import parts as parts_of

# Files up to this size are read whole, ahead, many at once; of longer ones the frames are, and when such a file begins
# a distant store has nothing else to do.
AHEAD_BYTES = 4 << 20
_ZEROS = bytes(1 << 20)
_MAX_HASHED_HOLES_BYTES = 1 << 30  # of holes beyond this the chunks' own names must do, or zeros are hashed for hours


def fetch(entry: Entry, read_chunk: ReadChunk) -> list[Part] | None:
    """All of a short file, verified; None for a long one and for what is no file."""
    if entry.kind != FILE or entry.size > AHEAD_BYTES:
        return None
    return list(parts_of(entry, read_chunk))


def write(fd: int, entry: Entry, parts: Iterable[Part], wrote: Callable[[int], None]) -> None:
    """Fill a new file with its parts; `wrote` hears of the length of each.

    Raises CorruptData where the bytes are not those of the file's digest.
    """
    whole = hasher() if _wants_hash(entry) else None
    end = 0
    for span, chunk in parts:
        if span.offset != end:
            raise CorruptData("a file's chunks do not follow each other")
        end += span.length
        if chunk is not None:
            _write_all(fd, chunk, span.offset)
        if whole is not None:
            for piece in _zeros(span.length) if chunk is None else (chunk,):
                whole.update(piece)
        wrote(span.length)
    if end != entry.size:
        raise CorruptData("a file's chunks do not add up to its size")
    if whole is not None and whole.digest() != entry.file_digest:
        raise CorruptData("a file's chunks are whole, but together they are not what its digest names")
    os.ftruncate(fd, entry.size)


def _wants_hash(entry: Entry) -> bool:
    """A file of one chunk was verified by that chunk's name."""
    runs = entry.content
    return isinstance(runs, Runs) and runs.digest is not None and entry.size - runs.filled <= _MAX_HASHED_HOLES_BYTES


def _write_all(fd: int, chunk: memoryview, offset: int) -> None:
    while chunk:
        count = os.pwrite(fd, chunk, offset)
        chunk, offset = chunk[count:], offset + count


def _zeros(length: int) -> Iterator[memoryview]:
    for at in range(0, length, len(_ZEROS)):
        yield memoryview(_ZEROS)[: length - at]
