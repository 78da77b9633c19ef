"""The http store reads all that a dir store holds, through real web servers, and stands what these can do wrong."""

from __future__ import annotations

import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.actions.verify import verify
from spraydry.errors import (
    CorruptData,
    NotARepository,
    SprayDryError,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.format.entry import FILE
from spraydry.repository.repository import Repository
from spraydry.stores.base import NAMESPACES, Store, Stored, open_store
from spraydry.stores.shared import exchange, web
from spraydry.stores.shared.listing import LISTED
from tests.ingest.trees import command
from tests.remote_store import LARGE
from tests.servers import server_or_skip


@dataclass(frozen=True)
class Served:
    """A folder that a web server serves, the address of it, and whether that server knows ranges."""

    folder: Path
    url: str
    ranges: bool

    def place(self) -> tuple[str, str]:
        """URLs of one new store: to write to it, and to read it."""
        name = uuid.uuid4().hex
        return f"dir:{self.folder / name}", f"{self.url}{name}"


@pytest.fixture(scope="module", params=["nginx", "python"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    if request.param == "nginx":
        with server_or_skip("nginx", tmp_path_factory.mktemp("nginx"), str(folder)) as running:
            yield Served(folder, running.url, True)
        return
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with (folder.parent / "http.server.err").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().split(" port ")[1].split()[0]
        yield Served(folder, f"http://127.0.0.1:{port}/", False)
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Filled:
    """A dir store with values, and the same store over HTTP."""

    writer: Store
    reader: Store
    values: dict[tuple[str, str], bytes]


@pytest.fixture
def filled(served: Served) -> Iterator[Filled]:
    to_write, to_read = served.place()
    writer = open_store(to_write, create=True)
    rng = random.Random(2)
    values = {("frames", rng.randbytes(32).hex()): rng.randbytes(rng.randrange(2000)) for _ in range(50)}
    values |= {("frames", name): bytes(range(200)) for name in ("a", "ab", "abc", "a.b", "a-b", "_", "z" * 200)}
    values |= {("frames", "large"): LARGE, ("frames", "empty"): b"", ("config", "config"): b"c" * 100}
    values |= {("log", f"{slot:012d}"): rng.randbytes(slot) for slot in range(1, 30)}
    values |= {("log", "empty"): b"", ("index", "large"): LARGE + LARGE, ("dictionaries", "d"): bytes(range(200))}
    values |= {("hoards", "mine"): b"h", ("leases", "one"): b"l"}
    for (namespace, name), value in values.items():
        writer.put(namespace, name, value)
    writer.flush()
    reader = open_store(to_read)
    yield Filled(writer, reader, values)
    reader.close()
    writer.close()


# -- what a dir store holds


def test_everything_is_read(filled: Filled) -> None:
    for (namespace, name), value in filled.values.items():
        assert filled.reader.get(namespace, name) == value
        assert filled.reader.info(namespace, name) == Stored(name, len(value))
    for namespace in ("log", "index", "dictionaries", "config"):
        assert list(filled.reader.list(namespace)) == list(filled.writer.list(namespace))
        assert list(filled.reader.list(namespace, "000000000007")) == list(
            filled.writer.list(namespace, "000000000007")
        )
        assert list(filled.reader.list_all(namespace)) == list(filled.writer.list(namespace))
    assert filled.reader.stat().values == sum(namespace in LISTED[:4] for namespace, _ in filled.values)


def test_ranges(filled: Filled) -> None:
    for namespace, name in (("frames", "abc"), ("dictionaries", "d"), ("frames", "empty"), ("log", "empty")):
        value = filled.values[namespace, name]
        for start in (0, 1, 7, 50, 199, 200, 201, 500, -1, -7, -20, -199, -200, -201, -500):
            for length in (None, 0, 1, 7, 200, 300):
                at = max(start + len(value), 0) if start < 0 else start
                expected = value[at : None if length is None else at + length]
                assert filled.reader.get(namespace, name, start, length) == expected, (name, start, length)
    assert filled.reader.get("frames", "large", 4 << 20, 1000) == LARGE[4 << 20 :][:1000]
    assert filled.reader.get("frames", "large", -100, 10) == LARGE[-100:-90]
    with pytest.raises(ValueError, match="not a range"):
        filled.reader.get("frames", "abc", 1, -1)


def test_ranges_are_asked_for(filled: Filled, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server knows them, no more than the range travels."""
    came: list[int] = []
    body = web.read_body

    def counted(response: object, most: int) -> bytes:
        got = body(response, most)  # type: ignore[arg-type]
        came.append(len(got))
        return got

    monkeypatch.setattr(web, "read_body", counted)
    filled.reader.get("frames", "large", 1000, 50)
    filled.reader.get("index", "large", -50)
    assert came == ([50, 50] if served.ranges else [len(LARGE), 2 * len(LARGE)])


def test_what_is_not_there(filled: Filled) -> None:
    for namespace in NAMESPACES:
        for ask in (filled.reader.get, lambda namespace, name: filled.reader.get(namespace, name, -7, 2)):
            with pytest.raises(ValueNotFound):
                ask(namespace, "missing")
        assert filled.reader.info(namespace, "missing") is None
    names = ["abc", "missing", "a", "abc"]
    assert [value is None for _, value in filled.reader.get_many("frames", names)] == [False, True, False, False]
    for namespace in ("frames", "leases"):
        with pytest.raises(StoreError, match="lists no"):
            list(filled.reader.list(namespace))
    for namespace, name in (("frames", "../config/config"), ("frames", "%2e%2e"), ("elsewhere", "a"), ("log", "")):
        with pytest.raises(ValueError, match="not a key"):
            filled.reader.get(namespace, name)


def test_nothing_can_be_written(filled: Filled) -> None:
    reader = filled.reader
    asks: list[Callable[[], object]] = [
        lambda: reader.put("frames", "c", b""),
        lambda: reader.put_many("frames", [("c", b"")]),
        lambda: reader.create("frames", "c", b""),
        lambda: reader.delete("frames", ["a"]),
        lambda: reader.soft_delete("frames", ["a"]),
        lambda: reader.undelete("frames", ["missing"]),
        lambda: reader.move("frames", "a", "frames", "b"),
        reader.destroy,
    ]
    for ask in asks:
        with pytest.raises(StoreReadOnly):
            ask()
    reader.flush()
    assert reader.read_only and reader.location() is None
    reader.close()
    reader.close()
    for ask in (lambda: reader.get("frames", "a"), lambda: list(reader.list("log")), reader.stat):
        with pytest.raises(StoreError, match="closed"):
            ask()


def test_values_at_other_depths(filled: Filled, served: Served) -> None:
    folder = Path(filled.writer.location() or "")
    (folder / "layout").write_text("spraydry dir 1\nframes 3\nlog 1\n")
    filled.writer.put("frames", "0123456789", b"deep")
    filled.writer.put("log", "000000000030", b"newer")
    assert filled.reader.get("frames", "0123456789") == b"deep"  # before the listing says so
    filled.writer.flush()
    reader = open_store(f"{served.url}{folder.name}/")
    assert reader.get("log", "000000000030") == b"newer"
    for (namespace, name), value in filled.values.items():
        assert reader.get(namespace, name) == value
    reader.close()


def test_new_values_are_seen(filled: Filled) -> None:
    assert filled.writer.create("log", "000000000030", b"new")
    filled.writer.put("config", "config", b"another")
    filled.writer.flush()
    assert filled.reader.get("log", "000000000030") == b"new"
    assert filled.reader.get("config", "config") == b"another"
    assert [stored.name for stored in filled.reader.list("log", "000000000029")] == ["000000000030", "empty"]


def test_threads(filled: Filled) -> None:
    names = [key for key in filled.values if key[1] != "large"] * 4
    with ThreadPoolExecutor(16) as pool:
        for key, value in zip(names, pool.map(lambda key: filled.reader.get(*key), names), strict=True):
            assert value == filled.values[key]


# -- a repository


def contents(repository: Repository, root: str) -> dict[bytes, bytes]:
    """The files of the newest version, each compared with its digest."""
    found = {}
    for entry in repository.walk(root):
        if entry.entry.kind == FILE:
            with repository.open_file(entry) as file:
                found[entry.path] = file.read()
    return found


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    folder = tmp_path / "source"
    for name in ("a", "b/c", "b/d", "e/f/g"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(rng.randbytes(rng.randrange(300_000)) + name.encode() * 1000)
    return folder


def test_a_repository(served: Served, source: Path) -> None:
    to_write, to_read = served.place()
    with Repository.open(to_write, create=True) as writer:
        ingest(writer, [str(source)], root="root")
        with Repository.open(to_read) as reader:
            assert reader.read_only
            assert contents(reader, "root") == contents(writer, "root")
            assert len(contents(reader, "root")) == 4
            (source / "new").write_bytes(b"new" * 1000)
            ingest(writer, [str(source)], root="root")
            assert [version.name for version in reader.versions("root")] == ["v1"]
            reader.refresh()
            assert [version.name for version in reader.versions("root")] == ["v1", "v2"]
            found = contents(reader, "root")
            assert found == contents(writer, "root") and len(found) == 5
            with pytest.raises(StoreReadOnly):
                ingest(reader, [str(source)], root="root")


def test_altered_bytes_are_reported(served: Served, source: Path) -> None:
    """A frame whose bytes were changed where it lies, or that was cut short: never wrong bytes."""
    to_write, to_read = served.place()
    with Repository.open(to_write, create=True) as writer:
        ingest(writer, [str(source)], root="root")
        whole = contents(writer, "root")
    frames = [path for path in (Path(to_write[4:]) / "frames").rglob("*") if path.is_file()]
    assert len(frames) > 1
    for frame in frames:
        kept = frame.read_bytes()
        for damaged in (kept[:-1] + bytes([kept[-1] ^ 1]), kept[: len(kept) // 2], kept + b"x", b""):
            frame.write_bytes(damaged)
            with Repository.open(to_read) as reader, pytest.raises(SprayDryError):
                contents(reader, "root")
        frame.write_bytes(kept)
    with Repository.open(to_read) as reader:
        assert contents(reader, "root") == whole


def test_verify_looks_at_what_is_named(served: Served, source: Path) -> None:
    """A web server lists no frames: those of the index are read, others cannot be looked for."""
    to_write, to_read = served.place()
    with Repository.open(to_write, create=True) as writer:
        ingest(writer, [str(source)], root="root")
        at_home = verify(writer)
    assert at_home.sound and at_home.listed
    with Repository.open(to_read) as reader:
        found = verify(reader)
    assert found.sound and not found.listed
    assert (found.frames, found.chunks, found.versions) == (at_home.frames, at_home.chunks, at_home.versions)
    got = command("--repo", to_read, "verify")
    assert got.returncode == 0, got.stderr
    assert b"only frames that the index names were looked for" in got.stdout and b"all is whole" in got.stdout
    gone, damaged, *_ = sorted(path for path in (Path(to_write[4:]) / "frames").rglob("*") if path.is_file())
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with Repository.open(to_read) as reader:
        found = verify(reader)
    assert {(one.frame, "gone" in one.reason) for one in found.damaged_frames} == {
        (gone.name, True),
        (damaged.name, False),
    }
    assert found.damage
    assert command("--repo", to_read, "verify").returncode == CorruptData.exit_code


# -- addresses


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http:",
            "http://",
            "http:///x",
            "http://host:port/",
            "http://host:99999/",
            "http://host/a b",
            "http://[::1/",
        ),
        *("http://host/a\n", "http://host/x?y", "http://host/x#y", "http://host/ü", "https://"),
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)


def test_passwords_are_refused_and_not_repeated() -> None:
    for url in ("http://me:secret@localhost/x", "https://me@localhost/"):
        with pytest.raises(UsageError) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_places_without_a_repository(served: Served) -> None:
    (served.folder / "html").mkdir(exist_ok=True)
    (served.folder / "html" / "listing").write_text("<html>\n")
    with pytest.raises(NotARepository):
        open_store(f"{served.url}html")
    for create in (False, True):
        with pytest.raises(StoreNotFound, match="there is no repository"):
            open_store(f"{served.url}nothing/here", create=create)


def test_nobody_answers() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(StoreUnavailable, match=r"cannot be reached|cut the connection"):
            open_store(url)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        open_store("http://no-such-host.invalid/x")


# -- servers that do it wrong


@dataclass
class Faulty:
    """A web server whose answers `answer` writes, the bytes of each; it counts connections and requests."""

    url: str = ""
    connections: int = 0
    paths: tuple[tuple[str, str | None], ...] = ()


@contextmanager
def faulty(
    answer: Callable[[str, str | None], bytes], *, then_close: bool = True, hang: bool = False
) -> Iterator[Faulty]:
    """A server of raw answers: `answer(path, range)` gives status line, header and body."""
    state = Faulty()
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.paths = (*state.paths, (self.path, asked))
            self.wfile.write(answer(self.path, asked))
            self.wfile.flush()
            if hang:
                over.wait(600)
            self.close_connection = then_close

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    serving = threading.Thread(target=listening.serve_forever, args=(0.05,))
    serving.start()
    state.url = f"http://127.0.0.1:{listening.server_port}/"
    try:
        yield state
    finally:
        over.set()
        listening.shutdown()
        serving.join()
        listening.server_close()


def reply(body: bytes, status: str = "200 OK", length: int | None = None, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n{more}\r\n".encode() + body
    )


@pytest.fixture
def listing(tmp_path: Path) -> bytes:
    """Of a store with a config of 5 bytes."""
    store = open_store(f"dir:{tmp_path}/store", create=True)
    store.put("config", "config", b"12345")
    store.flush()
    store.close()
    return (tmp_path / "store" / "listing").read_bytes()


def frame_from(listing: bytes, answer: bytes, *ask: int, **how: bool) -> bytes:
    """What a store gives for a frame when its server answers so."""
    with faulty(lambda path, _: reply(listing) if path == "/listing" else answer, **how) as running:
        store = open_store(running.url)
        try:
            return store.get("frames", "a", *ask)
        finally:
            store.close()


def test_the_faulty_server_can_do_right(listing: bytes) -> None:
    assert frame_from(listing, reply(b"frame")) == b"frame"
    assert (
        frame_from(listing, reply(b"am", "206 Partial Content", more="Content-Range: bytes 2-3/5\r\n"), 2, 2) == b"am"
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(b"frame", length=6), StoreUnavailable),
        (reply(b"", length=6), StoreUnavailable),
        (reply(b"", "503 Service Unavailable"), StoreUnavailable),
        (reply(b"", "429 Too Many Requests"), StoreUnavailable),
        (reply(b"", "500 Internal Server Error"), StoreUnavailable),
        (reply(b"", "403 Forbidden"), StoreError),
        (reply(b"", "401 Unauthorized"), StoreError),
        (reply(b"", "404 Not Found"), ValueNotFound),
        (reply(b"", "304 Not Modified"), StoreError),
        (reply(b"", "206 Partial Content"), StoreError),
        (reply(b"frame", more="Content-Encoding: gzip\r\n"), StoreError),
        (reply(b"", length=(8 << 20) + 1), CorruptData),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes((8 << 20) + 1), CorruptData),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfr", StoreUnavailable),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n900001\r\n" + bytes(0x900001) + b"\r\n0\r\n\r\n",
            CorruptData,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", StoreUnavailable),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", StoreUnavailable),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", StoreUnavailable),
        (b"SSH-2.0-OpenSSH\r\n", StoreUnavailable),
        (b"", StoreUnavailable),
    ],
)
def test_answers_that_are_wrong(listing: bytes, answer: bytes, error: type[SprayDryError]) -> None:
    with pytest.raises(error) as caught:
        frame_from(listing, answer)
    assert caught.value.exit_code == error.exit_code and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    ["bytes 0-1/5", "bytes 2-4/5", "bytes 2-2/5", "bytes 3-2/5", "bytes 2-3/3", "bytes 2-3/*", "bytes 2-3", "", "x"],
)
def test_other_ranges_than_asked_for(listing: bytes, said: str) -> None:
    with pytest.raises(StoreError, match="other parts"):
        frame_from(listing, reply(b"am", "206 Partial Content", more=f"Content-Range: {said}\r\n"), 2, 2)


def test_a_whole_value_is_not_taken_for_its_range(listing: bytes) -> None:
    """As `python -m http.server` answers."""
    assert frame_from(listing, reply(b"0123456789"), 3, 2) == b"34"
    assert frame_from(listing, reply(b"0123456789"), -3, 2) == b"78"


def test_redirects_are_not_followed(listing: bytes) -> None:
    with faulty(lambda *_: reply(b"secret")) as other:
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            with pytest.raises(StoreError, match="elsewhere"):
                frame_from(listing, reply(b"", status, more=f"Location: {other.url}a\r\n"))
        assert other.paths == ()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", reply(b"fra", length=5)])
def test_a_server_that_hangs(listing: bytes, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(path: str, _: str | None) -> bytes:
        return reply(listing, more="Connection: close\r\n") if path == "/listing" else answer

    monkeypatch.setattr(exchange, "_PATIENCE_S", 0.5)
    with faulty(answered, hang=True) as running, pytest.raises(StoreUnavailable, match="in time"):
        store = open_store(running.url)
        store.get("frames", "a")


def test_a_server_that_trickles(listing: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is not enough: the time for the whole answer is up."""
    monkeypatch.setattr(exchange, "_PATIENCE_S", 0.5)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):  # who gave up is gone
                connection.recv(1000)
                connection.sendall(reply(b"", length=60_000))
                while not over.wait(0.1):
                    connection.sendall(b"x")

        trickling = threading.Thread(target=serve)
        trickling.start()
        try:
            with pytest.raises(StoreUnavailable, match="in time"):
                open_store(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        finally:
            over.set()
            trickling.join()


def test_connections_are_kept_and_made_anew(listing: bytes) -> None:
    frame = reply(b"frame")
    with faulty(lambda path, _: reply(listing) if path == "/listing" else frame, then_close=False) as running:
        store = open_store(running.url)
        for _ in range(10):
            assert store.get("frames", "a") == b"frame"
        assert running.connections == 2  # one asked for `/v1/`
        store.close()
    with faulty(lambda path, _: reply(listing) if path == "/listing" else frame) as running:
        store = open_store(running.url)  # the server closes each connection, and does not say so before
        for _ in range(10):
            assert store.get("frames", "a") == b"frame"
        assert running.connections == 12
        store.close()


def test_listings_that_are_wrong(listing: bytes) -> None:
    for value, error in (
        (listing[:-20], CorruptData),
        (listing[: len(listing) // 2], CorruptData),
        (listing.replace(b" 5\n", b" 6\n"), CorruptData),
        (b"", NotARepository),
        (b"<html>", NotARepository),
    ):
        with faulty(lambda *_, value=value: reply(value)) as running, pytest.raises(error):  # type: ignore[misc]
            open_store(running.url)


def test_values_of_other_sizes_than_listed(listing: bytes) -> None:
    for config in (b"1234", b"123456", b""):
        with faulty(lambda path, _, c=config: reply(listing if path == "/listing" else c)) as running:  # type: ignore[misc]
            store = open_store(running.url)
            with pytest.raises(CorruptData, match="has not the size"):
                store.get("config", "config")
            store.close()


def test_an_older_listing_is_not_believed(served: Served) -> None:
    """A cache on the way gives one now and then."""
    to_write, to_read = served.place()
    folder = Path(to_write[4:])
    writer = open_store(to_write, create=True)
    writer.create("log", "000000000001", b"x")
    writer.flush()
    older = (folder / "listing").read_bytes()
    writer.create("log", "000000000002", b"x")
    writer.flush()
    writer.close()
    reader = open_store(to_read)
    (folder / "listing").write_bytes(older)
    assert [stored.name for stored in reader.list("log")] == ["000000000001", "000000000002"]
    reader.close()
    os.unlink(folder / "listing")
