"""Reading ahead: what sequential readers of large files will ask for next is loaded in threads."""

from __future__ import annotations

from collections import OrderedDict

from spraydry.format.entry import Runs
from spraydry.mount.contents import Contents
from spraydry.mount.fetch import ChunkFetcher, Missing

READ_AHEAD_BYTES = 4 << 20
_SEQUENTIAL_BYTES = 1 << 20  # the kernel's own read-ahead asks for several pieces at once, in any order
_KEPT_FILES = 256


class _Reader:
    """How far a file was read, and how far it is being loaded."""

    __slots__ = ("ahead_to", "next")

    def __init__(self) -> None:
        self.next = 0
        self.ahead_to = 0


class ReadAhead:
    """Follows the readers of files of several chunks. For the trio thread."""

    def __init__(self, fetch: ChunkFetcher, contents: Contents) -> None:
        self._fetch = fetch
        self._contents = contents
        self._bytes = min(READ_AHEAD_BYTES, fetch.repository.cache_bytes // 8)
        self._readers: OrderedDict[int, _Reader] = OrderedDict()

    def follow(self, key: int, content: Runs, size: int, start: int, stop: int) -> None:
        """The bytes `start` to `stop` of the file that is called `key` here, of `size` bytes, are being read."""
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = _Reader()
            if len(self._readers) > _KEPT_FILES:
                self._readers.popitem(last=False)
        if abs(start - reader.next) <= _SEQUENTIAL_BYTES:
            self._load(reader, content, size, stop)
        reader.next = stop

    def _load(self, reader: _Reader, content: Runs, size: int, stop: int) -> None:
        """Begin to load what comes next, half of what is held ahead at a time."""
        if stop + self._bytes // 2 <= reader.ahead_to <= stop + 2 * self._bytes or stop >= size:
            return
        begin = reader.ahead_to if stop <= reader.ahead_to <= stop + self._bytes else stop
        reader.ahead_to = stop + self._bytes
        try:
            spans = list(self._contents.spans(content, size, begin, min(reader.ahead_to, size)))
        except Missing:
            reader.ahead_to = 0  # the reader is about to load that part of the manifest; the next read may go ahead
            return
        self._fetch.ahead(span.chunk for span in spans if span.chunk is not None)
