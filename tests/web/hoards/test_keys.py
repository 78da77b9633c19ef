"""Single keys over HTTP: bytes in and out, conditions, odd keys, clients that hang up, many at a time."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.collect import gc
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from spraydry.stores.remote import hoards as wire
from tests.web.hoards.talking import ask, key, keys
from tests.web.serving import Running, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    base = {f"XDG_{what}_HOME": str(folder / what) for what in ("CACHE", "DATA", "STATE")}
    with serving(folder, SPRAYDRY_REPO=str(folder / "repository.sqlite"), **base) as running:
        yield running


def test_put_get_delete(server: Running) -> None:
    put = ask(server, "PUT", key("a/b.txt"), b"hello")
    assert put.status == 201 and put.json["size"] == 5 and put.json["key"] == "a/b.txt"
    tag = f'"{digest(b"hello").hex()}"'
    assert put.headers["etag"] == tag and put.json["digest"] == digest(b"hello").hex()
    got = ask(server, "GET", key("a/b.txt"))
    assert (got.status, got.body, got.headers["etag"]) == (200, b"hello", tag)
    assert got.headers["content-type"].startswith("text/plain") and got.headers["x-content-type-options"] == "nosniff"
    head = ask(server, "HEAD", key("a/b.txt"))
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "5")
    part = ask(server, "GET", key("a/b.txt"), Range="bytes=1-3")
    assert (part.status, part.body) == (206, b"ell")
    assert ask(server, "GET", key("a/b.txt"), If_None_Match=tag).status == 304
    assert ask(server, "PUT", key("a/b.txt"), b"other").status == 200
    assert ask(server, "GET", "/hoards/photos/a/b.txt").body == b"other"
    assert ask(server, "DELETE", key("a/b.txt")).status == 204
    for method in ("GET", "DELETE"):
        gone = ask(server, method, key("a/b.txt"))
        assert gone.status == 404 and gone.json["kind"] == "KeyNotFound"
    events = ask(server, "GET", "/v1/hoards/photos/history/a/b.txt").json["events"]
    assert [event["size"] for event in events] == [5, 5, None]


def test_conditions(server: Running) -> None:
    path = key("conditional")
    assert ask(server, "PUT", path, b"1", If_Match="*").status == 412
    assert ask(server, "PUT", path, b"1", If_None_Match="*").status == 201
    again = ask(server, "PUT", path, b"2", If_None_Match="*")
    assert again.status == 412 and again.json["kind"] == "KeyExists"
    one, two = (f'"{digest(plain).hex()}"' for plain in (b"1", b"2"))
    assert ask(server, "PUT", path, b"2", If_Match=two).status == 412
    assert ask(server, "GET", path).body == b"1"
    assert ask(server, "PUT", path, b"2", If_Match=f"{two}, {one}").status == 200
    assert ask(server, "DELETE", path, If_Match=one).status == 412
    assert ask(server, "DELETE", path, If_Match=two).status == 204


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9_000_001])
def test_sizes(server: Running, size: int) -> None:
    plain = random.Random(size).randbytes(size)
    assert ask(server, "PUT", key(f"sizes/{size}"), plain).json["digest"] == digest(plain).hex()
    chunked = ask(server, "PUT", key(f"sizes/{size}"), iter([plain[:7], plain[7:]]))
    assert chunked.status in (200, 201)
    assert ask(server, "GET", key(f"sizes/{size}")).body == plain
    assert ask(server, "GET", key(f"sizes/{size}"), Range="bytes=-5").body == plain[-5:]


ODD = ["ä/ö.txt", "a b", "a%2Fb", "?", "#", "%", "a+b&c=d", "\u2028", "🌍", "x" * 255, "...", "a/.b", "'\"<>\\"]
BAD = [
    "%00",
    "a%00b",
    "%0a",
    "a//b",
    "/a",
    "a/",
    "%2e",
    "a/../b",
    "%2e%2e/%2e%2e",
    "%FF",
    "x" * 256,
    "%C3%28",
    "%7f",
    "",
]


def test_odd_keys(server: Running) -> None:
    for name in ODD:
        plain = name.encode()
        assert ask(server, "PUT", key(name, "odd"), plain).status == 201, name
        assert ask(server, "GET", key(name, "odd")).body == plain
        assert ask(server, "GET", "/hoards/odd" + key(name).removeprefix("/v1/hoards/photos/keys")).body == plain
    assert sorted(keys(server, "odd")) == sorted(ODD)
    for name in BAD:
        for method in ("GET", "PUT", "DELETE"):
            answer = ask(server, method, f"/v1/hoards/odd/keys/{name}", b"x" if method == "PUT" else None)
            assert 400 <= answer.status < 500, (name, method, answer)
    for hoard in ("a b", "latest", "-", "%00", "x" * 201):
        assert 400 <= ask(server, "PUT", f"/v1/hoards/{hoard.replace(' ', '%20')}/keys/a", b"").status < 500
    assert sorted(keys(server, "odd")) == sorted(ODD)


def test_pages(server: Running) -> None:
    names = [f"{place % 7}/{place:03}" for place in range(50)]
    body = b"".join(wire.encode_files((name, name.encode() * place) for place, name in enumerate(names)))
    assert ask(server, "POST", "/v1/hoards/paged/batch", body).json == {"keys": 50}
    found: list[str] = []
    while True:
        path = wire.hoard_path("paged", "keys", limit="7", after=found[-1] if found else "")
        page = ask(server, "GET", path).json
        found += [file["key"] for file in page["files"]]
        assert page["more"] == (len(found) < 50)
        if not page["more"]:
            break
    assert found == sorted(names)
    below = ask(server, "GET", "/v1/hoards/paged/keys?prefix=3/&after=3/010").json["files"]
    assert [file["key"] for file in below] == sorted(name for name in names if name.startswith("3/") and name > "3/010")
    assert ask(server, "GET", "/v1/hoards/paged").json == {"hoard": "paged", "keys": 50}
    assert "paged" in ask(server, "GET", "/v1/hoards").json["hoards"]
    asked = ask(server, "POST", "/v1/hoards/paged/has", b'{"keys":["0/000","no","","1/001"]}').json["found"]
    assert [None if one is None else one["size"] for one in asked] == [0, None, None, 5]
    for query in ("limit=0", "limit=x", "limit=-1", f"prefix={'x' * 300}", "limit=%FF"):
        assert ask(server, "GET", f"/v1/hoards/paged/keys?{query}").status == 400
    for bad in (b"", b"{}", b"[", b'{"keys":[1]}', b'{"keys":["a"],"x":1}'):
        assert ask(server, "POST", "/v1/hoards/paged/has", bad).status == 400


def test_batches_that_are_none(server: Running) -> None:
    good = b"".join(wire.encode_files([("a", b"1"), ("b", b"22")]))
    for bad in (b"", good[:-1], good + b"x", good[:12], b"\xff" * 40, b"".join(wire.encode_files([("a//b", b"")]))):
        assert ask(server, "POST", "/v1/hoards/broken/batch", bad).status == 422
    assert ask(server, "GET", "/v1/hoards/broken").status == 404


def test_who_hangs_up_stores_nothing(server: Running) -> None:
    for size, sent in ((1000, 500), (5 << 20, 3 << 20)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                f"PUT {key('half')} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            connection.sendall(random.randbytes(sent))
    assert ask(server, "PUT", key("whole"), b"x" * (2 << 20)).status == 201
    assert ask(server, "GET", key("half")).status == 404 and "half" not in keys(server)


def test_many_puts_at_once(server: Running) -> None:
    """To one key and to many: each that was acknowledged is there, and the last one to be so, of those to one key, is
    one of them."""
    before = ask(server, "GET", "/v1/hoards/many").status

    def put(place: int) -> int:
        ask(server, "PUT", key("one", "many"), f"{place}".encode())
        return ask(server, "PUT", key(f"{place}", "many"), f"{place}".encode()).status

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(put, range(200))) == [201] * 200
    assert before == 404 and len(keys(server, "many")) == 201
    assert int(ask(server, "GET", key("one", "many")).body) in range(200)
    for place in range(0, 200, 17):
        assert ask(server, "GET", key(f"{place}", "many")).body == f"{place}".encode()
    slots = {event["slot"] for event in ask(server, "GET", "/v1/hoards/many/history/one").json["events"]}
    assert len(slots) < 200  # some shared a record


def test_of_many_that_create_one_key_one_succeeds(server: Running) -> None:
    def create(place: int) -> int:
        return ask(server, "PUT", key("created", "races"), f"{place}".encode(), If_None_Match="*").status

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(create, range(40))) == [201] + [412] * 39


def test_a_killed_server_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    done: list[int] = []
    with serving(tmp_path, SPRAYDRY_REPO=url) as running:

        def put(place: int) -> None:
            try:
                if ask(running, "PUT", key(f"{place}"), random.randbytes(3000) + b"%d" % place).status == 201:
                    done.append(place)
            except (OSError, HTTPException):
                pass
            if len(done) >= 60:
                running.kill()

        with ThreadPoolExecutor(8) as pool:
            for place in range(400):
                pool.submit(put, place)
    assert 60 <= len(done) < 400
    with Repository.open(url) as repository:
        gc(repository, grace_ns=0)
        hoard = Hoard("photos", repository=repository)
        for place in done:
            assert hoard[f"{place}"].read().endswith(b"%d" % place)


def test_a_server_that_only_reads(tmp_path: Path) -> None:
    url = str(tmp_path / "repository.sqlite")
    with Hoard("photos", url, create=True) as hoard:
        hoard["a"] = b"1"
    with serving(tmp_path, "--read-only", SPRAYDRY_REPO=url) as running:
        assert ask(running, "GET", key("a")).body == b"1"
        for method, path in (("PUT", key("b")), ("DELETE", key("a")), ("POST", "/v1/hoards/photos/transactions")):
            assert ask(running, method, path, b"x").status in (403, 405)
        assert keys(running) == ["a"]
