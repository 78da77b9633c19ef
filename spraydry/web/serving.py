"""The process that serves: Hypercorn's trio worker over sockets opened here, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.run import worker_serve
from starlette.types import ASGIApp

from spraydry.repository.repository import Repository
from spraydry.web.app import application
from spraydry.web.grant import RIGHTS, Right
from spraydry.web.guard.door import Door
from spraydry.web.guard.guard import Guard
from spraydry.web.guard.limits import Limits
from spraydry.web.guard.listening import Listening, listen_at
from spraydry.web.guard.tokens import Tokens
from spraydry.web.served import Served

_BACKLOG = 1024
_IDLE_S = 75.0
_GRACE_S = 10.0

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
        trio.run(_run, Guard(application(served), door, settings.limits), listening, ready)


async def _run(app: ASGIApp, listening: Sequence[Listening], ready: Callable[[str], None]) -> None:
    config = Config()
    config.bind = [f"fd://{one.socket.detach()}" for one in listening]  # closed with the worker
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.backlog = _BACKLOG
    config.keep_alive_timeout = _IDLE_S
    config.graceful_timeout = _GRACE_S
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def told_to_end() -> None:
            async for _ in signals:
                return

        async def worker(*, task_status: trio.TaskStatus[list[str]]) -> None:
            wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
            await worker_serve(wrapped, config, shutdown_trigger=told_to_end, task_status=task_status)

        async with trio.open_nursery() as nursery:
            await nursery.start(worker)
            for one in listening:
                ready(one.url)
