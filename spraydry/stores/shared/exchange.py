"""Requests to one web server, by the standard library: over connections that are kept, in bounded time and memory."""

from __future__ import annotations

import http.client
import io
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from spraydry.errors import StoreError, StoreUnavailable, UsageError
from spraydry.stores.shared.route import Route

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")
Body = bytes | Iterable[bytes]  # in pieces that are made while they are sent

_PATIENCE_S = 30.0  # to connect, for each piece that is sent, and for each answer beside what its bytes take
_SLOWEST_BYTES_S = 4096
_PART_BYTES = 1 << 20
_PIECE_BYTES = 64 << 10
_URL = re.compile("[!-~]+")

# obstore's HTTPStore follows redirects to other hosts, cannot be told not to, and tries a 503 ten times by itself; for
# that http.client takes as little time on loopback (9,200 requests/s of CPU, obstore 10,500).


class Answer(NamedTuple):
    """What a server said. `repeated`: the request was sent twice, for a connection ended before the first answer: what
    it asks for may have been done the first time."""

    status: int
    headers: Message
    body: bytes
    repeated: bool


class TooLong(Exception):
    """A server gives more bytes than it may."""


class Away(StoreUnavailable):
    """Nobody answers there, or only who says that somebody will: it may be that a server is started anew."""


class Exchange:
    """One web server and a folder of it. Blocks; threads may share it: each call has a connection to itself."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        connect_s: float | None = None,
        answer_s: float | None = None,
        ask_after_s: float | None = None,
        alive: Callable[[], bool] | None = None,
    ) -> None:
        """`headers` go with each request. `connect_s`: how long connecting may take, `answer_s`: how long the first
        byte of an answer may. Where nothing of it came after `ask_after_s`, `alive` says whether to wait on, and again
        after as long. Raises UsageError for an address that is none."""
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises where that is no number
        except ValueError:
            raise UsageError(
                f"{url!r} is not an address: it is to be {url.partition(':')[0]}://HOST[:PORT]/PATH"
            ) from None
        if parts.username is not None or parts.password is not None:
            raise UsageError(f"{parts.scheme}: takes no user or password in the address, and knows none elsewhere")
        if not parts.hostname or parts.query or parts.fragment or not _URL.fullmatch(url):
            raise UsageError(f"{url!r} is not an address: it is to be {parts.scheme}://HOST[:PORT]/PATH, %-encoded")
        self._route = Route(parts)
        self._folder = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{self._folder}"
        self._headers = {"User-Agent": "spraydry", **self._route.headers, **(headers or {})}
        self._connect_s = connect_s
        self._response = partial(_Response, _Waiting(answer_s, ask_after_s, alive))
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False

    @property
    def named(self) -> str:
        """For messages about reaching it."""
        return f"{self.url}{self._route.by}"

    def request(self, method: str, path: str, most: int, headers: dict[str, str], body: Body | None = None) -> Answer:
        """Whatever the server answers, of at most `most` bytes. Raises Away where it does not, TooLong."""

        def take(response: http.client.HTTPResponse) -> tuple[int, Message, bytes]:
            if method == "HEAD":
                response.read()
                return response.status, response.headers, b""
            return response.status, response.headers, read_body(response, most)

        (status, said, came), repeated = self.ask(method, path, headers, take, body)
        return Answer(status, said, came, repeated)

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        take: Callable[[http.client.HTTPResponse], T],
        body: Body | None = None,
    ) -> tuple[T, bool]:
        """What `take` makes of the response, and whether the request was sent twice: never one whose body is made while
        it is sent. Raises Away and other StoreErrors, and what `take` raises, and making the body."""
        repeated = False
        while True:
            try:
                connection, used = self._idle.pop() if body is None or isinstance(body, bytes) else None, True
            except IndexError:
                connection = None
            if connection is None:
                connection, used = self._connection(), False
            keep, response = False, None
            try:
                self._send(connection, method, path, headers, body)
                response = connection.getresponse()
                taken = take(response)
                keep = response.isclosed() and connection.sock is not None
                return taken, repeated
            except ConnectionRefusedError:
                raise Away(f"{self.named} cannot be reached: nothing answers there") from None
            except (ConnectionError, http.client.RemoteDisconnected):
                if used:
                    repeated = True
                    continue  # the server closed it while it lay idle
                raise Away(f"{self.named} cut the connection; try again") from None
            except ssl.SSLCertVerificationError as error:
                raise StoreError(
                    f"{self.named}: its certificate is not good: {error.verify_message.rstrip('.')}; one that nobody"
                    " vouches for can be trusted by a file that $SSL_CERT_FILE names"
                ) from None
            except ssl.SSLError as error:
                if error.reason != "WRONG_VERSION_NUMBER":
                    raise Away(f"{self.named} cannot be reached: {error.reason or error}") from None
                raise StoreError(f"{self.named} does not speak TLS there: write http:// if that is meant") from None
            except TimeoutError:
                raise Away(f"{self.named} does not answer in time; try again") from None
            except OSError as error:
                error.with_traceback(
                    None
                )  # or the answer of a proxy that refuses, which Python 3.11 leaves open, stays
                raise Away(f"{self.named} cannot be reached: {error.strerror or error}") from None
            except http.client.HTTPException as error:
                raise Away(f"{self.url} broke off, or is no web server: {type(error).__name__}") from None
            finally:
                if keep:
                    self._idle.append(connection)
                    if self._closed:
                        self.close()  # meanwhile
                else:
                    if response is not None:
                        response.close()
                    connection.close()

    def close(self) -> None:
        """Close the connections; those in use when that ends."""
        self._closed = True
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _connection(self) -> http.client.HTTPConnection:
        connection = self._route.connection(_PATIENCE_S if self._connect_s is None else self._connect_s)
        connection.response_class = self._response  # type: ignore[assignment]
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Body | None,
    ) -> None:
        target = f"{self._route.before}{self._folder}/{path}"
        if body is None:
            connection.request(method, target, headers={**self._headers, **headers})
            return
        sent = {**self._headers, **headers}
        try:
            if isinstance(body, bytes):
                sent["Content-Length"] = str(len(body))
                connection.request(method, target, _pieces(connection, body), sent)
            else:
                connection.request(method, target, _patiently(connection, body), sent)
        except (BrokenPipeError, ConnectionResetError):
            if connection.sock is None:
                raise
            # It ended the connection before it had everything: it may have said why.


class _Waiting(NamedTuple):
    """How long to wait for an answer."""

    answer_s: float | None
    ask_after_s: float | None
    alive: Callable[[], bool] | None


def _pieces(connection: http.client.HTTPConnection, body: bytes) -> Iterator[memoryview]:
    """A body in pieces, for the time of each is bounded, not that of all, which a slow line may take long for."""
    connection.sock.settimeout(_PATIENCE_S)
    view = memoryview(body)
    for at in range(0, len(body), _PIECE_BYTES):
        yield view[at : at + _PIECE_BYTES]


def _patiently(connection: http.client.HTTPConnection, body: Iterable[bytes]) -> Iterator[bytes]:
    """As `_pieces`, of a body whose pieces are made while it is sent."""
    connection.sock.settimeout(_PATIENCE_S)
    yield from body


def read_body(response: http.client.HTTPResponse, most: int) -> bytes:
    """All of it. Raises TooLong, and IncompleteRead where the connection ends before."""
    if (response.length or 0) > most:
        raise TooLong
    parts, held = [], 0
    while part := response.read(min(_PART_BYTES, most - held + 1)):
        parts.append(part)
        held += len(part)
        if held > most:
            raise TooLong
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Response(http.client.HTTPResponse):
    """An answer that must come within a time: one byte every 29 seconds would be one for ever."""

    def __init__(
        self,
        waiting: _Waiting,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ):
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, waiting), 1 << 16)


class _Timed(io.RawIOBase):
    """What comes through a socket, until the time for it is up."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, waiting: _Waiting) -> None:
        self._raw = raw
        self._socket = sock
        self._waiting: _Waiting | None = waiting
        self._deadline = time.monotonic() + (_PATIENCE_S if waiting.answer_s is None else waiting.answer_s)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        if self._waiting is not None:
            self._wait(self._waiting)
            self._waiting = None
            self._deadline = min(self._deadline, time.monotonic() + _PATIENCE_S)
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        count = self._raw.readinto(buffer)
        self._deadline += (count or 0) / _SLOWEST_BYTES_S
        return count

    def _wait(self, waiting: _Waiting) -> None:
        """Until there is something to read, or nobody there any more."""
        if waiting.alive is None or waiting.ask_after_s is None:
            return
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not poll.poll(waiting.ask_after_s * 1000):
            if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                return
            if time.monotonic() > self._deadline or not waiting.alive():
                raise TimeoutError

    def close(self) -> None:
        self._raw.close()
        super().close()
