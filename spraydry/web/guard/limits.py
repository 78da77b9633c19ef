"""How much and how fast a client may: sizes of bodies, their pace, and the rate of requests."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio
from starlette.types import Message, Receive

from spraydry.errors import SprayDryError

BODY_WAIT_S = 30.0
_PACE_BYTES_S = 1024
_BUCKETS = 10_000


class BodyTooLarge(SprayDryError):
    """The body of a request is larger than the server takes."""


class TooSlow(SprayDryError):
    """The body of a request comes too slowly."""


class TooMany(SprayDryError):
    """Requests come faster than the server takes them; the next one is welcome in `after_s`."""

    retryable = True

    def __init__(self, text: str, after_s: int) -> None:
        super().__init__(text)
        self.after_s = after_s


@dataclass(frozen=True)
class Limits:
    """`body_bytes` is the most that one request may bring, `rate_s` the most requests a second from one token, or one
    address without (0: any number). What comes from one of `proxies` (addresses; `unix` for sockets at paths) is from
    whom it says in X-Forwarded-For."""

    body_bytes: int = 1 << 40
    rate_s: float = 0.0
    proxies: frozenset[str] = frozenset()


class Body:
    """The body of one request as its handler receives it: not more than `limit_bytes`, not slower than a pace."""

    def __init__(self, receive: Receive, limit_bytes: int, grow: Callable[[int], None] | None) -> None:
        """`grow` hears how much came in all, whenever more did."""
        self.bytes = 0
        self._grow = grow
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._waited_s = 0.0
        self._ended = False

    async def receive(self) -> Message:
        """The next message. Raises BodyTooLarge, TooSlow; not behind the end, where handlers wait for a hang-up."""
        if self._ended:
            return await self._receive()
        began = trio.current_time()
        with trio.move_on_after(BODY_WAIT_S) as scope:
            message = await self._receive()
        self._waited_s += trio.current_time() - began
        if scope.cancelled_caught:
            raise TooSlow(f"no more of the body came for {BODY_WAIT_S:.0f} s")
        self._ended = not message.get("more_body", False)
        self.bytes += len(message.get("body", b""))
        if self.bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if self._grow is not None:
            self._grow(self.bytes)
        if self._waited_s > BODY_WAIT_S and self.bytes < (self._waited_s - BODY_WAIT_S) * _PACE_BYTES_S:
            raise TooSlow(f"the body comes too slowly: {self.bytes} bytes in {self._waited_s:.0f} s")
        return message


def too_large(limit_bytes: int) -> BodyTooLarge:
    """The error for a body above the limit."""
    return BodyTooLarge(f"this server takes at most {limit_bytes} bytes in one request")


class Rates:
    """Counts the requests of each sender against a rate, with bursts of two seconds. For one thread."""

    def __init__(self, rate_s: float) -> None:
        self._rate_s = rate_s
        self._burst = max(rate_s * 2, 1.0)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left at a time

    def take(self, sender: str) -> None:
        """Count one request. Raises TooMany."""
        now = trio.current_time()
        left, then = self._left.get(sender, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate_s)
        if left < 1.0:
            after_s = math.ceil((1.0 - left) / self._rate_s)
            raise TooMany(f"more than {self._rate_s:g} requests a second: try again in {after_s} s", after_s)
        self._left[sender] = (left - 1.0, now)
        self._left.move_to_end(sender)
        if len(self._left) > _BUCKETS:
            self._left.popitem(last=False)
