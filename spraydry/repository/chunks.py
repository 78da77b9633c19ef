"""Reading chunks: found through the catalog, verified against their names, kept in memory with their frames."""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import accumulate
from typing import Protocol

from spraydry.errors import ChunkCorrupt, ChunkNotFound, SprayDryError, StoreUnavailable
from spraydry.format.digest import DIGEST_BYTES, Buffer, digest
from spraydry.repository.cache import FrameCache
from spraydry.repository.catalog import Catalog
from spraydry.repository.index import Indexed
from spraydry.repository.opening import Opened

_DIRECTORIES_BYTES = 4 << 20
_MAX_SINGLES = 8  # chunks verified alone take a look into the catalog each, as long as hashing about ten


class Beside(Protocol):
    """Chunks that are in no frame yet: tree pages which were made here, and may never be stored. Threads share it."""

    def get(self, name: bytes) -> bytes | None:
        """The plain bytes of a chunk; None for others."""


class Chunks(Indexed):
    """Chunks by name, from whichever frame gives the right bytes. Blocks; threads may share it."""

    def __init__(self, opened: Opened, catalog: Catalog, url: str, cache_bytes: int) -> None:
        super().__init__(opened, catalog, url)
        self.cache_bytes = cache_bytes
        self._frames = FrameCache(cache_bytes)
        self._directories: OrderedDict[bytes, bytes] = OrderedDict()  # of a frame: the digests of its chunks
        self._directories_held = 0
        self._directories_lock = threading.Lock()
        self._singles: OrderedDict[bytes, tuple[Buffer, int]] = OrderedDict()  # frames, and how often they were asked
        self._singles_lock = threading.Lock()
        self._loading: dict[bytes, threading.Event] = {}  # frames that a thread is reading now
        self.beside: Beside | None = None

    @property
    def cache_counts(self) -> tuple[int, int]:
        """How many chunks were found in memory, and how many frames were decoded for others."""
        return self._frames.found, self._frames.added

    def peek_chunk(self, name: bytes) -> memoryview | None:
        """A chunk that is in memory, verified; None if it is not. Never blocks."""
        return self._frames.get(name)

    def read_chunk(self, name: bytes) -> memoryview:
        """The plain bytes of a chunk, verified against its name.

        Tries every frame that is known to hold it, looks again once for new ones, and raises ChunkNotFound or
        ChunkCorrupt, naming chunk and frames, when none gives the right bytes; StoreUnavailable when one might later.
        """
        if (chunk := self._frames.get(name)) is not None:
            return chunk
        if self.beside is not None and (made := self.beside.get(name)) is not None:
            return memoryview(made)
        tried: dict[bytes, str] = {}
        waiting: SprayDryError | None = None
        for attempt in range(2):
            if attempt:
                self._look_again()
            for place in self.catalog.chunks.locate(name):
                if place.frame in tried:
                    continue
                try:
                    chunk = self._load_once(place.frame, name)
                except SprayDryError as error:
                    tried[place.frame] = str(error)
                    waiting = error if error.retryable else waiting
                    continue
                if chunk is not None:
                    return chunk
                tried[place.frame] = "it does not hold that chunk"
        if not tried and self.store.silent:
            raise StoreUnavailable(
                f"chunk {name.hex()} may be on {', '.join(self.store.silent)}, which does not answer"
            )
        if not tried:
            known = f"chunk {name.hex()} is in no frame of {self.url}"
            raise ChunkNotFound(known, ": `spraydry repair` tells whether it can be had")
        if waiting is not None:
            raise waiting
        reasons = "; ".join(f"frame {found.hex()}: {reason}" for found, reason in tried.items())
        raise ChunkCorrupt(f"chunk {name.hex()} cannot be read: {reasons}")

    def read_single(self, name: bytes) -> memoryview:
        """As `read_chunk`, quicker for who wants few chunks of many frames: of a frame that was not read before, only
        the chunk asked for is verified, not all that lie in it. After some of them, all are."""
        if (known := self._frames.get(name)) is not None:
            return known
        place = next(iter(self.catalog.chunks.locate(name)), None)
        if place is None or place.frame in self._directories:
            return self.read_chunk(name)
        with self._singles_lock:
            plain, asked = self._singles.pop(place.frame, (None, 0))
        if asked >= _MAX_SINGLES:
            return self.read_chunk(name)
        try:
            if plain is None:
                _, plain = self.plain_frame(place.frame)
        except SprayDryError:
            return self.read_chunk(name)  # which tries other frames, and says what is wrong
        chunk = memoryview(plain)[place.offset : place.offset + place.length]
        if digest(chunk) != name:
            return self.read_chunk(name)
        with self._singles_lock:
            self._singles[place.frame] = plain, asked + 1
            while sum(len(held) for held, _ in self._singles.values()) > self.cache_bytes // 8:
                self._singles.popitem(last=False)
        return chunk

    def _load_once(self, frame: bytes, name: bytes) -> memoryview | None:
        """As `_load`; of several threads that want one frame, one reads it, and the others find it in memory."""
        mine = threading.Event()
        other = self._loading.setdefault(frame, mine)  # atomic under the GIL
        if other is not mine:
            other.wait()
            if (chunk := self._frames.get(name)) is not None:
                return chunk
            return self._load(frame, name)  # it could not be read, or was evicted since
        try:
            return self._load(frame, name)
        finally:
            del self._loading[frame]
            mine.set()

    def _load(self, frame: bytes, name: bytes) -> memoryview | None:
        """Bring a frame into memory; the chunk, verified, or None where the frame does not hold it.

        The digests of a frame's chunks are computed when it is read for the first time, and remembered, for that takes
        longer than decoding it: when it is read again each chunk is compared when it is asked for.
        """
        known = self._directories.get(frame)
        if known is not None:
            head, plain = self.plain_frame(frame)
            names = [known[at : at + DIGEST_BYTES] for at in range(0, len(known), DIGEST_BYTES)]
            starts = accumulate(head.lengths, initial=0)
            self._frames.add(frame, plain, list(zip(names, starts, head.lengths, strict=False)), verified=False)
            if (chunk := self._frames.get(name)) is not None:
                return chunk
        info, rows, plain = self.decode_frame(frame)
        self._frames.add(info.name, plain, [(row.digest, row.offset, row.length) for row in rows], verified=True)
        with self._directories_lock:
            self._directories[frame] = b"".join(row.digest for row in rows)
            self._directories_held += len(self._directories[frame])
            while self._directories_held > _DIRECTORIES_BYTES:
                self._directories_held -= len(self._directories.popitem(last=False)[1])
        for row in rows:
            if row.digest == name:
                return memoryview(plain)[row.offset : row.offset + row.length]
        return None

    def _look_again(self) -> None:
        try:
            self.refresh()
        except SprayDryError:
            pass  # what is known already must do; the caller reports what it could not read
