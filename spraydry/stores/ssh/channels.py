"""The SFTP channels of one store: made when they are needed, used by many threads, made anew when they are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import paramiko  # type: ignore[import-untyped]

from spraydry.errors import SprayDryError, StoreError, StoreUnavailable
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.connection import CONNECT_WITHIN_S, connect, reason
from spraydry.stores.ssh.host import Host
from spraydry.stores.ssh.protocol import Garbled

T = TypeVar("T")

CHANNELS = 8  # OpenSSH's sshd lets a connection have ten
_ANSWER_WITHIN_S = 60.0
# With 2 MiB, the default, no more than that is read in a round trip.
_WINDOW_BYTES = 16 << 20
# What opening a channel raises of its own, on a connection that lives.
_SAID = (paramiko.SSHException, OSError, EOFError, Garbled, SprayDryError)


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
            raise _Lost(f"the connection to {self.host} was lost ({reason(error)}); try again") from None


def _channel(client: Any) -> SftpChannel:
    transport = client.get_transport()
    # paramiko waits without end for one of these answers. A connection that gives none is of no use to others either.
    late = threading.Timer(CONNECT_WITHIN_S, transport.close)
    late.daemon = True
    late.start()
    try:
        channel = transport.open_session(window_size=_WINDOW_BYTES, timeout=_ANSWER_WITHIN_S)
        try:
            channel.settimeout(_ANSWER_WITHIN_S)
            channel.invoke_subsystem("sftp")
            return SftpChannel(channel)
        except BaseException:
            channel.close()
            raise
    except Exception as error:
        if late.finished.is_set():
            raise TimeoutError from None
        if transport.is_active() and isinstance(error, _SAID):
            raise
        # Whatever its thread met, which paramiko hands on: even before the transport is told to be inactive.
        raise EOFError(reason(error)) from None
    finally:
        late.cancel()
