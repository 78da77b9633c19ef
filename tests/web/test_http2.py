"""HTTP/2 in one process: what clients abandon keeps no task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from spraydry.web.guard.connection import Connection, Line
from spraydry.web.serving import _config

_ASKED = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/")]


@asynccontextmanager
async def _served(app: ASGIApp) -> AsyncIterator[tuple[Line, trio.SocketStream, h2.connection.H2Connection]]:
    """A server of `app`, a stream to it, and the client's side of HTTP/2 on that."""
    line = Line(app, _config())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, lambda stream: Connection(line, stream).run(), listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        ours = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        ours.initiate_connection()
        async with stream:
            with trio.fail_after(120):
                yield line, stream, ours
        nursery.cancel_scope.cancel()


async def _deserted(line: Line) -> None:
    while line.connections:  # noqa: ASYNC110 (nothing tells that)
        await trio.sleep(0.01)


async def test_a_shut_window_makes_the_handler_wait_until_its_client_is_gone() -> None:
    ended: list[BaseException] = []
    sent = 0

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while sent < 10_000:
                sent += 1
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        except BaseException as error:
            ended.append(error)
            raise

    async with _served(endless) as (line, stream, ours):
        ours.send_headers(1, _ASKED, end_stream=True)
        await stream.send_all(ours.data_to_send())
        await stream.receive_some()
        await trio.sleep(0.2)
        assert len(line.connections) == 1
        assert sent < 5, "what the client did not ask for yet is not held"
        await stream.aclose()
        await _deserted(line)
        assert [type(error).__name__ for error in ended] == ["ClientGone"]


async def test_streams_that_are_reset_do_not_pile_up() -> None:
    running = most = 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await trio.sleep_forever()
        finally:
            running -= 1

    async with _served(slow) as (line, stream, ours):
        try:
            for number in range(2000):
                ours.send_headers(2 * number + 1, _ASKED, end_stream=True)
                ours.reset_stream(2 * number + 1)
                await stream.send_all(ours.data_to_send())
        except trio.BrokenResourceError:
            pass
        await _deserted(line)
        assert 200 < most < 300 and running == 0
