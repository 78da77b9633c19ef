"""What a file of a version holds: its spans, each verified, and a seekable binary stream over them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from spraydry.errors import CorruptData, UsageError
from spraydry.format.digest import hasher
from spraydry.format.entry import FILE, Entry, Runs
from spraydry.format.manifest import Manifest, Span

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ReadChunk = Callable[[bytes], memoryview]
Part = tuple[Span, memoryview | None]  # verified bytes; None: a hole
BUFFER_BYTES = 256 << 10


def spans(entry: Entry, read_chunk: ReadChunk, start: int = 0) -> Iterator[Span]:
    """The chunks and holes of a file's entry from byte `start` to its end, in order, the first not clipped.

    Reads (and checks) manifest pages, not the chunks themselves. Raises CorruptData, ChunkNotFound.
    """
    if isinstance(entry.content, Runs):
        yield from Manifest(entry.content.manifest, entry.size, lambda name: bytes(read_chunk(name))).spans(start)
    elif isinstance(entry.content, bytes) and start < entry.size:
        yield Span(0, entry.size, entry.content)


def read_span(span: Span, read_chunk: ReadChunk) -> memoryview | None:
    """The verified bytes of a span; None for a hole. Raises CorruptData where a chunk is not as long as claimed."""
    if span.chunk is None:
        return None
    chunk = read_chunk(span.chunk)
    if len(chunk) != span.length:
        raise CorruptData(f"chunk {span.chunk.hex()} has {len(chunk)} bytes where a file claims {span.length}")
    return chunk


def parts(entry: Entry, read_chunk: ReadChunk, start: int = 0) -> Iterator[Part]:
    """The spans of a file with their bytes, each read when it is asked for."""
    return ((span, read_span(span, read_chunk)) for span in spans(entry, read_chunk, start))


class Seekable(io.RawIOBase):
    """What one may read and seek in, of `_size` bytes. `readinto` begins at `_position`, and moves it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError("no such position")
        self._position = base + offset
        return self._position


class FileStream(Seekable):
    """The bytes of a file, read-only and seekable. Blocks; one thread at a time.

    `parts_from(start)` gives what it reads, from the span that holds byte `start` on. Reading raises CorruptData or
    ChunkNotFound where bytes cannot be had, never gives wrong ones.
    """

    def __init__(self, entry: Entry, parts_from: Callable[[int], Iterator[Part]]) -> None:
        super().__init__(entry.size)
        if entry.kind != FILE:
            raise UsageError(f"{os.fsdecode(entry.name)!r} is not a regular file")
        self._parts_from = parts_from
        self._span = Span(0, 0, None)
        self._chunk: memoryview | None = None
        self._following = parts_from(0)

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        if self._position >= self._size or not len(into):
            return 0
        self._reach()
        at = self._position - self._span.offset
        count = min(len(into), self._span.length - at)
        into[:count] = bytes(count) if self._chunk is None else self._chunk[at : at + count]
        self._position += count
        return count

    def _reach(self) -> None:
        """Make the span at the position the current one."""
        end = self._span.offset + self._span.length
        if self._span.offset <= self._position < end:
            return
        if self._position != end:
            self._following = self._parts_from(self._position)
        # Until its chunk was read the span is not the current one: a failing read fails again, it gives no zeros.
        self._span = Span(-1, 0, None)
        span, chunk = next(self._following, (self._span, None))
        if not span.offset <= self._position < span.offset + span.length:
            raise CorruptData("a file's chunks do not add up to its size")
        self._span, self._chunk = span, chunk


def open_entry(entry: Entry, parts_from: Callable[[int], Iterator[Part]]) -> io.BufferedReader:
    """A buffered binary stream over a file's entry. Raises UsageError for what is no regular file."""
    return io.BufferedReader(FileStream(entry, parts_from), BUFFER_BYTES)


_ZEROS = bytes(1 << 20)


def hash_of(parts: Iterable[Part]) -> bytes:
    """The digest of a file's bytes, computed from its chunks and holes. Raises as reading them does."""
    whole = hasher()
    for span, chunk in parts:
        if chunk is not None:
            whole.update(chunk)
            continue
        for at in range(0, span.length, len(_ZEROS)):
            whole.update(memoryview(_ZEROS)[: span.length - at])
    return whole.digest()
