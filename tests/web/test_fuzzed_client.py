"""Clients that send anything at all, and servers that die while they do: nothing wrong is stored, and nothing half."""

from __future__ import annotations

import http.client
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from spraydry.actions.verify import verify
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from spraydry.stores.base import NAMESPACES
from spraydry.stores.remote import wire
from tests.versions import make_version
from tests.web.serving import Running, serving

_EXAMPLES = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Target:
    """A server, and what its repository held when it began."""

    server: Running
    url: str
    values: dict[str, dict[str, bytes]]

    def send(self, *parts: bytes) -> bytes:
        """Send bytes over a connection of its own, hang up, and what comes back."""
        got = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=300) as connection:
            with suppress(OSError):
                for part in parts:
                    connection.sendall(part)
                connection.shutdown(socket.SHUT_WR)
            with suppress(OSError):
                while part := connection.recv(1 << 16):
                    got += part
        return got

    def ask(self, sent: bytes) -> bytes:
        """As `send`, without hanging up: the server does, where it is asked to."""
        got = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=300) as connection:
            with suppress(ConnectionError):
                connection.sendall(sent)
            with suppress(ConnectionError):
                while part := connection.recv(1 << 16):
                    got += part
        return got

    def check_answer(self, got: bytes) -> int:
        """The status, 0 for no answer; never that something went wrong in the server."""
        if not got:
            return 0
        assert got.startswith(b"HTTP/1.1 "), got[:100]
        status = int(got[9:12])
        assert status < 500 or status == 501, got[:1000]  # 501: a transfer encoding that nobody needs
        return status


def held(url: str) -> dict[str, dict[str, bytes]]:
    with Repository.open(url, read_only=True) as repository:
        return {
            namespace: {stored.name: repository.store.get(namespace, stored.name) for stored in listed}
            for namespace in NAMESPACES
            for listed in [list(repository.store.list(namespace))]
        }


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzzed")
    url = str(folder / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "photos", {b"a.txt": b"content " * 50, b"sub": {b"b": b"other " * 900}})
    with serving(folder / "run", SPRAYDRY_REPO=url) as server:
        made = Target(server, url, held(url))
        yield made
        with urlopen(f"{server.url}/healthz") as answer:
            assert answer.status == 200
        assert "Traceback" not in server.log.read_text(), server.log.read_text()[-3000:]
        # leases are whoever's; all else is as it was, for nothing that came was what it said
        found = held(url)
        assert {**found, "leases": {}} == {**made.values, "leases": {}}
        with Repository.open(url) as repository:
            assert verify(repository).sound
        assert server.end() == 0


methods = st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"X" * 300, b"get", b""])
odd = st.binary(max_size=40) | st.sampled_from([b"..", b"%2e%2e", b"%00", b"%ff", b"%0a", b"%", b"%2f", b"~", b"*"])
paths = st.sampled_from(
    [
        b"/v1/",
        b"/v1/stat",
        b"/v1/roots",
        b"/v1/trees/photos@v1/",
        b"/v1/trees/",
        b"/v1/values/frames/",
        b"/v1/values/log/",
        b"/v1/values/config/",
        b"/v1/values/",
        b"/v1/chunks/",
        b"/v1/batch/get",
        b"/v1/batch/put?namespace=frames",
        b"/v1/openapi.json",
        b"/",
        b"",
    ]
)
headers = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 9000000000",
        b"Content-Length: 1, 2",
        b"Content-Length: \xb2",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Range: bytes=0-0",
        b"Range: bytes=5-2",
        b"Range: bytes=-0",
        b"Range: bytes=99999999999999999999-",
        b"Range: bytes=0-1,3-4",
        b"Range: lines=1-2",
        b"Range: \xff",
        b"If-Range: x",
        b'If-None-Match: *, "',
        b"If-None-Match: *",
        b"If-Match: *",
        b"Expect: 100-continue",
        b"Connection: close",
        b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA",
        b"Upgrade: websocket",
        b"Authorization: Bearer \xff",
        b"X: " + b"y" * 20_000,
        b"no colon",
        b": no name",
    ]
)
bodies = st.binary(max_size=300) | st.sampled_from(
    [
        b"5\r\nabcde\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b'{"namespace": "frames", "names": ["' + b"0" * 64 + b'"]}',
        b'{"namespace": "config", "names": ["stores"]}',
        b'{"namespace": "frames", "names": [1]}',
        b"[" * 5000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
)


@_EXAMPLES
@given(methods, paths, odd, st.lists(headers, max_size=4), bodies)
@example(b"GET", b"/v1/values/frames/", b"a\n", [], b"")
@example(b"GET", b"/v1/values/frames/", b"%0a", [], b"")
@example(b"POST", b"/v1/batch/get", b"", [b"Content-Length: 44"], b'{"namespace": "frames", "names": ["a\\n"]}   ')
def test_broken_http(target: Target, method: bytes, path: bytes, tail: bytes, fields: list[bytes], body: bytes) -> None:
    target.check_answer(
        target.send(
            method + b" " + path + tail + b" HTTP/1.1\r\nHost: localhost\r\n" + b"\r\n".join([*fields, b"\r\n"]), body
        )
    )


@_EXAMPLES
@given(st.binary(max_size=400))
def test_bytes_that_are_no_http(target: Target, sent: bytes) -> None:
    got = target.send(sent)
    assert not got.startswith(b"HTTP/1.1 5"), got[:200]


def request(method: str, path: str, body: bytes, *fields: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", "Connection: close"]
    told = "\r\n".join([*head, *fields, "\r\n"])
    return told.encode("latin-1") + body


@_EXAMPLES
@given(st.data())
def test_values_that_are_altered(target: Target, data: st.DataObject) -> None:
    """A value that is there with some bytes changed, under its own name and under that of what it is now: whatever
    decodes all the same must not be in any listing afterwards."""
    namespace = data.draw(st.sampled_from(["frames", "index", "log"]))
    name, value = data.draw(st.sampled_from(sorted(target.values[namespace].items())))
    altered = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(altered) - 1))
        altered[at] ^= data.draw(st.integers(1, 255))
    kept = data.draw(st.integers(0, len(altered)) | st.just(len(altered)))
    sent = bytes(altered[:kept]) + data.draw(st.binary(max_size=5))
    if sent == value:
        return
    if namespace == "log":
        plain = sent[:-32]
        sent = data.draw(st.sampled_from([sent, plain + digest(plain)]))
        name = f"{int(name) + data.draw(st.integers(0, 2)):012d}"
    elif data.draw(st.booleans()) and namespace == "index":
        name = digest(sent).hex()
    create = ["If-None-Match: *"] if namespace == "log" or data.draw(st.booleans()) else []
    status = target.check_answer(target.ask(request("PUT", wire.value_path(namespace, name), sent, *create)))
    assert status in (409, 412, 422), (namespace, name, status)
    stream = wire.value_item(name, sent) + wire.END_ITEM
    assert target.check_answer(target.ask(request("POST", wire.put_path(namespace), stream))) == 422


@_EXAMPLES
@given(st.data())
def test_streams_of_values_that_are_cut_or_altered(target: Target, data: st.DataObject) -> None:
    values = sorted(target.values["frames"].items())
    stream = bytearray(b"".join(wire.encode_values([*values, ("0" * 64, b"no such frame")])))
    for _ in range(data.draw(st.integers(0, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(stream)))
    told = request("POST", wire.put_path("frames"), bytes(stream))
    whole = cut == len(stream)
    got = target.ask(told) if whole else target.send(told[: len(told) - len(stream) + cut])
    assert target.check_answer(got) in ((422,) if whole else (0, 400, 422))


def test_uploads_that_are_cut_in_the_middle(target: Target) -> None:
    made = frames.encode([random.Random(1).randbytes(400_000)], "other")
    told = request("PUT", wire.value_path("frames", made.name.hex()), made.stored)
    for at in (len(told) - 1, len(told) // 2, len(told) - len(made.stored), 30):
        assert target.check_answer(target.send(told[:at])) in (0, 400)
    head = wire.value_item(made.name.hex(), made.stored)
    for body in (head, head[:-1], wire.head_of(wire.Kind.VALUE, made.name.hex(), 1 << 62)):
        assert target.check_answer(target.ask(request("POST", wire.put_path("frames"), body))) == 422


def test_lengths_nobody_means(target: Target) -> None:
    for said in (1 << 33, 1 << 62):
        path = wire.value_path("frames", "0" * 64)
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {said}\r\n\r\n"
        assert target.check_answer(target.ask(head.encode())) == 413


# -- a server that is killed


@pytest.mark.parametrize("scheme", ["sqlite", "dir"])
def test_a_server_killed_in_the_middle_of_uploads_leaves_nothing_half(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}:{tmp_path / 'repository'}"
    rng = random.Random(7)
    made = [frames.encode([rng.randbytes(200_000)], "other") for _ in range(60)]
    stored: set[str] = set()

    def upload(port: int, one: frames.Encoded) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        with suppress(OSError, http.client.HTTPException):
            connection.request("PUT", wire.value_path("frames", one.name.hex()), one.stored)
            if connection.getresponse().status == 201:
                stored.add(one.name.hex())
        connection.close()

    with serving(tmp_path / "run", SPRAYDRY_REPO=url) as server:
        half = made[-1].stored
        with socket.create_connection(("127.0.0.1", server.port)) as open_one:  # half of one is there all the time
            open_one.sendall(request("PUT", wire.value_path("frames", made[-1].name.hex()), half)[: -len(half) // 2])
            with ThreadPoolExecutor(6) as pool:
                waiting = [pool.submit(upload, server.port, one) for one in made[:-1]]
                for one in waiting[:20]:
                    one.result()
                server.kill()
                for one in waiting:
                    one.result()
    assert 20 <= len(stored) < len(made)
    with serving(tmp_path / "again", SPRAYDRY_REPO=url) as server:
        with Repository.open(server.url) as client:
            there = {one.name: client.store.get("frames", one.name) for one in client.store.list("frames")}
        assert stored <= there.keys() and made[-1].name.hex() not in there
        assert all(digest(value).hex() == name for name, value in there.items())
        for one in made:
            upload(server.port, one)
        assert stored == {one.name.hex() for one in made}
    with Repository.open(url) as repository:
        repository.rebuild_catalog()
        assert verify(repository).sound
