"""The beginning of a file, and whether it is text."""

from __future__ import annotations

from functools import partial

from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.repository.stream import open_entry, parts

_LOOKED_AT_BYTES = 8000


def beginning(repository: Repository, entry: Entry, most: int) -> bytes:
    """Up to `most` bytes of a regular file, from its first on. Raises CorruptData, ChunkNotFound."""
    with open_entry(entry, partial(parts, entry, repository.read_chunk)) as stream:
        return stream.read(most)


def is_text(start: bytes) -> bool:
    """Whether what begins so is text: no zero byte, and few bytes that are neither UTF-8 nor printable."""
    start = start[:_LOOKED_AT_BYTES]
    if b"\0" in start:
        return False
    odd = sum(ord(c) >= 0xDC80 or (c < " " and c not in "\t\n\r\f\x1b") for c in start.decode(errors="surrogateescape"))
    return odd <= len(start) // 5


def lines_of(text: bytes) -> list[bytes]:
    """Its lines, without what ends them."""
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]
