"""GETs of files from a web server that knows nothing of repositories, with ranges."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Mapping
from email.message import Message
from types import MappingProxyType
from typing import NamedTuple

from spraydry.errors import SprayDryError, StoreError, StoreUnavailable
from spraydry.stores.shared.exchange import Exchange, read_body

_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_END = re.compile(r"bytes \*/([0-9]{1,18})")


class Part(NamedTuple):
    """What a server gave of a value: the part that was asked for if `partial`, else all; `size`: of all (None: not
    said)."""

    body: bytes
    size: int | None = None
    partial: bool = False


class WebServer:
    """One web server and a folder of it. Blocks; threads may share it."""

    def __init__(
        self, exchange: Exchange, refusal: Callable[[int, Message, bytes], SprayDryError] | None = None
    ) -> None:
        """`refusal` says which error an answer of a status, with these headers and that body, stands for."""
        self._exchange = exchange
        self._refusal = refusal or self._refused
        self.url = exchange.url

    def get(
        self,
        path: str,
        most: int,
        start: int | None = None,
        stop: int | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Part | None:
        """The bytes from `start` (below 0: from the end) to before `stop`, or, also where the server knows no ranges,
        all, in any case at most `most`; None if there is nothing. Raises StoreErrors, TooLong."""
        headers = dict(headers)
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
        self._exchange.close()

    def _ask(self, method: str, path: str, headers: dict[str, str], most: int) -> Part | None:
        def take(response: http.client.HTTPResponse) -> Part | None:
            return self._answer(response, method, path, headers, most)

        return self._exchange.ask(method, path, headers, take)[0]

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
            raise self._refusal(status, response.headers, _drain(response))
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise StoreError(f"{self.url}: the server packs what it serves, though it was told not to: switch that off")
        if method == "HEAD":
            response.read()
            return Part(b"", _length(response))
        if status == 200:
            body = read_body(response, most)
            return Part(body, len(body))
        length, size = self._range(response, wanted)
        body = read_body(response, min(most, length))
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

    def _refused(self, status: int, _headers: Message, _body: bytes) -> StoreError:
        if status in (429, 503, 502, 504, 500, 408):
            return StoreUnavailable(f"{self.url} is busy or broken (status {status}); try again later")
        if status == 407:
            return StoreError(
                f"{self._exchange.named}: the proxy lets nobody through without a password: see $http_proxy"
            )
        if status in (401, 403):
            return StoreError(f"{self.url}: the server does not let anybody read this (status {status})")
        if 300 <= status < 400:
            return StoreError(
                f"{self.url}: the server says it is elsewhere (status {status}): give the address of that"
            )
        return StoreError(f"{self.url}: the server answers with status {status}")


def _drain(response: http.client.HTTPResponse) -> bytes:
    """What comes with a refusal; when it was read the connection can be kept, unless it is long."""
    return response.read(1 << 16)


def _length(response: http.client.HTTPResponse) -> int | None:
    said = response.getheader("Content-Length", "")
    return int(said) if said.isdecimal() and len(said) < 19 else None
