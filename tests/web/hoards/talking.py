"""Plain HTTP to a server's hoards, as programs without spraydry speak it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.web.serving import Running


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: Running, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request on a connection of its own; header names have `_` for `-`."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def key(name: str, hoard: str = "photos") -> str:
    """The path of a key."""
    return f"/v1/hoards/{hoard}/keys/{quote(name)}"


def keys(server: Running, hoard: str = "photos") -> list[str]:
    """All keys that are listed."""
    answer = ask(server, "GET", f"/v1/hoards/{hoard}/keys", Cache_Control="no-cache")
    assert answer.status == 200, answer
    return [file["key"] for file in answer.json["files"]]


class Held:
    """The connection that keeps a transaction open."""

    def __init__(self, server: Running, hoard: str = "photos") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        self.connection.request("POST", f"/v1/hoards/{hoard}/transactions")
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        self.name: str = json.loads(self.response.readline())["transaction"]
        self.path = f"/v1/hoards/{hoard}/transactions/{self.name}"

    def rest(self) -> Any:
        """What the last line says, once it comes."""
        return json.loads(self.response.read().split()[-1])  # which raises where the answer is not whole

    def drop(self) -> None:
        self.response.close()
        self.connection.close()


@contextmanager
def transaction(server: Running, hoard: str = "photos") -> Iterator[Held]:
    """One that is open, until the end of the block."""
    held = Held(server, hoard)
    try:
        yield held
    finally:
        held.drop()
