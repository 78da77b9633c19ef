"""The process that serves: connections at sockets opened here, and what goes on beside them, until a signal ends it."""

from __future__ import annotations

import logging
import re
import resource
import shlex
import signal
import ssl
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from starlette.routing import Route

from spraydry import malloc
from spraydry.errors import NotARepository, StoreNotFound, UsageError
from spraydry.repository.repository import Repository
from spraydry.web.app import application
from spraydry.web.grant import RIGHTS, Right
from spraydry.web.guard import tls
from spraydry.web.guard.access import AccessLog
from spraydry.web.guard.connection import Connection, Line, Stream
from spraydry.web.guard.door import Door
from spraydry.web.guard.guard import Exchange, Guard
from spraydry.web.guard.limits import Limits
from spraydry.web.guard.listening import Listening, listen_at
from spraydry.web.guard.quotas import Quotas
from spraydry.web.guard.tokens import Tokens
from spraydry.web.metrics import Metrics
from spraydry.web.plain import handoff_of
from spraydry.web.served import Served
from spraydry.web.upkeep import Upkeep

_LARGEST_PIECE_BYTES, _SPARE_BYTES = 32 << 20, 64 << 20
_GRACE_S = 10.0  # for what is under way when the server is told to end
_HEAD_BYTES = 32 << 10
_OTHER_FILES = 256  # descriptors that stores and threads may need beside those of connections
_REFUSE_S = 2.0
_REFUSED_AT_ONCE = 64  # so many are heard out: each takes a descriptor of the spare ones
_DROP_BYTES = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_RESERVED = ("healthz", "metrics")
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to serve: where to listen (HOST:PORT or unix:PATH), who may what, how much.

    `anyone` are the rights of those without a token; None: all on this machine where there are no tokens, else none.
    After `heal_every_s` a repository on several stores is healed while nobody asks for anything (0: never).
    `quota_bytes` is how much the repositories may hold, None for any amount; `access_log` a path, `-` for standard
    output, empty for none.
    """

    listen: tuple[str, ...] = ("127.0.0.1:9876",)
    read_only: bool = False
    tokens: Path | None = None
    anyone: frozenset[Right] | None = None
    certificate: Path | None = None
    key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    quota_bytes: int | None = None
    connections: int = 10_000
    heal_every_s: float = 86400.0
    access_log: str = ""
    accel: str = ""
    plain: str = ""


def serve(
    repositories: Sequence[tuple[str, str]], settings: Settings, ready: Callable[[str], None], *, create: bool = False
) -> None:
    """Serve repositories, each a name (empty where it is the only one) and a URL, until a signal says to end.

    `ready` gets each address at which the server listens. With `create` a repository is made where there is none.
    Blocks. Raises UsageError, StoreErrors.
    """
    malloc.one_heap(_LARGEST_PIECE_BYTES, _SPARE_BYTES)
    with ExitStack() as stack:
        tokens = None if settings.tokens is None else Tokens(settings.tokens)
        secure = _secure(settings)
        local = tokens is None and settings.anyone is None
        scheme = "http" if secure is None else "https"
        listening = [stack.enter_context(listen_at(address, local, scheme)) for address in settings.listen]
        access = AccessLog(settings.access_log) if settings.access_log else None
        if access is not None:
            stack.callback(access.close)
        handoff = handoff_of(settings.accel, settings.plain)
        served = [
            Served(repository, name, settings.read_only or repository.read_only, handoff)
            for name, url in repositories
            for repository in [stack.enter_context(_opened(url, create, settings.read_only))]
        ]
        anyone = settings.anyone if settings.anyone is not None else frozenset(RIGHTS if tokens is None else ())
        door = Door({one.name: one.read_only for one in served}, tokens, anyone, local)
        quotas = Quotas(settings.tokens, settings.quota_bytes, served)
        stack.callback(quotas.save)
        trio.run(partial(_run, served, settings, door, quotas, access, listening, secure, ready))


def check_name(name: str, others: Sequence[str]) -> None:
    """Raises UsageError for what cannot be the name of a repository among several."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"{name!r} cannot name a repository: take letters, digits and . _ -, and not {' or '.join(_RESERVED)}"
        )
    if name in others:
        raise UsageError(f"two repositories cannot both be called {name}")


def _opened(url: str, create: bool, read_only: bool) -> Repository:
    try:
        return Repository.open(url, read_only=read_only, metered=True)
    except (StoreNotFound, NotARepository) as error:
        if read_only or not (create or url == "memory:"):
            if isinstance(error, NotARepository):
                raise
            raise StoreNotFound(
                f"{error} (to serve a new, empty one, `spraydry init --repo {shlex.quote(url)}` first)"
            ) from None
    repository = Repository.open(url, create=True, metered=True)
    log.warning("nothing was at %s: a new, empty repository is there now", url)
    return repository


def _secure(settings: Settings) -> ssl.SSLContext | None:
    if settings.certificate is None and settings.key is None:
        return None
    if settings.certificate is None or settings.key is None:
        raise UsageError("TLS needs both a certificate and its key")
    return tls.context(settings.certificate, settings.key)


async def _run(
    served: Sequence[Served],
    settings: Settings,
    door: Door,
    quotas: Quotas,
    access: AccessLog | None,
    listening: Sequence[Listening],
    secure: ssl.SSLContext | None,
    ready: Callable[[str], None],
) -> None:
    connections: set[Connection] = set()
    metrics = Metrics(served, lambda: len(connections))
    heard: list[Callable[[Exchange], None]] = [metrics.hear]
    if access is not None:
        heard.append(access.hear)
    app = application(served, [Route("/metrics", metrics.answer)])
    line = Line(Guard(app, door, settings.limits, quotas, heard), _config(), connections=connections)
    room = _room_for(settings.connections)
    upkeep = Upkeep(served, lambda: any(one.busy for one in connections), settings.heal_every_s)
    await quotas.look()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as beside:
            beside.start_soon(quotas.run)
            beside.start_soon(upkeep.run)
            if access is not None:
                beside.start_soon(access.run)
            async with trio.open_nursery() as running:
                async with trio.open_nursery() as accepting:
                    listeners = [_listener(one, secure) for one in listening]
                    accept = partial(trio.serve_listeners, partial(_connected, line, room), listeners)
                    accepting.start_soon(partial(accept, handler_nursery=running))
                    for place in listening:
                        ready(place.url)
                    async for _ in signals:
                        break
                    for one in served:
                        one.ending.set()
                    accepting.cancel_scope.cancel()
                upkeep.stop()
                await line.context.terminated.set()
                for connection in tuple(connections):
                    connection.dismiss()
                running.cancel_scope.deadline = trio.current_time() + _GRACE_S
            beside.cancel_scope.cancel()


async def _connected(line: Line, room: int, stream: Stream) -> None:
    if len(line.connections) < room:
        await Connection(line, stream).run()
        return
    line.refused += 1
    with trio.move_on_after(_REFUSE_S):
        try:
            if isinstance(stream, trio.SocketStream):
                await stream.send_all(_FULL)
                await stream.send_eof()
                while line.refused <= _REFUSED_AT_ONCE and await stream.receive_some(_DROP_BYTES):
                    pass  # closed with something unread it would take the answer back
        except (trio.BrokenResourceError, OSError):
            pass
        finally:
            line.refused -= 1
    await trio.aclose_forcefully(stream)


def _listener(one: Listening, secure: ssl.SSLContext | None) -> trio.abc.Listener[Stream]:
    plain = trio.SocketListener(trio.socket.from_stdlib_socket(one.socket))
    return plain if secure is None else trio.SSLListener(plain, secure, https_compatible=True)


def _room_for(connections: int) -> int:
    """How many connections there may be: as many as are wanted, if the process may have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        log.warning("there may be at most %d connections: `ulimit -n` says so", soft - _OTHER_FILES)
    return min(connections, max(soft - _OTHER_FILES, soft // 2))


def _config() -> Config:
    """How Hypercorn's protocols are to be."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = _HEAD_BYTES
    config.h2_max_header_list_size = _HEAD_BYTES
    config.keep_alive_max_requests = 1_000_000
    return config
