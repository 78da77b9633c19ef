"""Who is refused hears why, however much it was about to send, and is asked for no more of it."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.web.asking import token
from tests.web.impatient import MODULE, waits
from tests.web.serving import Running, serving

_PATIENCE_S = 120.0
_LARGE = 32 << 20


class Site(NamedTuple):
    server: Running
    reader: str
    writer: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Takes a MiB at most from whoever may write; one that reads has been here as often as it may."""
    folder = tmp_path_factory.mktemp("served")
    tokens = folder / "tokens.json"
    reader = token(tokens, "reader", "list", "read")
    writer = token(tokens, "writer", "list", "read", "add", "overwrite")
    patient = waits(linger_s=_PATIENCE_S, drain_s=_PATIENCE_S)
    arguments = ("--tokens", str(tokens), "--max-body", "1M")
    with serving(folder, *arguments, module=MODULE, SPRAYDRY_REPO=str(folder / "r.sqlite"), **patient) as running:
        yield Site(running, reader, writer)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Takes a request, and no other for a long time."""
    folder = tmp_path_factory.mktemp("busy")
    patient = waits(linger_s=_PATIENCE_S, drain_s=_PATIENCE_S)
    arguments = ("--rate", "0.0001")
    with serving(folder, *arguments, module=MODULE, SPRAYDRY_REPO=str(folder / "r.sqlite"), **patient) as running:
        urllib.request.urlopen(running.url + "/v1/").close()
        yield running


def _connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=_PATIENCE_S)


def _head(length: int | None, secret: str = "", *more: str) -> bytes:
    lines = ["PUT /v1/hoards/a/keys/b HTTP/1.1", "Host: localhost"]
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    if secret:
        lines.append(f"Authorization: Bearer {secret}")
    return "\r\n".join([*lines, *more, "", ""]).encode()


def _answer(connection: socket.socket) -> HTTPResponse:
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response


def test_who_sends_for_long_before_it_reads(site: Site, busy: Running) -> None:
    """More than sockets hold, and for longer than any single wait: what it sends is let pass."""
    piece = b"%x\r\n" % (64 << 10) + bytes(64 << 10) + b"\r\n"

    def refused(server: Running, head: bytes, body: bytes) -> HTTPResponse:
        with closing(_connected(server)) as connection:
            connection.sendall(head)
            for _ in range(100):
                connection.sendall(body)
                time.sleep(0.03)
            return _answer(connection)

    cases = {
        401: (site.server, _head(_LARGE, "wrong"), bytes(64 << 10)),
        403: (site.server, _head(1 << 20, site.reader), bytes(8 << 10)),
        413: (site.server, _head(_LARGE, site.writer), bytes(64 << 10)),
        -413: (site.server, _head(None, site.writer), piece),
        429: (busy, _head(_LARGE), bytes(64 << 10)),
    }
    with ThreadPoolExecutor(len(cases)) as pool:
        answers = {status: pool.submit(refused, *case) for status, case in cases.items()}
        for status, answer in answers.items():
            assert answer.result().status == abs(status)
            assert answer.result().headers["connection"] == "close"


def test_other_clients(site: Site, busy: Running) -> None:
    """They send all before they read."""
    large = bytes(_LARGE)
    for server, secret, status in ((site.server, "wrong", 401), (site.server, site.writer, 413), (busy, "", 429)):
        url = server.url + "/v1/hoards/a/keys/b"
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        with pytest.raises(urllib.error.HTTPError) as told:
            urllib.request.urlopen(urllib.request.Request(url, large, headers, method="PUT"))
        assert told.value.code == status
        told.value.close()
        with requests.Session() as session:
            session.trust_env = False
            assert session.put(url, large, headers=headers).status_code == status
        asked = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", "-T", "-", url]
        for name, value in headers.items():
            asked += ["-H", f"{name}: {value}"]
        for expect in ("Expect:", "Expect: 100-continue"):
            curl = subprocess.run([*asked, "-H", expect], input=large, capture_output=True, check=False)
            assert (curl.stdout, curl.returncode) == (b"%d" % status, 0), curl.stderr


def test_who_asks_first_is_not_invited_in_vain(site: Site) -> None:
    expects = "Expect: 100-continue"
    for head in (_head(500, "wrong", expects), _head(_LARGE, site.writer, expects), _head(9, site.reader, expects)):
        with closing(_connected(site.server)) as connection:
            connection.sendall(head)
            answer = _answer(connection)
            assert answer.status in (401, 403, 413) and answer.headers["connection"] == "close"
    with closing(_connected(site.server)) as connection:
        connection.sendall(_head(5, site.writer, expects))
        told = connection.recv(1 << 16)
        assert told.startswith(b"HTTP/1.1 100 ") and told.count(b"\r\n\r\n") == 1
        connection.sendall(b"hello")
        assert _answer(connection).status in (200, 201)
        connection.sendall(_head(2, site.writer) + b"it")
        assert _answer(connection).status == 200


def test_a_connection_lasts_where_all_was_there(site: Site) -> None:
    with closing(_connected(site.server)) as connection:
        for secret, status in (("wrong", 401), (site.reader, 403), (site.writer, 200)):
            connection.sendall(_head(100, secret) + bytes(100))
            answer = _answer(connection)
            assert answer.status in (status, 201) and answer.headers["connection"] is None


def test_nobody_is_listened_to_for_ever(tmp_path: Path) -> None:
    hasty = waits(linger_s=_PATIENCE_S, drain_s=0.5)
    with (
        serving(tmp_path, "--max-body", "1K", module=MODULE, SPRAYDRY_REPO=f"{tmp_path}/r.sqlite", **hasty) as server,
        closing(_connected(server)) as connection,
    ):
        connection.sendall(_head(1 << 40))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                connection.sendall(bytes(1 << 10))


def test_there_is_no_room(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--connections", "1", SPRAYDRY_REPO=f"{tmp_path}/r.sqlite") as server,
        closing(_connected(server)) as first,
    ):
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert _answer(first).status == 200
        with closing(_connected(server)) as second:
            second.sendall(_head(_LARGE) + bytes(_LARGE))
            assert _answer(second).status == 503


@pytest.mark.parametrize("ask", ["GET /healthz", "OPTIONS /healthz", "PRI *"])
def test_no_other_protocol_is_taken_up(site: Site, ask: str) -> None:
    """What h2c offers is passed over, and the request answered as if it had not."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    with closing(_connected(site.server)) as connection:
        for _ in range(2):
            connection.sendall(f"{ask} HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n".encode())
            answer = _answer(connection)
            assert answer.version == 11 and answer.headers["upgrade"] is None
            assert answer.status == {"GET": 200, "OPTIONS": 405, "PRI": 400}[ask.split()[0]]
