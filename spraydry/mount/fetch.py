"""The one place where the mount waits: chunks and pages from memory at once, from the store through a worker thread."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import monotonic
from typing import ParamSpec, TypeVar

import trio

from spraydry.errors import SprayDryError
from spraydry.format.tree_page import Page
from spraydry.repository.repository import Repository

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 2
_READERS_AHEAD = 2
_CHUNKS_A_TIME = 4  # about a frame of a large file: of a distant store, several are read ahead at once
_CROWDED = 4
_SLOW_S, _HOP_FOR_S = 0.005, 1.0

log = logging.getLogger(__name__)


class Missing(Exception):
    """A chunk is not in memory: `digest` must be loaded before going on."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(digest.hex())
        self.digest = digest


class Later(Exception):
    """Something else must be done before going on, by `function`, which blocks."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        self.function = function


class _Flight:
    """A load under way; `frames` are those it reads, as far as is known yet."""

    __slots__ = ("done", "frames")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.frames: list[bytes] = []


class ChunkFetcher:
    """Chunks for handlers, all of which run in one trio thread.

    `page` and `chunk` never wait: they raise Missing for what is not in memory. `run` calls a function that uses them,
    loads what it missed, and calls it again until it is done: so what hits never awaits, and code that walks trees
    stays plain. A load hops into a worker thread once, where it is located, read, decoded and verified. Of several
    readers of one chunk, or of one frame, one loads and the others wait for it; no worker waits for a worker.

    A hop costs 0.2 ms, a frame of a local store a millisecond. So a reader that is alone, as far as can be told from
    `pending` (has another request arrived?) and from what is being loaded, is served in this thread while that is fast
    (measured: `tar` of 20,000 files took 2.8 s of CPU so, 3.9 with hops); several readers get the threads.
    `waiting` counts what waits for a thread.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.peek = repository.peek_chunk
        self._peek_page = repository.peek_page
        self._loaded: frozenset[bytes] = frozenset()
        self._flights: dict[bytes, _Flight] = {}
        self._frames: dict[bytes, _Flight] = {}
        self.in_flight = max(_READERS_AHEAD, repository.store.traits.concurrency)
        self._threads = ThreadPoolExecutor(max(_THREADS, self.in_flight), thread_name_prefix="spraydry-load")
        self._nursery: trio.Nursery | None = None
        self._ahead = 0
        self._inline = repository.store.location() is not None
        self._crowd = 0
        self._slow_until_s = 0.0
        self.pending: Callable[[], bool] = lambda: False
        self.waiting = 0

    def read_ahead_in(self, nursery: trio.Nursery) -> None:
        """Where to run what reads ahead; without it nothing does."""
        self._nursery = nursery

    # -- for functions called by `run`

    def page(self, name: bytes) -> Page:
        """A tree page. Raises Missing."""
        page = self._peek_page(name)
        if page is None:
            if self.peek(name) is None and name not in self._loaded:
                raise Missing(name)
            page = self.repository.page(name)
        return page

    def chunk(self, digest: bytes) -> memoryview:
        """A chunk. Raises Missing."""
        chunk = self.peek(digest)
        if chunk is None:
            if digest not in self._loaded:
                raise Missing(digest)
            chunk = self.repository.read_chunk(digest)  # evicted since it was loaded: rare, and progress is certain
        return chunk

    # -- for handlers

    def run_here(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, but in this thread only. Raises Missing and Later where that cannot be."""
        loaded: frozenset[bytes] = frozenset()
        while True:
            self._loaded = loaded
            try:
                return function(*args, **kwargs)
            except Missing as missing:
                if not self._alone():
                    raise
                digest = missing.digest
            finally:
                self._loaded = frozenset()
            self._read_here(digest)
            loaded |= {digest}

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function`, which must have no effect before its last use of `page` or `chunk`, as often as it takes."""
        loaded: frozenset[bytes] = frozenset()
        while True:
            self._loaded = loaded
            try:
                return function(*args, **kwargs)
            except (Missing, Later) as wanted:
                needed = wanted
            finally:
                self._loaded = frozenset()
            if isinstance(needed, Later):
                await self.hop(needed.function)
            else:
                await self.get(needed.digest)
                loaded |= {needed.digest}

    async def get(self, digest: bytes) -> memoryview:
        """A chunk, loaded if need be. Raises what Repository.read_chunk raises."""
        chunk = self.peek(digest)
        if chunk is not None:
            return chunk
        if self._alone():
            return self._read_here(digest)
        self.waiting += 1
        try:
            return await self._get(digest)
        finally:
            self.waiting -= 1

    def _alone(self) -> bool:
        """Whether a load is better done in this thread."""
        return self._inline and not self._flights and self._crowd < _CROWDED and monotonic() > self._slow_until_s

    def _read_here(self, digest: bytes) -> memoryview:
        """Load a chunk in this thread."""
        started_s = monotonic()
        try:
            return self.repository.read_chunk(digest)
        finally:
            now_s = monotonic()
            if now_s - started_s > _SLOW_S:
                self._slow_until_s = now_s + _HOP_FOR_S
            self._count(self.pending())

    def _count(self, others: bool) -> None:
        self._crowd = min(self._crowd + 1, 2 * _CROWDED) if others else max(self._crowd - 1, 0)

    @asynccontextmanager
    async def _flying(self, digests: list[bytes]) -> AsyncIterator[_Flight]:
        """While chunks, none of which are being loaded yet, are loaded."""
        flight = _Flight()
        self._flights.update(dict.fromkeys(digests, flight))
        try:
            yield flight
        finally:
            for digest in digests:
                self._flights.pop(digest, None)
            for frame in flight.frames:
                self._frames.pop(frame, None)
            flight.done.set()
            self._count(bool(self._flights))

    async def _get(self, digest: bytes) -> memoryview:
        while True:
            flight = self._flights.get(digest)
            if flight is not None:
                await flight.done.wait()
            else:
                async with self._flying([digest]) as flight:
                    loaded = await self._in_thread(self._load, digest, flight)
                if isinstance(loaded, memoryview):
                    return loaded
                await loaded.done.wait()
            chunk = self.peek(digest)
            if chunk is not None:
                return chunk

    def _load(self, digest: bytes, flight: _Flight) -> memoryview | _Flight:
        """In a worker thread: the chunk, or the flight that is loading the frame it lies in."""
        chunk = self.peek(digest)
        if chunk is not None:
            return chunk
        places = self.repository.catalog.chunks.locate(digest)
        if places:
            other = self._frames.setdefault(places[0].frame, flight)  # atomic under the GIL
            if other is not flight:
                return other
            flight.frames.append(places[0].frame)
        return self.repository.read_chunk(digest)

    def _load_several(self, digests: list[bytes], flight: _Flight) -> list[bytes]:
        """In a worker thread: load chunks that nobody else is loading. Those left to do when it took long."""
        until_s = monotonic() + _SLOW_S
        for done, digest in enumerate(digests, 1):
            self._load(digest, flight)
            if monotonic() > until_s:
                return digests[done:]
        return []

    async def hop(self, function: Callable[[], T]) -> T:
        """Run something that blocks in a worker thread."""
        self.waiting += 1
        try:
            return await self._in_thread(function)
        finally:
            self.waiting -= 1

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in one of the threads that stay: trio's own come and go, and each new one would open the repository's
        SQLite file once more. Cancelled, it is left to end by itself."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def wake(_: object) -> None:
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                pass  # the mount has ended meanwhile

        future = self._threads.submit(function, *args, **kwargs)
        future.add_done_callback(wake)
        await done.wait()
        return future.result()

    def ahead(self, digests: Iterable[bytes]) -> bool:
        """Load chunks that will be wanted soon, in threads, one after another; False where enough is being read ahead
        already."""
        if self._nursery is None or self._ahead >= self.in_flight:
            return False
        wanted = [digest for digest in digests if self.peek(digest) is None]
        at_a_time = len(wanted) if self.in_flight == _READERS_AHEAD else _CHUNKS_A_TIME
        for at in range(0, len(wanted), at_a_time or 1):
            self._ahead += 1
            self._nursery.start_soon(self._read_ahead, wanted[at : at + at_a_time])
        return True

    async def _read_ahead(self, digests: list[bytes]) -> None:
        self.waiting += 1
        try:
            while digests := [one for one in digests if one not in self._flights]:
                async with self._flying(digests) as flight:
                    digests = await self._in_thread(self._load_several, digests, flight)
        except SprayDryError as error:
            log.debug("read-ahead: %s", error)  # whoever needs the chunk meets the error and reports it
        except Exception:
            log.exception("read-ahead failed")
        finally:
            self._ahead -= 1
            self.waiting -= 1
