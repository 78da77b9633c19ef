"""GETs from one web server, by the standard library: with ranges, over connections that are kept, in bounded time."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from spraydry.errors import StoreError, StoreUnavailable, UsageError
from spraydry.stores.shared.route import Route

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PATIENCE_S = 30.0  # to connect, and for each answer beside what its bytes take
_SLOWEST_BYTES_S = 4096
_PART_BYTES = 1 << 20
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_END = re.compile(r"bytes \*/([0-9]{1,18})")
_URL = re.compile("[!-~]+")

# obstore's HTTPStore follows redirects to other hosts, cannot be told not to, and tries a 503 ten times by itself; for
# that http.client takes as little time on loopback (9,200 requests/s of CPU, obstore 10,500).


class Part(NamedTuple):
    """What a server gave of a value: the part that was asked for if `partial`, else all; `size`: of all (None: not
    said)."""

    body: bytes
    size: int | None = None
    partial: bool = False


class TooLong(Exception):
    """A server gives more bytes than it may."""


class WebServer:
    """One web server and a folder of it. Blocks; threads may share it: each call has a connection to itself."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for an address that is none."""
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
        self._idle: list[http.client.HTTPConnection] = []

    def get(
        self, path: str, most: int, start: int | None = None, stop: int | None = None, *, fresh: bool = False
    ) -> Part | None:
        """The bytes from `start` (below 0: from the end) to before `stop`, or, also where the server knows no ranges,
        all, in any case at most `most`; None if there is nothing. `fresh`: not from a cache on the way. Raises
        StoreErrors, TooLong."""
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        if start is not None:
            headers["Range"] = f"bytes={start}" if start < 0 else f"bytes={start}-{'' if stop is None else stop - 1}"
        return self._ask("GET", path, headers, most)

    def size(self, path: str) -> int | None:
        """The size of a value; None if there is none. Raises StoreErrors."""
        part = self._ask("HEAD", path, {}, 0)
        if part is not None and part.size is None:
            raise StoreError(f"{self.url}: the server does not say how long {path} is")
        return None if part is None else part.size

    def close(self) -> None:
        """Close the connections nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, method: str, path: str, headers: dict[str, str], most: int) -> Part | None:
        while True:
            try:
                connection, used = self._idle.pop(), True
            except IndexError:
                connection, used = self._connection(), False
            keep, response = False, None
            try:
                target = f"{self._route.before}{self._folder}/{path}"
                connection.request(method, target, headers={"User-Agent": "spraydry", **self._route.headers, **headers})
                response = connection.getresponse()
                answer = self._answer(response, method, path, headers, most)
                keep = response.isclosed() and connection.sock is not None
                return answer
            except ConnectionRefusedError:
                raise StoreUnavailable(f"{self._named} cannot be reached: nothing answers there") from None
            except (ConnectionError, http.client.RemoteDisconnected):
                if used:
                    continue  # the server closed it while it lay idle
                raise StoreUnavailable(f"{self._named} cut the connection; try again") from None
            except ssl.SSLCertVerificationError as error:
                raise StoreError(
                    f"{self._named}: its certificate is not good: {error.verify_message.rstrip('.')}; one that nobody"
                    " vouches for can be trusted by a file that $SSL_CERT_FILE names"
                ) from None
            except TimeoutError:
                raise StoreUnavailable(f"{self._named} does not answer in time; try again") from None
            except OSError as error:
                error.with_traceback(
                    None
                )  # or the answer of a proxy that refuses, which Python 3.11 leaves open, stays
                raise StoreUnavailable(f"{self._named} cannot be reached: {error.strerror or error}") from None
            except http.client.HTTPException as error:
                raise StoreUnavailable(f"{self.url} broke off, or is no web server: {type(error).__name__}") from None
            finally:
                if keep:
                    self._idle.append(connection)
                else:
                    if response is not None:
                        response.close()
                    connection.close()

    @property
    def _named(self) -> str:
        """For messages about reaching it."""
        return f"{self.url}{self._route.by}"

    def _connection(self) -> http.client.HTTPConnection:
        connection = self._route.connection(_PATIENCE_S)
        connection.response_class = _Response
        return connection

    def _answer(
        self, response: http.client.HTTPResponse, method: str, path: str, headers: dict[str, str], most: int
    ) -> Part | None:
        status, wanted = response.status, headers.get("Range")
        if status not in (200, 206):
            if status in (404, 410):
                _drain(response)
                return None
            if status == 416 and wanted:  # it begins behind the end
                _drain(response)
                end = _END.fullmatch(response.getheader("Content-Range", ""))
                return Part(b"", int(end[1]) if end else None, True)
            raise self._refusal(status)
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise StoreError(f"{self.url}: the server packs what it serves, though it was told not to: switch that off")
        if method == "HEAD":
            response.read()
            return Part(b"", _length(response))
        if status == 200:
            body = _body(response, most)
            return Part(body, len(body))
        length, size = self._range(response, wanted)
        body = _body(response, min(most, length))
        if len(body) != length:
            raise StoreUnavailable(f"{self.url} broke off in the middle of {path}; try again")
        return Part(body, size, True)

    def _range(self, response: http.client.HTTPResponse, wanted: str | None) -> tuple[int, int]:
        """How many bytes of how many a partial answer has. Raises StoreError where it has not those it should."""
        match = _RANGE.fullmatch(response.getheader("Content-Range", ""))
        if match is not None and wanted is not None:
            first, last, size = map(int, match.groups())
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            until = size - 1 if not end or not start else min(int(end), size - 1)
            if first == (int(start) if start else max(size - int(end), 0)) and first <= last == until:
                return last - first + 1, size
        raise StoreError(f"{self.url}: the server gives other parts of a value than it was asked for")

    def _refusal(self, status: int) -> StoreError:
        if status in (429, 503, 502, 504, 500, 408):
            return StoreUnavailable(f"{self.url} is busy or broken (status {status}); try again later")
        if status == 407:
            return StoreError(f"{self._named}: the proxy lets nobody through without a password: see $http_proxy")
        if status in (401, 403):
            return StoreError(f"{self.url}: the server does not let anybody read this (status {status})")
        if 300 <= status < 400:
            return StoreError(
                f"{self.url}: the server says it is elsewhere (status {status}): give the address of that"
            )
        return StoreError(f"{self.url}: the server answers with status {status}")


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
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


def _drain(response: http.client.HTTPResponse) -> None:
    """Read what comes with a refusal, so that the connection can be kept, unless it is long."""
    response.read(1 << 16)


def _length(response: http.client.HTTPResponse) -> int | None:
    said = response.getheader("Content-Length", "")
    return int(said) if said.isdecimal() and len(said) < 19 else None


class _Response(http.client.HTTPResponse):
    """An answer that must come within a time: one byte every 29 seconds would be one for ever."""

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock), 1 << 16)


class _Timed(io.RawIOBase):
    """What comes through a socket, until the time for it is up."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        self._deadline = time.monotonic() + _PATIENCE_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        count = self._raw.readinto(buffer)
        self._deadline += (count or 0) / _SLOWEST_BYTES_S
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
