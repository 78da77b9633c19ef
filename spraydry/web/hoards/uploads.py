"""Bodies that become files: small ones in memory, others stored while they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import BinaryIO, TypeVar, cast

import trio
from starlette.requests import ClientDisconnect, Request

from spraydry.actions.hoard import store_file
from spraydry.actions.hoard.copies import sink_of
from spraydry.errors import StoreUnavailable, UsageError
from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.web.bodies import Room, check_declared
from spraydry.web.served import Served

T = TypeVar("T")

SMALL_BYTES = 1 << 20
_LARGE_AT_ONCE = 8  # each takes about 20 MiB and a thread
_MOST_BYTES = 1 << 62  # how much one request may bring the guard says


class Upload:
    """The body of one request: all of it (`plain`), or the front of it and the rest to come."""

    def __init__(self, held: bytearray, rest: AsyncGenerator[bytes] | None) -> None:
        self._held = held
        self._rest = rest

    @property
    def plain(self) -> bytes | None:
        """All of it where it is small."""
        return bytes(self._held) if self._rest is None else None

    async def _take(self, size: int) -> bytes:
        while self._rest is not None and len(self._held) < size:
            part = await anext(self._rest, None)
            if part is None:
                self._rest = None
            else:
                self._held += part
        taken = bytes(memoryview(self._held)[:size])
        del self._held[:size]
        return taken

    def stream(self) -> BinaryIO:
        """All of it, to be read in a thread of `Uploads.call`."""
        return cast("BinaryIO", _Pulled(self))


class _Pulled:
    """Read in a thread, filled by the task that waits for the thread."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def read(self, size: int) -> bytes:
        return trio.from_thread.run(self._upload._take, size)


class Uploads:
    """For one repository, in the server's one trio thread: bounds the memory and threads that bodies take."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.room = Room()
        self._large = trio.CapacityLimiter(_LARGE_AT_ONCE)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[Upload]:
        """The body of a request. Raises UsageError where the client hangs up, StoreUnavailable where too much comes at
        once, TooLarge."""
        check_declared(request, _MOST_BYTES)
        with self.room.body() as mine:
            async with aclosing(_parts(request)) as parts:
                held = bytearray()
                while len(held) <= SMALL_BYTES:
                    with trio.CancelScope() as mine.receiving:
                        part = await anext(parts, None)
                    if mine.receiving.cancelled_caught:
                        raise StoreUnavailable("more is being sent to this server than it can hold; try again")
                    if part is None:
                        mine.receiving = None
                        yield Upload(held, None)
                        return
                    self.room.add(mine, len(part))
                    held += part
                mine.receiving = None  # what is stored while it comes takes no more
                yield Upload(held, parts)

    async def call(self, function: Callable[[], T]) -> T:
        """What a function returns that may read a body, in a thread that is none of those for everybody."""
        return await trio.to_thread.run_sync(function, limiter=self._large)

    @asynccontextmanager
    async def stored(self, upload: Upload, hoard: str, key: str) -> AsyncIterator[tuple[Entry, int]]:
        """What is to be committed for a body, for a key, and the newest slot when storing began; until the end of the
        block it is kept from collection."""
        repository = self._served.repository
        writer, entry, began_at = await self.call(partial(_store, repository, upload.stream(), hoard, key))
        try:
            yield entry, began_at
        finally:
            with trio.CancelScope(shield=True):
                await self._served.call(writer.close)


async def _parts(request: Request) -> AsyncGenerator[bytes]:
    try:
        async for part in request.stream():
            if part:
                yield part
    except ClientDisconnect:
        raise UsageError("the client hung up before all of the body was there") from None


def _store(repository: Repository, source: BinaryIO, hoard: str, key: str) -> tuple[Writer, Entry, int]:
    began_at = repository.heed()
    writer = Writer(repository)
    try:
        entry = store_file(sink_of(writer, hoard), source, key)
        writer.finish()
    except BaseException:
        writer.close()
        raise
    return writer, entry, began_at
