"""A cache of decoded frames, bounded in bytes, from which chunks are served by digest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence


class FrameCache:
    """Least recently used frames leave first. Never blocks for long; threads may share it.

    Chunks are read-only views into their frame, found by digest; a frame counts with its whole plain bytes, and a small
    sum for each of its chunks.
    """

    _PER_CHUNK_BYTES = 300  # a digest, a view and a dict slot, measured

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._frames: OrderedDict[bytes, tuple[list[bytes], int]] = OrderedDict()
        self._chunks: dict[bytes, tuple[memoryview, bytes]] = {}
        self._held = 0

    def get(self, digest: bytes) -> memoryview | None:
        """The chunk of that digest, if a frame that holds it is here."""
        found = self._chunks.get(digest)
        if found is None:
            return None
        try:
            self._frames.move_to_end(found[1])  # atomic under the GIL
        except KeyError:
            pass  # it was evicted meanwhile; the view keeps its bytes alive
        return found[0]

    def add(self, frame: bytes, plain: bytes, chunks: Sequence[tuple[bytes, int, int]]) -> None:
        """Keep a frame; `chunks` are the (digest, offset, length) of chunks whose digests were checked."""
        held = len(plain) + self._PER_CHUNK_BYTES * len(chunks)
        with self._lock:
            if frame in self._frames or held > self.limit_bytes:
                return
            view = memoryview(plain)
            self._frames[frame] = ([name for name, _, _ in chunks], held)
            self._held += held
            for name, offset, length in chunks:
                self._chunks[name] = (view[offset : offset + length], frame)
            while self._held > self.limit_bytes:
                gone, (names, size) = self._frames.popitem(last=False)
                self._held -= size
                for name in names:
                    if (chunk := self._chunks.get(name)) and chunk[1] == gone:
                        del self._chunks[name]
