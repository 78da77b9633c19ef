"""Bytes of files on their way to clients: read some pieces ahead, in threads where they are not in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import trio
from starlette.types import Receive, Send

from spraydry.errors import CorruptData
from spraydry.format.entry import Entry
from spraydry.format.manifest import Span
from spraydry.repository.passage import Passage
from spraydry.repository.stream import read_span, spans
from spraydry.web.guard.parts import Parts
from spraydry.web.served import Served

PIECE_BYTES = 2 << 20
_HERE_BYTES = 768 << 10  # with its frames, still in the processor's cache when it is sent (measured: 1 MiB is not)
_CROWDED_BYTES = 128 << 10
_MEMORY_BYTES = 64 << 20
_AHEAD_NEAR, _AHEAD_FAR = 2, 8
_SLOW_S, _SLOW_AMONG_S, _HOP_FOR_S = 0.05, 0.01, 0.3
_ZEROS = bytes(PIECE_BYTES)


class Memory:
    """What the pieces of all downloads take together; the frames they lie in may take as much again. Each download may
    always hold a small one; more only while there is room, so that those which stand still cannot keep the others
    waiting."""

    def __init__(self, limit_bytes: int = _MEMORY_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self.downloads = 0
        self.slow_until_s = 0.0
        self.turn = trio.Lock()  # of those that read in the loop's thread: all other tasks run between two of them

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
        self.plain: Parts | None = None
        self.ready = trio.Event()


class Reading:
    """The bytes `start` to `stop` of a file, for one task, which calls `begin` and then `send_to`. Each was verified.

    Where the store is local and quick, this thread reads, a little at a time, which then goes out from where it lies:
    while the next is read the client takes it out of the socket. Threads that take turns at the interpreter need more
    than twice as long for the same (measured: 2.7 ms of CPU a MiB for four downloads, 1.0 without), and other requests
    wait longer. Otherwise there is one hop for each piece that is not in memory, some pieces ahead.
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
        self._passage: Passage | None = None

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
        """Send all of it as `Parts` of a body, of which more may follow. Raises what reading does, or a group of it."""
        while self._first is not None or self._at < self._stop:
            if not self._reads_here():
                await self._send_ahead(send)
                continue
            piece, self._first = self._first or await self._plan(), None
            if piece.plain is None:
                await self._fill(piece)
            await self._send(send, piece)

    async def _send_ahead(self, send: Send) -> None:
        """Send what follows while more is being read, until that is better read here."""
        give, take = trio.open_memory_channel[_Piece]((_AHEAD_NEAR if self._near else _AHEAD_FAR) - 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, nursery, give)
            async for piece in take:
                await piece.ready.wait()
                await self._send(send, piece)

    async def _send(self, send: Send, piece: _Piece) -> None:
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
            while self._at < self._stop and not self._reads_here():
                if self._held_bytes and not self._memory.has_room:
                    self._freed = trio.Event()
                    await self._freed.wait()
                    continue
                piece = await self._plan()
                nursery.start_soon(self._fill, piece)
                await give.send(piece)

    def _reads_here(self) -> bool:
        """Whether the next piece is read in this thread, wherever it lies."""
        return self._near and monotonic() > self._memory.slow_until_s

    async def _plan(self) -> _Piece:
        """The next piece, still without its bytes."""
        most = _HERE_BYTES if self._reads_here() else PIECE_BYTES
        if not self._memory.has_room:
            most = _CROWDED_BYTES
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
        peek = self._repository.peek_chunk
        if self._reads_here():
            if self._memory.downloads == 1:
                self._read_here(piece, _SLOW_S)
            else:
                async with self._memory.turn:
                    self._read_here(piece, _SLOW_AMONG_S)
        elif all(span.chunk is None or peek(span.chunk) is not None for span, _, _ in piece.parts):
            piece.plain = self._read(piece.parts)
        else:
            piece.plain = await self._served.call(self._read, piece.parts)
        piece.parts = []
        piece.ready.set()

    def _read_here(self, piece: _Piece, slow_s: float) -> None:
        began_s = monotonic()
        piece.plain = self._read(piece.parts)
        if monotonic() - began_s > slow_s:
            self._memory.slow_until_s = began_s + _HOP_FOR_S

    def _read(self, parts: list[tuple[Span, int, int]]) -> Parts:
        """Blocks, unless all of it is in memory."""
        if self._through:
            passage, self._passage = self._passage or Passage(self._repository), None  # two threads cannot share it
            chunks = iter(passage.read([(span.chunk, span.length) for span, _, _ in parts if span.chunk is not None]))
            read = [None if span.chunk is None else next(chunks) for span, _, _ in parts]
            if self._memory.has_room:
                self._passage = passage
        else:
            read = [read_span(span, self._repository.read_chunk) for span, _, _ in parts]
        pieces = [
            memoryview(_ZEROS)[: high - low] if chunk is None else chunk[low:high]
            for chunk, (_, low, high) in zip(read, parts, strict=True)
        ]
        size = sum(map(len, pieces))
        if not self._memory.has_room or _held_bytes(pieces) > 2 * size:
            return Parts([b"".join(pieces)])
        return Parts(pieces)


def _held_bytes(pieces: Sequence[memoryview]) -> int:
    """How much memory cannot be given back while these are sent."""
    return sum({id(piece.obj): len(piece.obj) for piece in pieces if piece.obj is not _ZEROS}.values())  # type: ignore[arg-type]


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
