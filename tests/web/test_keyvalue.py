"""`/v1/` over real connections: values, batches and what is refused."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import Row, encode_run
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from spraydry.stores.remote import wire
from tests.web.serving import serving


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["kind"])


@dataclass
class Client:
    """Asks one server, over a new connection each time."""

    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return Answer(
                response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
            )
        finally:
            connection.close()

    def put(self, namespace: str, name: str, value: bytes, create: bool = False) -> Answer:
        return self.ask("PUT", wire.value_path(namespace, name), value, **({"If_None_Match": "*"} if create else {}))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("served") / "repository.sqlite")


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving(tmp_path_factory.mktemp("server"), SPRAYDRY_REPO=url) as server:
        yield Client(server.port)


def test_greeting(client: Client, url: str) -> None:
    found = wire.greeting_of(client.ask("GET", "/v1/").body)
    assert found is not None and not found.read_only and found.complete
    with Repository.open(url) as repository:
        assert found.repository == repository.config.repository.hex()


def test_values(client: Client) -> None:
    made = frames.encode([b"one chunk" * 100, b"another" * 50], "other")
    path = wire.value_path("frames", made.name.hex())
    assert client.ask("GET", path).status == 404
    assert client.put("frames", made.name.hex(), made.stored).status == 201
    assert client.put("frames", made.name.hex(), made.stored, create=True).status == 412
    got = client.ask("GET", path)
    assert (got.status, got.body) == (200, made.stored)
    assert got.headers["etag"] == f'"{made.name.hex()}"' and "immutable" in got.headers["cache-control"]
    part = client.ask("GET", path, Range="bytes=4-7")
    assert (part.status, part.body) == (206, made.stored[4:8])
    assert part.headers["content-range"] == f"bytes 4-7/{len(made.stored)}"
    assert client.ask("GET", path, If_None_Match=got.headers["etag"]).status == 304
    assert client.ask("GET", path, Range="bytes=99999999-").status == 416
    head = client.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(made.stored)))
    run = encode_run(
        [frame_info(made.name, made.header, len(made.stored))],
        [Row(digest(b"one chunk" * 100), 0, 0, 900), Row(digest(b"another" * 50), 0, 900, 350)],
    )
    assert client.put("index", digest(run).hex(), run).status == 201
    chunk = client.ask("GET", f"/v1/chunks/{digest(b'another' * 50).hex()}", Range="bytes=-7")
    assert (chunk.status, chunk.body) == (206, b"another")


def test_what_is_no_value_is_refused(client: Client) -> None:
    made = frames.encode([os.urandom(100)], "other")
    other = frames.encode([os.urandom(100)], "other")
    assert client.put("frames", made.name.hex(), other.stored).status == 422
    broken = made.stored[:-1] + bytes([made.stored[-1] ^ 1])
    assert client.put("frames", made.name.hex(), broken).status == 422
    for name in ("config", "stores", "origin", "bundle"):
        assert client.put("config", name, b"x").status == 422
    assert client.ask("GET", "/v1/values/config/config").status == 200
    assert client.ask("GET", "/v1/values/config/stores").status == 404
