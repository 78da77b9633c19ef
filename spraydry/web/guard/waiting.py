"""What waits between a connection and the handlers of its requests: little, in either direction."""

from __future__ import annotations

from collections import deque
from typing import Any

import trio
from hypercorn.protocol import h2
from starlette.types import Message

_PARTS = 4  # of a body that its handler has not taken yet
_FULL_BYTES = 128 << 10  # that wait to be sent on one stream of HTTP/2


class Inbox:
    """What came for one request and waits for its handler: few parts at a time, and none once it has answered."""

    def __init__(self) -> None:
        self.gone = False  # the client hung up
        self._messages: deque[Message] = deque()
        self._changed: trio.Event | None = None  # for who waits
        self._ended = False

    async def put(self, message: Any) -> None:
        """Give the handler a message; waits until there is room for it."""
        if message["type"] == "http.disconnect":
            self.gone = True
            self.end()
        while len(self._messages) >= _PARTS and not self._ended:
            await self._change()
        if not self._ended:
            self._messages.append(message)
            self._tell()

    async def receive(self) -> Message:
        """The next message."""
        while not self._messages:
            if self._ended:
                return {"type": "http.disconnect"}
            await self._change()
        message = self._messages.popleft()
        self._tell()
        return message

    def end(self) -> None:
        """Nothing more is needed, nothing more comes."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()


class Buffer(h2.StreamBuffer):
    """What waits to be sent on one stream of HTTP/2. Hypercorn's own lets its writer go on whenever it is looked at,
    also while the client's window is shut: then it grows to the size of what is downloaded."""

    async def push(self, data: bytes) -> None:
        """Add to it, and wait until there is room again."""
        if self._complete:
            raise h2.BufferCompleteError
        self.buffer.extend(data)
        await self._is_empty.clear()
        while len(self.buffer) >= _FULL_BYTES and not self._complete:
            await self._paused.clear()
            await self._paused.wait()

    async def pop(self, max_length: int) -> bytes:
        """Take at most so many bytes from it."""
        with memoryview(self.buffer) as waiting:
            data = bytes(waiting[:max_length])
        del self.buffer[: len(data)]
        if len(self.buffer) < _FULL_BYTES // 2:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data


h2.StreamBuffer = Buffer  # type: ignore[misc]
