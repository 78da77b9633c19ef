"""The file under a key behind servers as a seekable stream, of which nothing is given that was not verified."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spraydry.actions.hoard.remote.talk import Talk
from spraydry.errors import CorruptData
from spraydry.format.digest import digest, hasher
from spraydry.format.manifest import Span
from spraydry.repository.keys import Kept
from spraydry.repository.stream import Seekable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DIGEST = re.compile('"[0-9a-f]{64}"')
_READ_BYTES = 4 << 20  # no chunk is longer
_BUFFER_BYTES = 256 << 10


def open_remote(talk: Talk, key: str, kept: Kept | None = None) -> io.BufferedReader:
    """The file under a key; of `kept`, as long as the key names that. Raises KeyNotFound, CorruptData, StoreErrors, now
    and when it is read."""
    return io.BufferedReader(_Stream(talk, key, kept), _BUFFER_BYTES)


class _Stream(Seekable):
    """A part at a time: all of a file that is not longer than that, else whole chunks."""

    def __init__(self, talk: Talk, key: str, kept: Kept | None) -> None:
        super().__init__(0 if kept is None else kept.size)
        self._talk = talk
        self._key = key
        self._tag = None if kept is None or kept.digest is None else f'"{kept.digest.hex()}"'
        self._hashed, self._whole = 0, hasher()
        self._part, self._at = b"", 0
        self._spans: Sequence[Span] = ()  # one behind the other
        self._wrong = False
        if kept is None:
            first = self._read(0, _READ_BYTES)
            if self._size > _READ_BYTES:
                self._look_up(0)
            self._take(0, first)

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        if self._position >= self._size or not len(into):
            return 0
        if not self._at <= self._position < self._at + len(self._part):
            self._fetch(self._position, len(into))
        here = self._position - self._at
        count = min(len(into), len(self._part) - here)
        if count <= 0:
            raise self._corrupt("does not tell of which chunks it is made")
        into[:count] = self._part[here : here + count]
        self._position += count
        return count

    def _fetch(self, position: int, wanted: int) -> None:
        """Make what holds a position the current part."""
        if self._wrong:
            raise self._corrupt("gives other bytes than it should")
        if self._size <= _READ_BYTES:
            self._take(0, self._read(0, self._size))
            return
        if not (self._spans and self._spans[0].offset <= position < _end(self._spans[-1])):
            self._look_up(position)
        number = next(number for number, span in enumerate(self._spans) if position < _end(span))
        first = self._spans[number]
        until = max(position + wanted, position + _READ_BYTES if position == self._hashed else 0)
        if first.chunk is None:
            stop = min(_end(first), until, position + _READ_BYTES)
            self._take(position, bytes(stop - position))
            return
        stop = _end(first)
        for span in self._spans[number + 1 :]:
            if span.chunk is None or _end(span) > min(until, first.offset + _READ_BYTES):
                break
            stop = _end(span)
        self._take(first.offset, self._read(first.offset, stop - first.offset))

    def _read(self, start: int, length: int) -> bytes:
        """Some bytes, as they come."""
        part, self._size, self._tag = self._talk.read(self._key, start, length, self._tag)
        if len(part) < min(length, self._size - start):
            raise self._corrupt("gives fewer bytes than there are")
        return part

    def _look_up(self, position: int) -> None:
        """Ask which chunks and holes there are from a position on."""
        assert self._tag is not None
        self._spans = self._talk.spans(self._key, position, self._size, self._tag)
        if not (self._spans and self._spans[0].offset <= position < _end(self._spans[0])):
            self._spans = ()
            raise self._corrupt("does not tell of which chunks it is made")

    def _take(self, start: int, part: bytes) -> None:
        """Make the bytes from `start` on the current part: as many as can be verified."""
        if self._size > _READ_BYTES:
            part = part[: self._sound(start, memoryview(part))]
        if start == 0:
            self._hashed, self._whole = 0, hasher()
        if start == self._hashed:
            self._whole.update(part)
            self._hashed += len(part)
            if self._hashed == self._size and _DIGEST.fullmatch(self._tag or ""):
                self._wrong = self._tag != f'"{self._whole.digest().hex()}"'
                if self._wrong:
                    raise self._corrupt("gives other bytes than it should")
        self._part, self._at = part, start

    def _sound(self, start: int, part: memoryview) -> int:
        """How many of these bytes are whole chunks, or of a hole, as the list has them. Raises CorruptData where they
        are others."""
        reached = start
        for span in self._spans:
            if _end(span) <= reached:
                continue
            stop = min(_end(span), start + len(part)) if span.chunk is None else _end(span)
            if span.offset > reached or stop > start + len(part) or stop <= reached:
                break
            plain = part[reached - start : stop - start]
            if any(plain) if span.chunk is None else span.offset < reached or digest(plain) != span.chunk:
                raise self._corrupt("gives other bytes than it should")
            reached = stop
        return reached - start

    def _corrupt(self, what: str) -> CorruptData:
        return CorruptData(f"{self._talk.hoard}/{self._key}: the server {what}")


def _end(span: Span) -> int:
    return span.offset + span.length
