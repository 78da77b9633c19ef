"""Asking a server, one connection for each question."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

from spraydry.web.grant import Right
from spraydry.web.guard import tokenfile
from spraydry.web.guard.tokenfile import Given


@dataclass
class Answer:
    """What came back; names of headers in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """The class of the error it tells."""
        return str(json.loads(self.body)["kind"])


class Asker:
    """Asks one server over one connection, and over another one when that was closed."""

    def __init__(self, port: int, secure: ssl.SSLContext | None = None) -> None:
        self._connection = (
            http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            if secure is None
            else http.client.HTTPSConnection("localhost", port, timeout=300, context=secure)
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        """One request; `_` in the names of headers stands for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        kept = self._connection.sock is not None
        try:
            try:
                self._connection.request(method, path, body, named)
                response = self._connection.getresponse()
            except ConnectionError:  # a server may close a connection that is kept at any time
                self._connection.close()
                if not kept:
                    raise
                self._connection.request(method, path, body, named)
                response = self._connection.getresponse()
            told = {key.lower(): value for key, value in response.getheaders()}
            if path.partition("?")[0].endswith("/transactions") and response.status < 300:
                self._connection.close()  # its answer lasts as long as the transaction
                return Answer(response.status, b"", told)
            return Answer(response.status, response.read(), told)
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    token: str | None = None,
    secure: ssl.SSLContext | None = None,
    **headers: str,
) -> Answer:
    """One request over a connection of its own."""
    asker = Asker(port, secure)
    try:
        return asker.ask(method, path, body, token=token, **headers)
    finally:
        asker.close()


def token(path: Path, name: str, *rights: Right, quota_bytes: int | None = None, **patterns: tuple[str, ...]) -> str:
    """A new token in a file; its secret."""
    return tokenfile.add(path, name, [Given(rights, **patterns)], quota_bytes=quota_bytes)[1]
