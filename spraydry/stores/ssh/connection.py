"""Connecting to an SSH server that is known, and being let in."""

from __future__ import annotations

import logging
import shlex
import socket
from contextlib import suppress
from typing import Any

import paramiko  # type: ignore[import-untyped]

from spraydry.errors import StoreError, StoreUnavailable
from spraydry.stores.ssh.host import Host

CONNECT_WITHIN_S = 20.0
_TAKEN_WITHIN_S = 60.0
_KEEPALIVE_S = 30

# It writes tracebacks to the terminal unless somebody listens.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Unknown(Exception):
    """The server's key is in no known_hosts."""


def connect(host: Host) -> Any:
    """A paramiko.SSHClient that is let in. Raises StoreUnavailable, and StoreError where only a person can help."""
    client = paramiko.SSHClient()
    for path in host.known_hosts:
        with suppress(OSError):
            client.load_system_host_keys(path)
    client.set_missing_host_key_policy(_Refuse())
    try:
        client.connect(
            host.name,
            host.port,
            host.user,
            sock=_socket(host),
            key_filename=list(host.keys),
            allow_agent=not host.only_keys,
            look_for_keys=not host.only_keys and not host.keys,
            timeout=CONNECT_WITHIN_S,
            banner_timeout=CONNECT_WITHIN_S,
            auth_timeout=CONNECT_WITHIN_S,
            channel_timeout=CONNECT_WITHIN_S,
            transport_factory=_transport,
        )
        client.get_transport().set_keepalive(_KEEPALIVE_S)
        return client
    except BaseException as error:
        client.close()
        raise _of_connecting(host, error) from None


def _socket(host: Host) -> socket.socket:
    made = socket.create_connection((host.name, host.port), CONNECT_WITHIN_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it 30 times slower
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # paramiko sends without end to who takes nothing any more
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_TAKEN_WITHIN_S * 1000))
    return made


def _transport(sock: socket.socket, **options: Any) -> Any:
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    # AES-GCM needs no second pass for the MAC.
    security.ciphers = sorted(security.ciphers, key=lambda name: not name.endswith("-gcm@openssh.com"))
    return transport


class _Refuse:
    """The policy for hosts that nobody vouched for."""

    def missing_host_key(self, client: Any, name: str, key: Any) -> None:
        raise _Unknown(key.fingerprint)


def _of_connecting(host: Host, error: BaseException) -> BaseException:
    """What to raise for what went wrong while connecting."""
    if isinstance(error, _Unknown):
        return StoreError(
            f"the host key of {host.name} is not known ({error}): run `ssh {host.ssh_arguments}` once to accept it"
        )
    if isinstance(error, paramiko.BadHostKeyException):
        name = host.name if host.port == 22 else f"[{host.name}]:{host.port}"
        return StoreError(
            f"the host key of {host.name} is not the one in known_hosts: somebody may be in between; if it was"
            f" changed on purpose, run `ssh-keygen -R {shlex.quote(name)}` and `ssh {host.ssh_arguments}`"
        )
    if isinstance(error, paramiko.AuthenticationException) or "No authentication methods" in str(error):
        return StoreError(
            f"{host} lets none of your keys in: try `ssh {host.ssh_arguments}`, and `ssh-add` for a key with a"
            " passphrase"
        )
    if isinstance(error, socket.gaierror):
        return StoreUnavailable(f"the host {host.name} is not known to the resolver: check the name, or try again")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{host} does not answer within {CONNECT_WITHIN_S:.0f} s; try again later")
    if isinstance(error, Exception):  # whatever the connection's thread met, which paramiko hands on
        return StoreUnavailable(f"{host} cannot be reached: {reason(error)}; try again later")
    return error


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    text = text or ("it was closed" if isinstance(error, EOFError) else type(error).__name__)
    return " ".join(text.split())[:200]
