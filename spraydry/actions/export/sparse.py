"""Files with holes in a tar stream, in the sparse format 1.0 of GNU tar: a map of what is no hole, then that alone."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.format.entry import Entry, Runs
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans

_BLOCK_BYTES = 512
_MOST_BYTES = 8**11  # what a header's own field can say: readers mistake a size said elsewhere for the sparse file's


class Sparse:
    """The member that stands for a file with holes: its headers, its size in the stream, its bytes by `read`. Blocks;
    for one thread. What it needs of memory does not grow with the file or its holes."""

    def __init__(self, repository: Repository, entry: Entry, name: str) -> None:
        self._repository, self._entry = repository, entry
        self._extents = self._map_bytes = 0
        for extent in self._map():
            self._extents += 1
            self._map_bytes += len(extent)
        self._map_bytes += len(b"%d\n" % self._extents)
        self._padding = -self._map_bytes % _BLOCK_BYTES
        assert isinstance(entry.content, Runs)
        self.size = self._map_bytes + self._padding + entry.content.filled
        self.headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(entry.size),
        }
        self._pieces = self._bytes()
        self._left = memoryview(b"")

    @classmethod
    def of(cls, repository: Repository, entry: Entry, name: str) -> Sparse | None:
        """The member for a file; None where it has no holes, or too much beside them."""
        if not isinstance(entry.content, Runs) or entry.content.filled == entry.size:
            return None
        found = cls(repository, entry, name)
        return found if found.size < _MOST_BYTES else None

    def read(self, most: int) -> bytes:
        """The next bytes of the member, as many as asked for unless it ends."""
        parts = []
        while most:
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left = memoryview(piece)
            parts.append(self._left[:most])
            self._left = self._left[most:]
            most -= len(parts[-1])
        return b"".join(parts)

    def _map(self) -> Iterator[bytes]:
        """The lines of each run of bytes between holes, and of an empty one where the file ends."""
        start = end = 0
        for span in spans(self._entry, self._repository.read_chunk):
            if span.chunk is None:
                continue
            if span.offset > end:
                if end > start:
                    yield b"%d\n%d\n" % (start, end - start)
                start = span.offset
            end = span.offset + span.length
        if end > start:
            yield b"%d\n%d\n" % (start, end - start)
        yield b"%d\n0\n" % self._entry.size  # also where no hole is at the end: GNU tar writes it, too

    def _bytes(self) -> Iterator[bytes | memoryview]:
        yield b"%d\n" % self._extents
        yield from self._map()
        yield bytes(self._padding)
        for _, chunk in read_ahead(self._repository, self._entry):
            if chunk is not None:
                yield chunk
