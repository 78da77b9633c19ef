"""One server of a repository: requests to it, what it says of itself, how far away it is, why it refuses."""

from __future__ import annotations

import http.client
import math
import re
import time
from collections.abc import Callable
from email.message import Message
from typing import TypeVar
from urllib.parse import urlsplit

from spraydry.errors import (
    CorruptData,
    SprayDryError,
    StoreError,
    StoreNotFound,
    StoreUnavailable,
)
from spraydry.stores.remote.tokens import token_for, where_to_put
from spraydry.stores.remote.wire import ROOT, Failure, Greeting, decode, encode, error_of, greeting_of
from spraydry.stores.shared.exchange import Answer, Away, Body, Exchange, TooLong, read_body
from spraydry.stores.shared.web import Part, WebServer

T = TypeVar("T")

_CONNECT_S = 10.0
_ANSWER_S = 300.0  # a request that took longer did not arrive, or its answer did not
_SILENT_S = 2.0  # after so long without a byte of an answer the server is asked whether it is there
_GREETING_S = 3.0  # where there are others
_GREETINGS = 3  # the quickest says how far it is
_FAR_S = 0.05
_REFUSAL_BYTES = 64 << 10
_LINE = 500
_UNPRINTABLE = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\uffff]+")
_REALM = 'realm="spraydry"'
_MOST_AFTER_S = 30.0
_OF_PROXIES = (502, 503, 504)


class Busy(StoreUnavailable):
    """A server that wants to be left alone for `after_s`."""

    after_s = 1.0


class Later(Busy, Away):
    """A server that takes no more at present, or what stands before one that is not there."""


class Server:
    """Blocks; threads may share it. `alone`: there is no other to go to, so this one is given more time."""

    def __init__(self, url: str, alone: bool) -> None:
        """Raises UsageError for an address that is none, and for tokens that cannot be used."""
        self.url = Exchange(url).url
        parts = urlsplit(url)
        assert parts.hostname is not None
        token = token_for(parts.scheme, parts.hostname, parts.port)
        self._has_token = token is not None
        self._no_token = where_to_put()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        greeting_s = None if alone else _GREETING_S
        self._greeter = Exchange(url, headers, connect_s=greeting_s or _CONNECT_S, answer_s=greeting_s)
        self._exchange = Exchange(
            url, headers, connect_s=_CONNECT_S, answer_s=_ANSWER_S, ask_after_s=_SILENT_S, alive=self._is_there
        )
        self._files = WebServer(self._exchange, self.refusal)
        self.round_trip_s = math.inf

    def greet(self) -> Greeting | None:
        """What it says of its repository, measuring how far it is; None where something else answers. Raises
        StoreErrors."""
        quickest_s, found = math.inf, None
        for _ in range(_GREETINGS):
            began_s = time.perf_counter()
            found = self._greeted()
            if found is None:
                return None
            quickest_s = min(quickest_s, time.perf_counter() - began_s)
            if quickest_s > _FAR_S:
                break  # the first connects, too: that makes no difference so far away
        self.round_trip_s = quickest_s
        return found

    def get(self, path: str, most: int, start: int | None, stop: int | None, headers: dict[str, str]) -> Part | None:
        """As WebServer.get."""
        return self._files.get(path[1:], most, start, stop, headers)

    def size(self, path: str) -> int | None:
        """As WebServer.size."""
        return self._files.size(path[1:])

    def request(
        self,
        method: str,
        path: str,
        most: int,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        *,
        takes: tuple[int, ...] = (200, 201, 204),
    ) -> Answer:
        """An answer with one of those statuses. Raises what the server says is wrong, StoreUnavailable, TooLong."""
        answer = self._exchange.request(method, path[1:], most, headers or {}, body)
        if answer.status not in takes:
            raise self.refusal(answer.status, answer.headers, answer.body)
        return answer

    def post(self, path: str, body: bytes, headers: dict[str, str], take: Callable[[http.client.HTTPResponse], T]) -> T:
        """What `take` makes of the answer to a POST. Raises as `request`, and what `take` raises."""

        def taken(response: http.client.HTTPResponse) -> T:
            if response.status != 200:
                raise self.refusal(response.status, response.headers, read_body(response, _REFUSAL_BYTES))
            return take(response)

        return self._exchange.ask("POST", path[1:], headers, taken, body)[0]

    def close(self) -> None:
        """Close the connections nobody uses at the moment."""
        self._greeter.close()
        self._exchange.close()

    def _is_there(self) -> bool:
        try:
            self._greeter.request("GET", ROOT[1:], _REFUSAL_BYTES, {})
        except (StoreError, TooLong):
            return False
        return True

    def _greeted(self) -> Greeting | None:
        try:
            answer = self._greeter.request("GET", ROOT[1:], _REFUSAL_BYTES, {"Cache-Control": "no-cache"})
        except TooLong:
            return None
        if answer.status == 200:
            return greeting_of(answer.body)
        if answer.status >= 500 or answer.status in (408, 425, 429):
            raise self.refusal(answer.status, answer.headers, answer.body)
        if answer.status == 401 and _REALM in answer.headers.get("WWW-Authenticate", ""):
            raise self.refusal(answer.status, answer.headers, answer.body)
        failure = _failure_of(answer.body)
        if failure is None:
            return None
        if answer.status == 404:
            raise StoreNotFound(
                f"there is no repository at {self.url}, though a spraydry server answers there: one that serves"
                " several has each below its name, HOST:PORT/NAME"
            )
        raise self.refusal(answer.status, answer.headers, answer.body)

    def refusal(self, status: int, headers: Message, body: bytes) -> SprayDryError:
        """The error a refusal stands for, in one line."""
        if status == 401:
            if self._has_token:
                return StoreError(f"{self.url}: the server does not know this token, or not any more")
            return StoreError(f"{self.url} wants a token: {self._no_token}")
        if 300 <= status < 400:
            return StoreError(
                f"{self.url}: the server says it is elsewhere (status {status}): give the address of that"
            )
        failure = _failure_of(body)
        if failure is not None:
            # What a server writes goes to a terminal.
            line = _UNPRINTABLE.sub("?", failure.error)[:_LINE]
            body = encode(Failure(error=line, kind=failure.kind))
        error = error_of(status, body, self.url)
        if not isinstance(error, StoreUnavailable):
            return error
        said = headers.get("Retry-After", "")
        after_s = min(float(said), _MOST_AFTER_S) if said.isdecimal() and len(said) < 5 else None
        kind = Later if status == 429 or (failure is None and status in _OF_PROXIES) else Busy
        if after_s is None and kind is Busy:
            return error
        busy = kind(str(error))
        busy.after_s = busy.after_s if after_s is None else after_s
        return busy


def _failure_of(body: bytes) -> Failure | None:
    try:
        return decode(body, Failure)
    except CorruptData:
        return None
