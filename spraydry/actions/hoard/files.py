"""From the bytes of one file to what a key of a hoard names."""

from __future__ import annotations

import os
import time
from typing import Protocol

from spraydry.actions.ingest.segments import Sink, store_stream
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.classes import class_of
from spraydry.format.entry import FILE, Entry


class Readable(Protocol):
    """What gives up to so many bytes when it is read, and nothing at its end."""

    def read(self, most: int, /) -> bytes: ...


def store_file(writer: Sink, source: Readable, key: str) -> Entry:
    """Store what a binary stream gives until its end, and what is to be committed for it: an entry without a name, of
    now and of who runs this. It is durable when the writer has finished. Memory does not grow with its size."""
    name = key.rpartition("/")[2].encode()
    size, content = store_stream(writer, source.read, parse_spec(DEFAULT_SPEC), class_of(name))
    made_ns = divmod(time.time_ns(), 10**9)
    return Entry(b"", FILE, 0o644, os.geteuid(), os.getegid(), *made_ns, size, content, (), None)
