"""Contents in the order in which they are stored, so that each frame is read and decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from spraydry.actions.contents import Content, Enough, never
from spraydry.actions.progress import Done, Report
from spraydry.errors import SprayDryError
from spraydry.format.entry import decode_entry, encode_entry
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 32 << 20
_BATCH = 1024
_GROUP_CONTENTS = 1024


class Order:
    """Contents sorted by the frame of their first chunk and their place in it. A context manager; for one thread.

    `files` and `bytes` are those of all, or of those that came before there was `enough`. Memory is bounded by the
    scratch database's cache.
    """

    def __init__(
        self, repository: Repository, contents: Iterator[Content], progress: Report, enough: Enough = never
    ) -> None:
        self._repository = repository
        self._database = scratch(_CACHE_BYTES)
        self.files = self.bytes = 0
        try:
            with scratch_errors():
                self._database.execute(
                    "CREATE TABLE work(frame INTEGER, offset INTEGER, size INTEGER, name BLOB, entry BLOB)"
                )
                while not enough() and (batch := list(islice(contents, _BATCH))):
                    self._add(batch)
                    progress(Done("locating", self.files, self.bytes))
        except BaseException:
            self._database.close(True)
            raise

    def __enter__(self) -> Order:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close(True)

    def _add(self, batch: list[Content]) -> None:
        firsts = [self._first(content) for content in batch]
        places = self._repository.catalog.chunks.places([first for first in firsts if first is not None])
        rows = []
        for (name, entry), first in zip(batch, firsts, strict=True):
            frame, place = places.get(first or b"", (0, None))  # what is nowhere is told when it is read
            rows.append((frame, place.offset if place else 0, entry.size, name, encode_entry(entry)))
            self.files += 1
            self.bytes += entry.size
        self._database.executemany("INSERT INTO work VALUES(?, ?, ?, ?, ?)", rows)

    def _first(self, content: Content) -> bytes | None:
        """The first chunk of a file, None for one that begins with a hole or cannot be read."""
        if isinstance(content.entry.content, bytes):
            return content.entry.content
        try:
            span = next(spans(content.entry, self._repository.read_chunk), None)
        except SprayDryError as error:
            if error.retryable:
                raise
            return None
        return span.chunk if span else None

    def groups(self, most_bytes: int) -> Iterator[list[Content]]:
        """Contents of at most so many bytes, those of a frame together, or parts of them."""
        with scratch_errors():
            rows = self._database.execute(
                "SELECT frame, name, entry FROM work WHERE size <= ? ORDER BY frame, offset", (most_bytes,)
            )
            for _, group in groupby(rows, lambda row: row[0]):
                while part := [_content(name, entry) for _, name, entry in islice(group, _GROUP_CONTENTS)]:
                    yield part

    def longer(self, than_bytes: int) -> Iterator[Content]:
        """The other contents, in the same order."""
        with scratch_errors():
            for name, entry in self._database.execute(
                "SELECT name, entry FROM work WHERE size > ? ORDER BY frame, offset", (than_bytes,)
            ):
                yield _content(name, entry)


def _content(name: object, entry: object) -> Content:
    assert isinstance(name, bytes) and isinstance(entry, bytes)
    return Content(name, decode_entry(entry))
