"""From the bytes of one file to what a key of a hoard names."""

from __future__ import annotations

import io
import os
import time
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, Protocol

from spraydry.actions.ingest.segments import Sink, store_stream
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.classes import class_of
from spraydry.format.entry import FILE, Entry

Source = BinaryIO | bytes | bytearray | memoryview | str | os.PathLike[str]


class Readable(Protocol):
    """What gives up to so many bytes when it is read, and nothing at its end."""

    def read(self, most: int, /) -> bytes: ...


class Following:
    """What was read of a stream already, and then the rest."""

    def __init__(self, front: bytes, stream: Readable) -> None:
        self._front, self._stream = front, stream

    def read(self, most: int, /) -> bytes:
        """As of a stream."""
        if not self._front:
            return self._stream.read(most)
        part, self._front = self._front[:most], self._front[most:]
        return part


def store_file(writer: Sink, source: Readable, key: str) -> Entry:
    """Store what a binary stream gives until its end, and what is to be committed for it: an entry without a name, of
    now and of who runs this. It is durable when the writer has finished. Memory does not grow with its size."""
    name = key.rpartition("/")[2].encode()
    size, content = store_stream(writer, source.read, parse_spec(DEFAULT_SPEC), class_of(name))
    made_ns = divmod(time.time_ns(), 10**9)
    return Entry(b"", FILE, 0o644, os.geteuid(), os.getegid(), *made_ns, size, content, (), None)


def opened(source: Source) -> AbstractContextManager[BinaryIO]:
    """A stream over what was given; a stream that was given stays open."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return open(source, "rb")
    return nullcontext(source)
