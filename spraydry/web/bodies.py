"""Bodies of requests: read up to a limit, in bounded time, and never more of all together than fit in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio
from starlette.requests import ClientDisconnect, Request

from spraydry.errors import CorruptData, StoreUnavailable, TooLarge, UsageError
from spraydry.stores.remote import wire

T = TypeVar("T")

_PATIENCE_S = 30.0  # beside what the bytes take
_SLOWEST_BYTES_S = 16 << 10
_ALL_BYTES = 256 << 20
_PIECE_BYTES = 64 << 10


class Room:
    """Memory for bodies: a request waits until there is room for all it may bring, and holds that until it is done."""

    def __init__(self, all_bytes: int = _ALL_BYTES) -> None:
        self._free = self._all = all_bytes
        self._changed = trio.Condition()

    @asynccontextmanager
    async def for_bytes(self, count: int) -> AsyncIterator[None]:
        """Inside, so much is set aside. Raises StoreUnavailable where that takes too long."""
        count = min(max(count, _PIECE_BYTES), self._all)
        with trio.move_on_after(_PATIENCE_S) as waiting:
            async with self._changed:
                while self._free < count:
                    await self._changed.wait()
                self._free -= count
        if waiting.cancelled_caught:
            raise StoreUnavailable("too much is being sent to this server at once; try again")
        try:
            yield
        finally:
            self._free += count
            with trio.CancelScope(shield=True):
                async with self._changed:
                    self._changed.notify_all()


def declared(request: Request, most: int) -> int:
    """How long the body will be at most. Raises TooLarge for more than `most`."""
    said = request.headers.get("content-length", "")
    if not said:
        return most
    if not (said.isascii() and said.isdecimal()) or len(said) > 18:
        raise UsageError("the length of the body is no number")
    if int(said) > most:
        raise TooLarge(f"a body of {int(said):,} bytes is too large: this takes at most {most:,}")
    return int(said)


async def parts_of(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TooLarge behind `most` bytes, StoreUnavailable where it comes too slowly, and
    UsageError where the client hangs up."""
    deadline, held = trio.current_time() + _PATIENCE_S, 0
    stream = request.stream()
    try:
        while True:
            with trio.move_on_at(deadline) as waiting:
                part = await anext(stream, None)
            if waiting.cancelled_caught:
                raise StoreUnavailable("the body comes too slowly; try again")
            if part is None:
                return
            held += len(part)
            deadline += len(part) / _SLOWEST_BYTES_S
            if held > most:
                raise TooLarge(f"the body is too large: this takes at most {most:,} bytes")
            if part:
                yield part
    except ClientDisconnect:
        raise UsageError("the client hung up before all of the body was there") from None


async def body_of(request: Request, most: int) -> bytes:
    """All of the body. Raises as `parts_of`."""
    expected = declared(request, most)
    held = bytearray()
    async for part in parts_of(request, expected):
        held += part
    return bytes(held)


async def message_of(request: Request, kind: type[T]) -> T:
    """A message of the wire, from the body. Raises UsageError for what is none, and as `parts_of`."""
    try:
        return wire.decode(await body_of(request, wire.JSON_BYTES), kind)
    except CorruptData as error:
        raise UsageError(str(error)) from None
