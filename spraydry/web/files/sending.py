"""Bytes of files on their way to clients: read some pieces ahead, in threads where they are not in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import trio
from starlette.types import Receive, Send

from spraydry.errors import CorruptData
from spraydry.format.entry import Entry
from spraydry.format.manifest import Span
from spraydry.repository.stream import read_span, spans
from spraydry.web.served import Served

PIECE_BYTES = 2 << 20
_CROWDED_BYTES = 128 << 10
_MEMORY_BYTES = 64 << 20
_AHEAD_NEAR, _AHEAD_FAR = 2, 8
_SLOW_S, _HOP_FOR_S = 0.05, 0.3
_ZEROS = bytes(PIECE_BYTES)


class Memory:
    """What the pieces of all downloads take together. Each download may always hold a small one; more only while there
    is room, so that those which stand still cannot keep the others waiting."""

    def __init__(self, limit_bytes: int = _MEMORY_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.downloads = 0
        self.slow_until_s = 0.0

    @property
    def has_room(self) -> bool:
        """Whether a piece of full size fits."""
        return self.held_bytes + PIECE_BYTES <= self.limit_bytes


_memory = Memory()


class _Missing(Exception):
    """A page of a manifest is not in memory."""

    def __init__(self, name: bytes) -> None:
        super().__init__(name.hex())
        self.name = name


class _Piece:
    """Some bytes of a file: `parts` are of each span the bytes from one place in it to another."""

    __slots__ = ("bytes", "parts", "plain", "ready")

    def __init__(self, parts: list[tuple[Span, int, int]], size: int) -> None:
        self.parts = parts
        self.bytes = size
        self.plain: bytes | None = None
        self.ready = trio.Event()


class Reading:
    """The bytes `start` to `stop` of a file, for one task, which calls `begin` and then `send_to`. Each was verified.

    What is in memory is taken in this thread, at once; for other pieces there is one hop each. A download that is alone
    is read here, too, where the store is local and quick: threads that take turns at the interpreter need as much time
    again as reading does (measured: 2.0 ms a MiB with hops, 1.2 without).
    """

    def __init__(self, served: Served, entry: Entry, start: int, stop: int, memory: Memory = _memory) -> None:
        self._served = served
        self._repository = served.repository
        self._entry = entry
        self._at, self._stop = start, stop
        self._span = Span(start, 0, None)
        self._pages: dict[bytes, memoryview] = {}
        self._following = spans(entry, self._page, start)
        self._memory = memory
        self._held_bytes = 0
        self._freed = trio.Event()
        self._first: _Piece | None = None
        self._counted = 0
        self._through = entry.size > self._repository.cache_bytes // 4  # not worth keeping, if that is read to its end
        self._near = self._repository.store.location() is not None

    async def begin(self) -> None:
        """Read the first piece. Raises what reading it raises: nothing was sent yet."""
        if self._at < self._stop:
            self._counted = 1
            self._memory.downloads += 1
            self._first = await self._plan()
            try:
                await self._fill(self._first)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Give back what is held: to be called in the end, whatever happened."""
        self._memory.held_bytes -= self._held_bytes
        self._memory.downloads -= self._counted
        self._held_bytes = self._counted = 0

    async def send_to(self, send: Send) -> None:
        """Send all of it as parts of a body, of which more may follow. Raises what reading raises, in a group."""
        give, take = trio.open_memory_channel[_Piece]((_AHEAD_NEAR if self._near else _AHEAD_FAR) - 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, nursery, give)
            async for piece in take:
                await piece.ready.wait()
                assert piece.plain is not None
                await send({"type": "http.response.body", "body": piece.plain, "more_body": True})
                piece.plain = None
                self._memory.held_bytes -= piece.bytes
                self._held_bytes -= piece.bytes
                self._freed.set()

    async def _read_ahead(self, nursery: trio.Nursery, give: trio.MemorySendChannel[_Piece]) -> None:
        async with give:
            if self._first is not None:
                await give.send(self._first)
                self._first = None
            while self._at < self._stop:
                if self._held_bytes and not self._memory.has_room:
                    self._freed = trio.Event()
                    await self._freed.wait()
                    continue
                piece = await self._plan()
                nursery.start_soon(self._fill, piece)
                await give.send(piece)

    async def _plan(self) -> _Piece:
        """The next piece, still without its bytes."""
        most = PIECE_BYTES if self._memory.has_room else _CROWDED_BYTES
        stop = min(self._at + most, self._stop)
        parts: list[tuple[Span, int, int]] = []
        at = self._at
        while at < stop:
            span = self._span
            end = span.offset + span.length
            if at >= end:
                self._span = await self._next_span(at)
                continue
            until = min(stop, end)
            parts.append((span, at - span.offset, until - span.offset))
            at = until
        size = at - self._at
        self._at = at
        self._memory.held_bytes += size
        self._held_bytes += size
        return _Piece(parts, size)

    async def _next_span(self, at: int) -> Span:
        while True:
            try:
                span = next(self._following, None)
            except _Missing as missing:
                self._pages[missing.name] = await self._served.call(self._repository.read_chunk, missing.name)
                self._following = spans(self._entry, self._page, at)
                continue
            self._pages.clear()
            if span is None or not span.offset <= at < span.offset + span.length:
                raise CorruptData("a file's chunks do not add up to its size")
            return span

    def _page(self, name: bytes) -> memoryview:
        page = self._pages.get(name) or self._repository.peek_chunk(name)
        if page is None:
            raise _Missing(name)
        return page

    async def _fill(self, piece: _Piece) -> None:
        peek, memory = self._repository.peek_chunk, self._memory
        if all(span.chunk is None or peek(span.chunk) is not None for span, _, _ in piece.parts):
            piece.plain = self._read(piece.parts)
        elif self._near and memory.downloads == 1 and (began_s := monotonic()) > memory.slow_until_s:
            piece.plain = self._read(piece.parts)
            took_s = monotonic() - began_s
            if took_s > _SLOW_S:
                memory.slow_until_s = began_s + _HOP_FOR_S
        else:
            piece.plain = await self._served.call(self._read, piece.parts)
        piece.parts = []
        piece.ready.set()

    def _read(self, parts: list[tuple[Span, int, int]]) -> bytes:
        """Blocks, unless all of it is in memory."""
        spans = [(span.chunk, span.length) for span, _, _ in parts if span.chunk is not None]
        if self._through and len(spans) > 1:
            chunks = iter(self._repository.read_through(spans))
            read = [None if span.chunk is None else next(chunks) for span, _, _ in parts]
        else:
            read = [read_span(span, self._repository.read_chunk) for span, _, _ in parts]
        return b"".join(
            memoryview(_ZEROS)[: high - low] if chunk is None else chunk[low:high]
            for chunk, (_, low, high) in zip(read, parts, strict=True)
        )


class Connected:
    """Whether the client has hung up."""

    lost = False


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[Connected]:
    """What is inside is cancelled when the client hangs up.

    The end of the body belongs behind it: what is sent there makes the server close the connection or take the next
    request, and say that this one is over, in the midst of which nothing may be cancelled.
    """
    connected = Connected()

    async def watch(scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        connected.lost = True
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        yield connected
        nursery.cancel_scope.cancel()
