"""One SFTP session over an SSH channel: many requests under way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from spraydry.stores.ssh import protocol
from spraydry.stores.ssh.protocol import Garbled, Reply, Request

# What may be sent or asked for at a time: every server takes 32 KiB, OpenSSH says that it takes more.
PIECE_BYTES = 32 << 10
_LARGE_PIECE_BYTES = 255 << 10
_UNDER_WAY = 1000  # the window of the channel says how many bytes may be
_SEND_BYTES = 32 << 10  # what one SSH packet holds


class SftpChannel:
    """One SFTP session. Blocks; one thread at a time may use it.

    What the channel raises gets out (EOFError, OSError, paramiko's exceptions), and Garbled. `in_step` is False after
    that, and whenever replies are outstanding: it must be closed then.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel  # a paramiko.Channel
        self._held = memoryview(b"")  # received, not yet used
        self._sending: list[bytes] = []
        self._sending_bytes = 0
        self._number = 0
        self._early: dict[int, Reply] = {}
        self._unwanted: set[int] = set()
        self._closed_last = bytes(4)  # the first handle that OpenSSH gives
        self.foresees = True
        self.in_step = False
        self.extensions = self._greet()
        self.piece_bytes = _LARGE_PIECE_BYTES if b"limits@openssh.com" in self.extensions else PIECE_BYTES
        self.in_step = True

    def _greet(self) -> frozenset[bytes]:
        self._channel.sendall(protocol.greeting())
        return protocol.extensions(*self._packet())

    @property
    def usable(self) -> bool:
        """Whether it may be used again."""
        return self.in_step and not self._channel.closed and self._channel.get_transport().is_active()

    @property
    def next_handle(self) -> bytes | None:
        """The handle that a server gives next which gives first what was closed last, as OpenSSH does.

        None where it turned out to be another one (whoever sees that makes `foresees` False), and while it is not known
        that all is closed.
        """
        return self._closed_last if self.foresees and not self._unwanted else None

    def ask(self, requests: Iterable[Request]) -> list[Reply]:
        """The replies to requests, in their order; up to 1000 are under way at once."""
        replies: list[Reply] = []
        waiting: deque[int] = deque()
        self.in_step = False
        for request in requests:
            self._send(request)
            waiting.append(self._number)
            if len(waiting) >= _UNDER_WAY:
                replies.append(self._reply_to(waiting.popleft()))
        while waiting:
            replies.append(self._reply_to(waiting.popleft()))
        self.in_step = True
        return replies

    def tell(self, requests: Iterable[Request]) -> None:
        """Requests whose replies nobody waits for; they are sent with what is asked next."""
        for request in requests:
            self._send(request)
            self._unwanted.add(self._number)

    def close(self) -> None:
        """End the session."""
        with suppress(EOFError, OSError):  # that it was lost already is no news
            self._channel.close()

    def _send(self, request: Request) -> None:
        self._number = (self._number + 1) & 0xFFFFFFFF
        packet = protocol.packet(self._number, request)
        if (closed := protocol.closes(request)) is not None:
            self._closed_last = closed
        self._sending.append(packet)
        self._sending_bytes += len(packet)
        if self._sending_bytes >= _SEND_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._sending:
            packets = memoryview(b"".join(self._sending))
            self._sending, self._sending_bytes = [], 0
            while packets:
                sent = self._channel.send(packets[:_SEND_BYTES])
                if not sent:
                    raise EOFError("the channel was closed")
                packets = packets[sent:]

    def _reply_to(self, number: int) -> Reply:
        while number not in self._early:
            self._flush()
            to, reply = protocol.numbered(*self._packet())
            if to in self._unwanted:
                self._unwanted.remove(to)
                continue
            self._early[to] = reply
            if len(self._early) > _UNDER_WAY:
                raise Garbled("it answers what was not asked")
        return self._early.pop(number)

    def _packet(self) -> tuple[int, memoryview]:
        length, kind = protocol.header(self._receive(protocol.HEADER_BYTES))
        return kind, self._receive(length)

    def _receive(self, count: int) -> memoryview:
        if len(self._held) < count:
            parts, held = [self._held], len(self._held)
            while held < count:
                part = self._channel.recv(1 << 24)  # all there is: what is left lying is moved at every call
                if not part:
                    raise EOFError("the channel was closed")
                parts.append(part)
                held += len(part)
            self._held = memoryview(b"".join(parts))
        received, self._held = self._held[:count], self._held[count:]
        return received
