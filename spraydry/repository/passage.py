"""Reading the chunks of a file once, from front to back: frames are not kept longer than until the next."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from spraydry.errors import CorruptData, SprayDryError
from spraydry.format.digest import digest
from spraydry.repository.chunks import Chunks


class Passage:
    """As `read_chunk`, for who goes through a file once: a frame that has to be read is read once for all chunks that
    follow each other there, whichever calls ask for them. Blocks; for one thread at a time."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._plain = memoryview(b"")  # of the frame that was read last
        self._lengths: tuple[int, ...] = ()
        self._item, self._at = 0, 0  # of the chunk there that comes next
        self._last: tuple[bytes, memoryview] | None = None

    def read(self, wanted: Sequence[tuple[bytes, int]]) -> list[memoryview]:
        """The verified bytes of chunks; of each is given its digest, and the length that its file claims.

        Raises as `read_chunk`, and CorruptData for other lengths.
        """
        peek = self._chunks.peek_chunk
        found: list[memoryview] = []
        for name, length in wanted:
            chunk = peek(name)
            if chunk is None:
                if self._last is not None and self._last[0] == name:  # half of it was wanted by the call before
                    chunk = self._last[1]
                else:
                    chunk = self._following(name, length)
                    if chunk is None:
                        chunk = self._elsewhere(name)
                    self._last = name, chunk
            if len(chunk) != length:
                raise CorruptData(f"chunk {name.hex()} has {len(chunk)} bytes where a file claims {length}")
            found.append(chunk)
        return found

    def _following(self, name: bytes, length: int) -> memoryview | None:
        """The next chunk of the frame that was read last, if that is it."""
        if self._item >= len(self._lengths) or self._lengths[self._item] != length:
            return None
        chunk = self._plain[self._at : self._at + length]
        if digest(chunk) != name:
            return None
        self._item += 1
        self._at += length
        return chunk

    def _elsewhere(self, name: bytes) -> memoryview:
        """A chunk of another frame, which is read."""
        self._lengths = ()
        place = next(iter(self._chunks.catalog.chunks.locate(name)), None)
        try:
            if place is not None:
                head, plain = self._chunks.plain_frame(place.frame)
                self._plain = memoryview(plain)
                chunk = self._plain[place.offset : place.offset + place.length]
                if digest(chunk) == name:
                    self._at = place.offset + place.length
                    self._item = bisect_left([*accumulate(head.lengths)], self._at) + 1
                    self._lengths = head.lengths
                    return chunk
        except SprayDryError:
            pass  # others may give it, or say what is wrong
        return self._chunks.read_chunk(name)
