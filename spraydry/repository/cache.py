"""A cache of decoded frames, bounded in bytes, from which chunks are served by digest."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from spraydry.format.digest import Buffer, digest

_Place = tuple[Buffer, int, int, bytes]  # of a chunk: the plain bytes of its frame, offset and length there, the frame


class FrameCache:
    """Least recently used frames leave first. Never blocks for long; threads may share it.

    Chunks are read-only views into their frame, found by digest; a frame counts with its whole plain bytes, and a small
    sum for each of its chunks.
    """

    _PER_CHUNK_BYTES = 300  # a digest, a view and a dict slot, measured

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.found = self.added = 0  # chunks that were here, frames that came: near enough, no lock for a number
        self._lock = threading.Lock()
        self._frames: OrderedDict[bytes, tuple[Buffer, Sequence[bytes], int]] = OrderedDict()
        # No view for each: of a frame there may be thousands, and few are asked for.
        self._chunks: dict[bytes, _Place] = {}
        self._claimed: dict[bytes, _Place] = {}
        self._held = 0

    def get(self, name: bytes) -> memoryview | None:
        """The chunk of that digest, verified, if a frame that holds it is here."""
        found = self._chunks.get(name)
        if found is None:
            return self._verify(name) if name in self._claimed else None
        plain, offset, length, frame = found
        self.found += 1
        try:
            self._frames.move_to_end(frame)  # atomic under the GIL
        except KeyError:
            pass  # it was evicted meanwhile; these bytes were verified all the same
        return memoryview(plain)[offset : offset + length]

    def _verify(self, name: bytes) -> memoryview | None:
        claim = self._claimed.pop(name, None)
        if claim is None:
            return None
        plain, offset, length, frame = claim
        chunk = memoryview(plain)[offset : offset + length]
        if digest(chunk) != name:
            self.drop(frame)
            return None
        with self._lock:
            if (kept := self._frames.get(frame)) and kept[0] is plain:
                self._chunks[name] = claim
        return chunk

    def add(self, frame: bytes, plain: Buffer, chunks: Sequence[tuple[bytes, int, int]], verified: bool) -> None:
        """Keep a frame; `chunks` are the (digest, offset, length) of its chunks.

        With `verified` the digests were computed from these very bytes; otherwise they are what an earlier copy of the
        frame had, and each chunk is compared with its own when it is first asked for.
        """
        held = len(plain) + self._PER_CHUNK_BYTES * len(chunks)
        self.added += 1
        with self._lock:
            if frame in self._frames or held > self.limit_bytes:
                return
            self._frames[frame] = (plain, [name for name, _, _ in chunks], held)
            self._held += held
            into = self._chunks if verified else self._claimed
            for name, offset, length in chunks:
                into[name] = (plain, offset, length, frame)
            while self._held > self.limit_bytes:
                self._remove(next(iter(self._frames)))

    def drop(self, frame: bytes) -> None:
        """Forget a frame."""
        with self._lock:
            if frame in self._frames:
                self._remove(frame)

    def _remove(self, frame: bytes) -> None:
        _, names, held = self._frames.pop(frame)
        self._held -= held
        for name in names:
            for places in (self._chunks, self._claimed):
                if (place := places.get(name)) and place[3] == frame:
                    del places[name]
