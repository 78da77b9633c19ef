"""One client's connection: bytes to Hypercorn's protocols and back, and the times that each step may take."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp, Message, Scope

from spraydry.format.digest import Buffer
from spraydry.web.guard.http1 import Http1
from spraydry.web.guard.parts import Parts, send_pieces
from spraydry.web.guard.waiting import Inbox

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_RECEIVE_BYTES = 1 << 16
_TASKS = 250  # that one connection may keep busy; of streams that are open HTTP/2 has at most 100
_ASGI = {"version": "3.0", "spec_version": "2.4"}  # 2.4: `send` raises an OSError once nobody listens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """For how many seconds what is waited for: a request's head from its first byte, the next request on a connection
    that is kept, a client to take what was sent, more of what it still sends once it was told no, and all of that."""

    head_s: float = 20.0
    idle_s: float = 75.0
    stall_s: float = 60.0
    linger_s: float = 5.0
    drain_s: float = 30.0


@dataclass
class Line:
    """What all connections share: the application, Hypercorn's settings, whether the server ends, who is connected, how
    many are being turned away."""

    app: ASGIApp
    config: Config
    patience: Patience = field(default_factory=Patience)
    context: WorkerContext = field(default_factory=lambda: WorkerContext(None))
    connections: set[Connection] = field(default_factory=set)
    refused: int = 0


class ClientGone(ConnectionError):
    """Nobody is there any more to whom something could be sent."""


class Connection:
    """Runs in a task of its own; each request's handler in another one.

    It stands where Hypercorn's own does, and differs in what a server that is not among friends needs: a head, a
    client that does not read, and a client that goes on sending what was refused are waited for in turn, each for its
    time; what nobody reads keeps no task; a protocol error ends one connection and not the server; handlers learn from
    `send` that their client is gone. Small answers leave in one piece.
    """

    def __init__(self, line: Line, stream: Stream) -> None:
        self._line = line
        self._stream = stream
        self._lock = trio.Lock()
        self._reading = trio.CancelScope()
        self._idle = True  # no request is under way
        self._begun = False  # some of the next one's head has come
        self._gone = False
        self._drained_at = math.inf  # so long what is sent to who is gone is passed over
        self._held: list[bytes] | None = None  # what leaves together with what follows
        self._protocol: ProtocolWrapper
        self._nursery: trio.Nursery

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""
        return not self._idle

    async def run(self) -> None:
        """Serve until either side has enough. Raises nothing."""
        self._line.connections.add(self)
        try:
            await self._run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        except* Exception:
            log.debug("a connection ended", exc_info=True)
        finally:
            self._line.connections.discard(self)
            await trio.aclose_forcefully(self._stream)

    def dismiss(self) -> None:
        """The server ends: close it if nothing is under way, and else after that."""
        if self._idle:
            self._reading.cancel()

    async def _run(self) -> None:
        secure = isinstance(self._stream, trio.SSLStream)
        protocol = "http/1.1"
        if isinstance(self._stream, trio.SSLStream):
            with trio.fail_after(self._line.patience.head_s):
                await self._stream.do_handshake()
            protocol = self._stream.selected_alpn_protocol() or protocol
            socket = self._stream.transport_stream.socket
        else:
            socket = self._stream.socket
        async with trio.open_nursery() as self._nursery:
            self._protocol = ProtocolWrapper(
                self._line.app,  # type: ignore[arg-type]
                self._line.config,
                self._line.context,
                self,  # type: ignore[arg-type]
                ConnectionState({}),
                secure,
                parse_socket_addr(socket.family, socket.getpeername()),
                parse_socket_addr(socket.family, socket.getsockname()),
                self._take,
                protocol,
            )
            Http1.instead_of(self._protocol)
            await self._protocol.initiate()
            self._reading.deadline = trio.current_time() + self._line.patience.head_s
            with self._reading:
                await self._read()
            if self._reading.cancelled_caught and self._begun and not self._gone:
                await self._write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self._gone = True
            await self._protocol.handle(Closed())
            if isinstance(self._protocol.protocol, H2Protocol):
                for waiting in self._protocol.protocol.stream_buffers.values():
                    await waiting.close()
            await trio.aclose_forcefully(self._stream)

    # -- from the client

    async def _read(self) -> None:
        while True:
            try:
                part = await self._stream.receive_some(_RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not part:
                return
            if self._gone:  # what comes after an answer that closed the connection is not looked at
                self._wait(min(self._line.patience.linger_s, self._drained_at - trio.current_time()))
                continue
            await self._protocol.handle(RawData(bytes(part)))
            protocol = self._protocol.protocol
            if isinstance(protocol, H2Protocol):
                if protocol.idle and not self._idle:  # it took over from HTTP/1.1, or its streams were reset
                    self._idle = True
                    self._wait(self._line.patience.idle_s)
            elif self._idle and not self._begun:
                self._begun = True
                self._wait(self._line.patience.head_s)

    def _wait(self, seconds: float) -> None:
        self._reading.deadline = trio.current_time() + seconds

    # -- from the protocol, which calls this a task group

    async def spawn_app(
        self, app: ASGIApp, config: Config, scope: Scope, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start the handler of a request; what is returned takes what else comes for it."""
        if len(self._nursery.child_tasks) > _TASKS:
            raise ClientGone("it opens and abandons streams of HTTP/2 faster than they end")
        scope["asgi"] = _ASGI
        inbox = Inbox()
        self._nursery.start_soon(self._handle, app, scope, inbox, send)
        return inbox.put

    def spawn(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Start a task that ends with the connection."""
        self._nursery.start_soon(function, *arguments)

    async def _handle(self, app: ASGIApp, scope: Scope, inbox: Inbox, send: Callable[[Any], Awaitable[None]]) -> None:
        alone = scope["http_version"] != "2"
        whole = False

        async def answer(message: Message) -> None:
            nonlocal whole
            if self._gone or inbox.gone:
                raise ClientGone
            if message["type"] == "http.response.start":
                if alone:
                    self._held = []
            elif not message.get("more_body", False):
                whole = True
            if isinstance(body := message.get("body"), Parts):
                if isinstance(protocol := self._protocol.protocol, H11Protocol):
                    await self._pass(protocol, body)
                    return
                message = {**message, "body": b"".join(body.pieces)}
            await send(message)

        async def receive() -> Message:
            protocol = self._protocol.protocol
            if isinstance(protocol, Http1):
                await protocol.invite()
            return await inbox.receive()

        try:
            await app(scope, receive, answer)
        except Exception:
            log.debug("a handler failed", exc_info=True)
            if not (alone or whole):
                await self._take(Closed())  # nothing else would tell the client that this is not all
        finally:
            inbox.end()
        await self._release()
        await send(None)

    async def _take(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self._held is not None:
                self._held.append(event.data)
                if len(self._held) > 1:
                    await self._release()
            elif event.data:
                await self._write(event.data)
        elif isinstance(event, Closed):
            await self._release()
            await self._end()
        elif isinstance(event, Updated):
            await self._release()
            self._idle = event.idle
            self._begun = False
            if event.idle and self._line.context.terminated.is_set():
                self._reading.cancel()
            self._wait(self._line.patience.idle_s if event.idle else math.inf)

    async def _pass(self, protocol: H11Protocol, parts: Parts) -> None:
        """Send what Hypercorn would copy; of its bytes the protocol needs to know only how many they are."""
        assert isinstance(protocol.connection, h11.Connection)
        around = protocol.connection.send_with_data_passthrough(h11.Data(data=parts))  # type: ignore[arg-type]
        pieces: list[Buffer] = [*(self._held or ())]
        self._held = None
        for piece in cast(list[bytes | Parts], around):
            pieces += piece.pieces if isinstance(piece, Parts) else (piece,)
        await self._write(*pieces)

    async def _release(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            if data := b"".join(held):
                await self._write(data)

    async def _write(self, *pieces: Buffer) -> None:
        if self._gone:
            return
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            with trio.move_on_after(self._line.patience.stall_s) as scope:
                if len(pieces) > 1 and isinstance(self._stream, trio.SocketStream):
                    await send_pieces(self._stream, pieces)
                else:
                    await self._stream.send_all(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await self._lost()
        finally:
            self._lock.release()
        if scope.cancelled_caught:
            await self._lost()

    async def _lost(self) -> None:
        """The client is gone, or does not read."""
        self._gone = True
        self._reading.cancel()
        await self._protocol.handle(Closed())

    async def _end(self) -> None:
        """Say that nothing more is sent, and pass over what the client still sends for a while: a connection closed
        with something unread in it would take the answer back."""
        if self._gone:
            return
        self._gone = True
        self._drained_at = trio.current_time() + self._line.patience.drain_s
        self._wait(self._line.patience.linger_s)
        try:
            if isinstance(self._stream, trio.SocketStream):
                await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, OSError):
            pass
        await self._protocol.handle(Closed())
