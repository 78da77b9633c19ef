"""The process that serves: Hypercorn's trio worker over sockets opened here, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.run import worker_serve

from spraydry.errors import SprayDryError, UsageError
from spraydry.repository.repository import Repository
from spraydry.web.app import application
from spraydry.web.served import Served

_BACKLOG = 1024
_IDLE_S = 75.0
_GRACE_S = 10.0

log = logging.getLogger(__name__)


def serve(
    repositories: Sequence[tuple[str, str]], listen: str, ready: Callable[[str], None], *, read_only: bool = False
) -> None:
    """Serve repositories, each a name (empty where it is the only one) and a URL, until a signal says to end.

    `ready` gets the server's address once it listens. Blocks. Raises UsageError, StoreErrors.
    """
    with ExitStack() as stack:
        served = []
        for name, url in repositories:
            repository = stack.enter_context(Repository.open(url, create=not read_only, read_only=read_only))
            served.append(Served(repository, name, read_only or repository.read_only))
        listening = stack.enter_context(_listen(listen))
        host, port = listening.getsockname()[:2]
        trio.run(_run, served, listening, lambda: ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/"))


async def _run(served: Sequence[Served], listening: socket.socket, ready: Callable[[], None]) -> None:
    config = Config()
    config.bind = [f"fd://{listening.detach()}"]  # closed with the worker
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.backlog = _BACKLOG
    config.keep_alive_timeout = _IDLE_S
    config.graceful_timeout = _GRACE_S
    app = ASGIWrapper(application(served))  # type: ignore[arg-type]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def told_to_end() -> None:
            async for _ in signals:
                return

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: _worker(app, config, told_to_end, task_status))
            ready()


async def _worker(app, config, told_to_end, task_status) -> None:  # type: ignore[no-untyped-def]
    await worker_serve(app, config, shutdown_trigger=told_to_end, task_status=task_status)


def _listen(address: str) -> socket.socket:
    """A listening socket at HOST:PORT. Raises UsageError."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal():
        raise UsageError(f"{address!r} is no place to listen at: write HOST:PORT, such as 127.0.0.1:9876")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not ipaddress.ip_address(where[0]).is_loopback:
            raise UsageError(f"{address} is not loopback: that needs tokens")
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise SprayDryError(f"cannot listen at {address}: {getattr(error, 'strerror', None) or error}") from None
    return listening
