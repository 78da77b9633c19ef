"""Where a server listens: sockets at addresses and paths."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from spraydry.errors import SprayDryError, UsageError

BACKLOG = 4096


@dataclass(frozen=True)
class Listening:
    """A socket that listens, and the URL under which it is found."""

    socket: socket.socket
    url: str


@contextmanager
def listen_at(address: str, local: bool, scheme: str = "http") -> Iterator[Listening]:
    """A socket that listens at HOST:PORT or unix:PATH; with `local` only where this machine reaches it, and at a path
    only this user. Raises UsageError for an address that cannot be meant, SprayDryError where nobody can listen."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path:
            raise UsageError("unix: needs a path, such as unix:/run/spraydry.sock")
        with _opened(address, lambda: _at_path(path, 0o600 if local else 0o666)) as bound:
            mine = os.stat(path)
            try:
                yield Listening(bound, address)
            finally:
                with suppress(OSError):
                    if os.path.samestat(os.stat(path), mine):
                        os.unlink(path)
        return
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{address!r} is no place to listen at: write HOST:PORT, such as 127.0.0.1:9876, or unix:PATH")
    with _opened(address, lambda: _at_port(host, int(port), local)) as bound:
        named, number = bound.getsockname()[:2]
        yield Listening(bound, f"{scheme}://{f'[{named}]' if ':' in named else named}:{number}")


@contextmanager
def _opened(address: str, bind: Callable[[], socket.socket]) -> Iterator[socket.socket]:
    try:
        bound = bind()
    except OSError as error:
        why = "something listens there already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise SprayDryError(f"cannot listen at {address}: {why}") from None
    with bound:
        yield bound


def _at_port(host: str, port: int, local: bool) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    if local and not ipaddress.ip_address(where[0]).is_loopback:
        raise UsageError(
            f"{host} can be reached from other machines: say who may what with --tokens FILE (`spraydry token add`),"
            " or --anyone read,list for everybody"
        )
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and where[0] == "::":
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _at_path(path: str, mode: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)  # of a server that was killed
        before = os.umask(0o777 & ~mode)
        try:
            bound.bind(path)
        finally:
            os.umask(before)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except OSError:
            return False
        return True
