"""A part of a body that lies in several places of memory, and goes out from there."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from spraydry.format.digest import Buffer

_AT_ONCE = 256  # pieces that one call may send; Linux takes 1,024


class Parts:
    """The bytes of all `pieces`, one after another; its length is how many. Joining takes as long as sending them."""

    __slots__ = ("_bytes", "pieces")

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self.pieces = pieces
        self._bytes = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._bytes


async def send_pieces(stream: trio.SocketStream, pieces: Sequence[Buffer]) -> None:
    """Send them all. Raises what the socket raises."""
    waiting = list(pieces)
    first = 0
    while first < len(waiting):
        sent = await stream.socket.sendmsg(waiting[first : first + _AT_ONCE])
        while first < len(waiting) and sent >= len(waiting[first]):
            sent -= len(waiting[first])
            first += 1
        if sent:
            waiting[first] = memoryview(waiting[first])[sent:]
