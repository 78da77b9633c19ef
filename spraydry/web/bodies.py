"""Bodies of requests in memory: up to a limit each, and never more of all together than fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
from starlette.requests import ClientDisconnect, Request

from spraydry.errors import CorruptData, StoreUnavailable, TooLarge, UsageError
from spraydry.stores.remote import wire

T = TypeVar("T")

_ALL_BYTES = 256 << 20


class Held:
    """What one request has in memory. Part of a Room."""

    def __init__(self) -> None:
        self.bytes = 0
        self.began = trio.current_time()
        self.receiving: trio.CancelScope | None = None

    def pace(self, now: float) -> float:
        """Bytes a second."""
        return self.bytes / (now - self.began + 1.0)


class Room:
    """Memory for the bodies of all requests. Where there is not enough, the one that comes most slowly is refused, not
    those that wait for it: so nobody can keep others out by sending nothing. For one thread."""

    def __init__(self, all_bytes: int = _ALL_BYTES) -> None:
        self._all = all_bytes
        self._held: dict[int, Held] = {}

    @contextmanager
    def body(self) -> Iterator[Held]:
        """Inside, what the request holds counts: until it is stored, or refused."""
        mine = Held()
        self._held[id(mine)] = mine
        try:
            yield mine
        finally:
            del self._held[id(mine)]

    def add(self, mine: Held, count: int) -> None:
        """So much more of a body came."""
        mine.bytes += count
        over = sum(held.bytes for held in self._held.values()) - self._all
        now = trio.current_time()
        for held in sorted(self._held.values(), key=lambda held: held.pace(now)) if over > 0 else ():
            if over > 0 and held.receiving is not None and not held.receiving.cancel_called:
                held.receiving.cancel()
                over -= held.bytes


def check_declared(request: Request, most: int) -> None:
    """Raises TooLarge where the body says that it is longer than `most` bytes."""
    said = request.headers.get("content-length", "0")
    if not (said.isascii() and said.isdecimal()) or len(said) > 18:
        raise UsageError("the length of the body is no number")
    if int(said) > most:
        raise TooLarge(f"a body of {int(said):,} bytes is too large: this takes at most {most:,}")


async def parts_of(request: Request, most: int, room: Room, held: Held) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TooLarge behind `most` bytes, StoreUnavailable where it comes too slowly for the
    room there is, and UsageError where the client hangs up."""
    check_declared(request, most)
    stream = request.stream()
    try:
        while True:
            with trio.CancelScope() as held.receiving:
                part = await anext(stream, None)
            if held.receiving.cancelled_caught:
                raise StoreUnavailable("more is being sent to this server than it can hold; try again")
            if part is None:
                return
            if held.bytes + len(part) > most:
                raise TooLarge(f"the body is too large: this takes at most {most:,} bytes")
            room.add(held, len(part))
            if part:
                yield part
    except ClientDisconnect:
        raise UsageError("the client hung up before all of the body was there") from None
    finally:
        held.receiving = None


async def body_of(request: Request, most: int, room: Room, held: Held) -> bytes:
    """All of the body. Raises as `parts_of`."""
    whole = bytearray()
    async for part in parts_of(request, most, room, held):
        whole += part
    return bytes(whole)


async def message_of(request: Request, kind: type[T], room: Room) -> T:
    """A message of the wire, from the body. Raises UsageError for what is none, and as `parts_of`."""
    with room.body() as held:
        try:
            return wire.decode(await body_of(request, wire.JSON_BYTES, room, held), kind)
        except CorruptData as error:
            raise UsageError(str(error)) from None
