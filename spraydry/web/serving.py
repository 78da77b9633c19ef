"""The process that serves: Hypercorn's trio worker over sockets opened here, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from starlette.types import ASGIApp

from spraydry.repository.repository import Repository
from spraydry.web.app import application
from spraydry.web.grant import RIGHTS, Right
from spraydry.web.guard.connection import Connection, Line, Stream
from spraydry.web.guard.door import Door
from spraydry.web.guard.guard import Guard
from spraydry.web.guard.limits import Limits
from spraydry.web.guard.listening import Listening, listen_at
from spraydry.web.guard.tokens import Tokens
from spraydry.web.served import Served

_GRACE_S = 10.0  # for what is under way when the server is told to end
_HEAD_BYTES = 32 << 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to serve: where to listen (HOST:PORT or unix:PATH), who may what, how much.

    `anyone` are the rights of those without a token; None: all on this machine where there are no tokens, else none.
    """

    listen: tuple[str, ...] = ("127.0.0.1:9876",)
    read_only: bool = False
    tokens: Path | None = None
    anyone: frozenset[Right] | None = None
    limits: Limits = field(default_factory=Limits)


def serve(repositories: Sequence[tuple[str, str]], settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve repositories, each a name (empty where it is the only one) and a URL, until a signal says to end.

    `ready` gets each address at which the server listens. Blocks. Raises UsageError, StoreErrors.
    """
    with ExitStack() as stack:
        tokens = None if settings.tokens is None else Tokens(settings.tokens)
        local = tokens is None and settings.anyone is None
        listening = [stack.enter_context(listen_at(address, local)) for address in settings.listen]
        served = []
        for name, url in repositories:
            repository = stack.enter_context(
                Repository.open(url, create=not settings.read_only, read_only=settings.read_only)
            )
            served.append(Served(repository, name, settings.read_only or repository.read_only))
        anyone = settings.anyone if settings.anyone is not None else frozenset(RIGHTS if tokens is None else ())
        door = Door({one.name: one.read_only for one in served}, tokens, anyone, local)
        trio.run(_run, Guard(application(served), door, settings.limits), listening, settings, ready)


async def _run(app: ASGIApp, listening: Sequence[Listening], settings: Settings, ready: Callable[[str], None]) -> None:
    line = Line(app, _config())
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as running:
            async with trio.open_nursery() as accepting:
                listeners = [_listener(one, None) for one in listening]
                accepting.start_soon(
                    partial(trio.serve_listeners, partial(_connected, line), listeners, handler_nursery=running)
                )
                for one in listening:
                    ready(one.url)
                async for _ in signals:
                    break
                accepting.cancel_scope.cancel()
            await line.context.terminated.set()
            for connection in tuple(line.connections):
                connection.dismiss()
            running.cancel_scope.deadline = trio.current_time() + _GRACE_S


async def _connected(line: Line, stream: Stream) -> None:
    await Connection(line, stream).run()


def _listener(one: Listening, secure: ssl.SSLContext | None) -> trio.abc.Listener[Stream]:
    plain = trio.SocketListener(trio.socket.from_stdlib_socket(one.socket))
    return plain if secure is None else trio.SSLListener(plain, secure, https_compatible=True)


def _config() -> Config:
    """How Hypercorn's protocols are to be."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = _HEAD_BYTES
    config.h2_max_header_list_size = _HEAD_BYTES
    config.keep_alive_max_requests = 1_000_000
    return config
