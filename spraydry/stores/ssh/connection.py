"""Reaching an SSH server: ~/.ssh/config, keys and known hosts, and the SFTP channels of one store."""

from __future__ import annotations

import getpass
import logging
import os
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

try:
    import paramiko  # type: ignore[import-untyped]
except ImportError:
    paramiko = None

from spraydry.errors import SprayDryError, StoreError, StoreUnavailable, UsageError
from spraydry.stores.ssh.channel import Garbled, SftpChannel

T = TypeVar("T")

CHANNELS = 8  # OpenSSH's sshd lets a connection have ten
CONFIG_VARIABLE = "SPRAYDRY_SSH_CONFIG"
_CONNECT_WITHIN_S = 20.0
_ANSWER_WITHIN_S = 60.0
_KEEPALIVE_S = 30
# With 2 MiB, the default, no more than that is read in a round trip.
_WINDOW_BYTES = 16 << 20

# It writes tracebacks to the terminal unless somebody listens.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Host(NamedTuple):
    """Whom to connect to, as ~/.ssh/config has it."""

    name: str
    port: int
    user: str
    keys: tuple[str, ...]
    known_hosts: tuple[str, ...]
    only_keys: bool

    def __str__(self) -> str:
        return f"{self.user}@{self.name}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def ssh_arguments(self) -> str:
        """What to type behind `ssh` to reach it."""
        config = os.environ.get(CONFIG_VARIABLE)
        before = f"-F {shlex.quote(config)} " if config else ""
        return before + (f"-p {self.port} " if self.port != 22 else "") + f"{self.user}@{self.name}"


def find_host(alias: str, port: int | None, user: str | None) -> Host:
    """What ~/.ssh/config (or the file $SPRAYDRY_SSH_CONFIG names) says of a host; `port` and `user` are above that.

    Raises UsageError for a file that cannot be used, and where it asks for a proxy.
    """
    if paramiko is None:
        raise UsageError("sftp: needs paramiko: pip install 'spraydry[sftp]'")
    named = os.environ.get(CONFIG_VARIABLE)
    path = named or os.path.expanduser("~/.ssh/config")
    try:
        found = paramiko.SSHConfig.from_path(path).lookup(alias)
    except FileNotFoundError:
        if named:
            raise UsageError(f"${CONFIG_VARIABLE} names {named}, which is not there") from None
        found = {}
    except (OSError, UnicodeDecodeError, paramiko.SSHException, ImportError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from None
    for proxy in ("proxycommand", "proxyjump"):
        if found.get(proxy, "none") != "none":
            raise UsageError(f"{path}: sftp: cannot go through a {proxy}: forward a port with `ssh -L` and name that")
    try:
        port = port or int(found.get("port", 22))
    except ValueError:
        raise UsageError(f"{path}: {found['port']} is not a port") from None
    return Host(
        name=found.get("hostname", alias),
        port=port,
        user=user or found.get("user") or getpass.getuser(),
        keys=tuple(key for key in map(os.path.expanduser, found.get("identityfile", ())) if os.path.isfile(key)),
        known_hosts=_files(found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
        + _files(found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")),
        only_keys=found.get("identitiesonly", "no") == "yes",
    )


def _files(text: str) -> tuple[str, ...]:
    """A path, or several with blanks between them."""
    if os.path.isfile(os.path.expanduser(text)):
        return (os.path.expanduser(text),)
    try:
        return tuple(map(os.path.expanduser, shlex.split(text)))
    except ValueError:
        return (text,)


class _Lost(StoreUnavailable):
    """The connection ended, perhaps long ago: a new one may work at once."""


class Channels:
    """The SFTP channels of a store, at most CHANNELS at a time, on as few connections as the server allows.

    Blocks; threads may share it. Connections are made when they are needed: a lost one is made anew at the next use.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(CHANNELS)
        self._idle: list[SftpChannel] = []
        self._clients: list[Any] = []  # paramiko.SSHClient: when one is collected, its connection ends
        self._closed = False

    @contextmanager
    def channel(self) -> Iterator[SftpChannel]:
        """One for this thread. Raises StoreUnavailable when the connection is lost inside."""
        with self._places:
            channel = self._take() or self._open()
            try:
                with self._translated():
                    yield channel
            finally:
                if channel.usable and not self._closed:
                    self._idle.append(channel)
                else:
                    channel.close()

    def reading(self, ask: Callable[[SftpChannel], T]) -> T:
        """What `ask` gives, which is called again when the connection turns out to be lost."""
        try:
            with self.channel() as channel:
                return ask(channel)
        except _Lost:
            with self.channel() as channel:
                return ask(channel)

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        with self._lock:
            self._drop(self._clients)
            self._idle.clear()

    def _take(self) -> SftpChannel | None:
        while True:
            if self._closed:
                raise StoreError(f"the store at {self.host} was closed")
            try:
                channel = self._idle.pop()
            except IndexError:
                return None
            if channel.usable:
                return channel
            channel.close()

    def _open(self) -> SftpChannel:
        with self._translated():
            with self._lock:
                self._drop([client for client in self._clients if not client.get_transport().is_active()])
                if not self._clients:
                    self._clients.append(connect(self.host))
                client = self._clients[-1]
            try:
                return _channel(client)
            except paramiko.ChannelException:  # no more on this one
                with self._lock:
                    if client in self._clients[-1:]:
                        self._clients.append(connect(self.host))
                    client = self._clients[-1]
                return _channel(client)

    def _drop(self, clients: list[Any]) -> None:
        for client in list(clients):
            self._clients.remove(client)
            client.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SprayDryError:
            raise
        except Garbled as error:
            raise StoreUnavailable(f"{self.host} does not speak SFTP as it should: {error}; try again") from None
        except paramiko.ChannelException as error:
            raise StoreUnavailable(f"{self.host} gives no SFTP session: {error.text}; try again later") from None
        except TimeoutError:
            raise StoreUnavailable(f"{self.host} does not answer; try again later") from None
        except (EOFError, OSError, paramiko.SSHException) as error:
            why = _line(error) or "it was closed"
            raise _Lost(f"the connection to {self.host} was lost ({why}); try again") from None


def _channel(client: Any) -> SftpChannel:
    channel = client.get_transport().open_session(window_size=_WINDOW_BYTES, timeout=_CONNECT_WITHIN_S)
    try:
        channel.settimeout(_ANSWER_WITHIN_S)
        channel.invoke_subsystem("sftp")
        return SftpChannel(channel)
    except BaseException:
        channel.close()
        raise


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
            timeout=_CONNECT_WITHIN_S,
            banner_timeout=_CONNECT_WITHIN_S,
            auth_timeout=_CONNECT_WITHIN_S,
            channel_timeout=_CONNECT_WITHIN_S,
            transport_factory=_transport,
        )
        client.get_transport().set_keepalive(_KEEPALIVE_S)
        return client
    except BaseException as error:
        client.close()
        raise _of_connecting(host, error) from None


def _socket(host: Host) -> socket.socket:
    made = socket.create_connection((host.name, host.port), _CONNECT_WITHIN_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it 30 times slower
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
        return StoreUnavailable(f"{host} does not answer within {_CONNECT_WITHIN_S:.0f} s; try again later")
    if isinstance(error, ValueError | OSError | EOFError | paramiko.SSHException):
        return StoreUnavailable(f"{host} cannot be reached: {_line(error)}; try again later")
    return error


def _line(error: BaseException) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200]
