"""Files by path, from a real server."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from spraydry.format.digest import digest
from spraydry.format.entry import CHARACTER, FIFO
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry
from tests.web.serving import Running, serving

LARGE = random.Random(3).randbytes(3_000_000)
ODD = bytes(byte for byte in range(1, 256) if byte != 0x2F)
ETAG = '"' + digest(b"hello\n").hex() + '"'
TREE: dict[bytes, Any] = {
    b"a.txt": b"hello\n",
    b"empty": b"",
    b"large.bin": LARGE,
    b"holes.img": LARGE[:65536] + bytes(200_000) + LARGE[:100],
    b"page.html": b"<script>alert(1)</script>",
    b"pipe": plain_entry(b"", FIFO, None, 0),
    b"null": plain_entry(b"", CHARACTER, 1 << 32 | 3, 0),
    b"folder": {b"b.json": b"{}", b"up": "../a.txt", b"deep": {b"c": b"c"}, ODD: b"odd"},
    b"link": "folder",
    b"loop": "loop",
    b"out": "../../etc/passwd",
    b"absolute": "/etc/passwd",
}


class Got:
    """What a server answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])


def ask(server: Running, path: str, method: str = "GET", **headers: str) -> Got:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    try:
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        return Got(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("files")
    with filled(folder) as url, serving(folder, SPRAYDRY_REPO=url) as running:
        yield running


@contextmanager
def filled(folder: Path) -> Iterator[str]:
    url = str(folder / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "photos", TREE, "one")
        make_version(repository, "photos", {**TREE, b"a.txt": b"changed\n"}, "two")
    yield url


def test_a_small_file(server: Running) -> None:
    for _ in range(2):
        got = ask(server, "/photos@one/a.txt")
        assert (got.status, got.body) == (200, b"hello\n")
        assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert got.headers["Content-Length"] == "6"
        assert got.headers["ETag"] == ETAG
        assert got.headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert "immutable" in got.headers["Cache-Control"]
    got = ask(server, "/photos@latest/a.txt")
    assert (got.body, got.headers["Cache-Control"]) == (b"changed\n", "no-cache")


@pytest.mark.parametrize("name", [b"large.bin", b"holes.img", b"empty", b"page.html"])
def test_whole_files(server: Running, name: bytes) -> None:
    got = ask(server, f"/photos@one/{name.decode()}")
    assert (got.status, got.body) == (200, TREE[name])
    head = ask(server, f"/photos@one/{name.decode()}", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(TREE[name]))
    assert [one for one in head.headers.items() if one[0] != "date"] == [
        one for one in got.headers.items() if one[0] != "date"
    ]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=100-", [(100, 3_000_000)]),
        ("bytes=-5", [(2_999_995, 3_000_000)]),
        ("bytes=65530-65545", [(65530, 65546)]),
        ("bytes=1000000-2999999999", [(1_000_000, 3_000_000)]),
        ("bytes=0-9,2000000-2000009", [(0, 10), (2_000_000, 2_000_010)]),
        ("bytes=5-9, -1", [(5, 10), (2_999_999, 3_000_000)]),
    ],
)
def test_ranges(server: Running, asked: str, wanted: list[tuple[int, int]]) -> None:
    got = ask(server, "/photos@one/large.bin", Range=asked)
    assert got.status == 206
    parts = [LARGE[start:stop] for start, stop in wanted]
    if len(wanted) == 1:
        assert got.body == parts[0]
        assert got.headers["Content-Range"] == f"bytes {wanted[0][0]}-{wanted[0][1] - 1}/3000000"
        return
    boundary = got.headers.get_boundary()
    assert boundary is not None
    pieces = got.body.split(b"\r\n--" + boundary.encode())
    assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]] == parts
    assert pieces[0] == b"" and pieces[-1] == b"--\r\n"


def test_a_connection_that_is_to_be_closed_is(server: Running) -> None:
    asked = b"GET /photos@one/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for path, size in ((b"large.bin", len(LARGE)), (b"?archive=tar", len(LARGE)), (b"folder/", 1), (b"a.txt", 6)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(asked % path)
            got = 0
            while part := connection.recv(1 << 16):  # to its end: an idle one is kept for 75 s, longer than this waits
                got += len(part)
            assert got > size


def test_ranges_that_make_no_sense(server: Running) -> None:
    for asked in ("bytes=3000000-", f"bytes={'9' * 40}-"):
        got = ask(server, "/photos@one/large.bin", Range=asked)
        assert (got.status, got.headers["Content-Range"]) == (416, "bytes */3000000")
    for asked in ("bytes=5-4", "bytes=a-b", "lines=1-2", "bytes=", "bytes=--1", "bytes=" + "1-1," * 100):
        assert ask(server, "/photos@one/a.txt", Range=asked).status == 200


def test_a_head_has_no_range(server: Running) -> None:
    got = ask(server, "/photos@one/large.bin", "HEAD", Range="bytes=0-9")
    assert (got.status, got.headers["Content-Length"]) == (200, str(len(LARGE)))


def test_conditions(server: Running) -> None:
    etag = ETAG
    path = "/photos@one/a.txt"
    for tags in (etag, f'"x", W/{etag}', "*"):
        got = ask(server, path, If_None_Match=tags)
        assert (got.status, got.body, got.headers["ETag"]) == (304, b"", etag)
    assert ask(server, path, If_None_Match='"x"').status == 200
    assert ask(server, path, If_Match='"x"').status == 412
    assert ask(server, path, If_Match=etag).status == 200
    assert ask(server, path, If_Modified_Since="Tue, 14 Nov 2023 22:13:20 GMT").status == 304
    assert ask(server, path, If_Modified_Since="Tue, 14 Nov 2023 22:13:19 GMT").status == 200
    assert ask(server, path, If_Modified_Since="Wed, 15 Nov 2023 22:13:19 GMT").status == 304
    # What may be replaced by something older is only not modified if its time is the very same.
    assert ask(server, "/photos@latest/a.txt", If_Modified_Since="Wed, 15 Nov 2023 22:13:19 GMT").status == 200
    assert ask(server, path, Range="bytes=1-2", If_Range=etag).status == 206
    assert ask(server, path, Range="bytes=1-2", If_Range='"x"').status == 200
    assert ask(server, path, Range="bytes=1-2", If_Range=f"W/{etag}").status == 200
    assert ask(server, path, If_None_Match='"', If_Modified_Since="never").status == 200


def test_names_of_any_bytes(server: Running) -> None:
    path = f"/photos@one/folder/{quote_from_bytes(ODD, safe='')}"
    for _ in range(2):
        assert ask(server, path).body == b"odd"
    assert ask(server, path.replace("%FF", "%FE")).status == 404


def test_symlinks_stay_inside(server: Running) -> None:
    assert ask(server, "/photos@one/folder/up").body == b"hello\n"
    assert ask(server, "/photos@one/link/deep/c").body == b"c"
    for name in ("out", "absolute", "loop", "folder/../a.txt", "folder/./b.json", "folder%2Fb.json", "a.txt%00"):
        got = ask(server, f"/photos@one/{name}")
        assert got.status == 404, name
    for name in ("pipe", "null"):
        assert ask(server, f"/photos@one/{name}").status == 403


def test_what_is_not_there(server: Running) -> None:
    for path in ("/nothing@one/a", "/photos@three/a", "/photos@one/b", "/photos@one/a.txt/", "/photos@one/a.txt/b"):
        assert ask(server, path).status == 404, path
    for path in ("/@one/a", "/photos@/a", "/%ff@one/", "/photos@one//a.txt"):
        assert ask(server, path).status == 404, path
    assert ask(server, "/photos@one/a.txt", "POST").status == 405


def test_redirects(server: Running) -> None:
    for path, where in (
        ("/photos", "./photos@latest/"),
        ("/photos@one", "./photos@one/"),
        ("/photos@one/folder", "./folder/"),
        ("/photos@one/folder?x=1", "./folder/?x=1"),
        ("/photos/folder/b.json", "../../photos@latest/folder/b.json"),
    ):
        got = ask(server, path)
        assert (got.status, got.headers["Location"]) == (307, where)


def test_listing(server: Running) -> None:
    got = ask(server, "/photos@one/folder/")
    assert got.headers["Content-Type"] == "application/json"
    told = json.loads(got.body)
    assert (told["root"], told["version"], told["path"]) == ("photos", "one", "folder")
    entries = {entry["name"].encode(errors="surrogateescape"): entry for entry in told["entries"]}
    assert list(entries) == sorted(TREE[b"folder"])
    assert entries[b"b.json"]["digest"] == digest(b"{}").hex()
    assert entries[b"up"]["target"] == "../a.txt"
    assert ask(server, f"/photos@one/folder/{entries[ODD]['url'].removeprefix('./')}").body == b"odd"
    assert entries[b"deep"]["url"] == "./deep/"
    assert ask(server, "/photos@one/folder/", If_None_Match=got.headers["ETag"]).status == 304


def test_nothing_scripts(server: Running) -> None:
    got = ask(server, "/photos@one/page.html")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    got = ask(server, "/photos@one/a.txt?download")
    assert got.headers["Content-Disposition"] == 'attachment; filename="a.txt"'


def test_several_repositories(tmp_path: Path) -> None:
    with filled(tmp_path) as url, serving(tmp_path, f"one={url}", f"two={url}") as server:
        for name in ("one", "two"):
            assert ask(server, f"/{name}/photos@one/a.txt").body == b"hello\n"
            assert ask(server, f"/{name}/photos@one/folder/{quote_from_bytes(ODD, safe='')}").body == b"odd"
            assert ask(server, f"/{name}/photos").headers["Location"] == "./photos@latest/"
        assert ask(server, "/three/photos@one/a.txt").status == 404
        assert ask(server, "/one%2Fphotos@one/a.txt").status == 404
