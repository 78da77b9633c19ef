"""A peer that lies: what it alters is noticed, or what is read is right all the same; never wrong bytes."""

from __future__ import annotations

import http.client
import http.server
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from spraydry.errors import SprayDryError
from spraydry.repository.repository import Repository
from spraydry.stores.over.retry import Retry
from spraydry.stores.remote import patience, wire
from spraydry.stores.remote import server as asking
from spraydry.stores.remote import servers as choosing
from tests.faultproxy import proxy
from tests.versions import make_version
from tests.web.serving import Running, serving

Alter = Callable[[str, bytes, bytes], bytes]

FILES = {
    b"small": b"content\n" * 50,
    b"noise": random.Random(1).randbytes(400_000),
    b"sub": {b"text": b"some words of text\n" * 3000, b"other": random.Random(2).randbytes(70_000)},
}
CONTENTS = {":small": FILES[b"small"], ":noise": FILES[b"noise"], ":sub/text": FILES[b"sub"][b"text"]}  # type: ignore[index]


@dataclass
class Liar:
    """Stands before a server and alters what it answers: `alter` is given the path, what was sent, and the answer."""

    url: str = ""
    alter: Alter = lambda _path, _asked, body: body
    altered: int = 0


@contextmanager
def liar(server: Running) -> Iterator[Liar]:
    state = Liar()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            behind = http.client.HTTPConnection("127.0.0.1", server.port)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            behind.request(self.command, self.path, asked or None, headers)
            answer = behind.getresponse()
            body = answer.read()
            behind.close()
            told = state.alter(self.path, asked, body) if answer.status == 200 else body
            state.altered += told != body
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(told))
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(told)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    try:
        yield state
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves two versions of a root, and one of another that looks the same but is not."""
    folder = tmp_path_factory.mktemp("lied")
    url = f"dir:{folder}/store"
    homes = {name: str(folder / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in homes.items():
            patch.setenv(name, value)
        with Repository.open(url, create=True) as repository:
            make_version(repository, "r", FILES)
            make_version(repository, "r", {**FILES, b"more": b"of it"})
            make_version(repository, "s", {b"small": b"another\n" * 50, b"noise": random.Random(9).randbytes(400_000)})
    with serving(folder, SPRAYDRY_REPO=url, **homes) as running:
        yield running


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retry.__init__, "__defaults__", (2, 60.0, 0.0, 0.0, 1))
    monkeypatch.setenv(patience.VARIABLE, "0")


@pytest.fixture
def fresh_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def make(name: str) -> None:
        for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            monkeypatch.setenv(variable, str(tmp_path / name / variable))

    return make


def read_all(url: str) -> str:
    """Read everything: `identical`, or what was noticed. Fails where anything is wrong and was not."""
    try:
        with Repository.open(url, read_only=True) as repository:
            noticed = "" if repository.roots() == ["r", "s"] and not repository.damaged_runs else "other roots or runs"
            for path, value in CONTENTS.items():
                try:
                    with repository.open_file(f"r@v1{path}") as stream:
                        found = stream.read()
                except SprayDryError as error:
                    noticed = str(error)
                else:
                    assert found == value, f"{path} is wrong, and nobody noticed"
            return noticed or "identical"
    except SprayDryError as error:
        return str(error)


def flip(place: float) -> Callable[[bytes], bytes]:
    def flipped(body: bytes) -> bytes:
        changed = bytearray(body)
        if changed:
            changed[min(int(place * len(changed)), len(changed) - 1)] ^= 4
        return bytes(changed)

    return flipped


BODIES: dict[str, Callable[[bytes], bytes]] = {
    **{f"flip-{place}": flip(place) for place in (0.0, 0.3, 0.9, 1.0)},
    "cut": lambda body: body[: len(body) // 2],
    "nothing": lambda _: b"",
    "more": lambda body: body + b"x",
    "html": lambda _: b"<html>what</html>",
}


def test_the_liar_can_tell_the_truth(server: Running, fresh_machine: Callable[[str], None]) -> None:
    fresh_machine("honest")
    with liar(server) as between:
        assert read_all(between.url) == "identical"


def altered_values(namespace: str, change: Callable[[bytes], bytes], path: str, asked: bytes, body: bytes) -> bytes:
    """An answer in which the values of a namespace are changed, and all about them is as it should be."""
    if path.startswith(f"/v1/values/{namespace}/"):
        return change(body)
    if not path.startswith("/v1/batch/get") or wire.decode(asked, wire.Names).namespace != namespace:
        return body
    items = wire.Items(len(body)).feed(body)
    told = [
        wire.value_item(item.name, change(item.value)) if item.kind == wire.Kind.VALUE else wire.absent_item(item.name)
        for item in items
    ]
    return b"".join([*told, wire.END_ITEM])


@pytest.mark.parametrize("namespace", ["frames", "index", "log", "config"])
def test_altered_values(server: Running, fresh_machine: Callable[[str], None], namespace: str) -> None:
    for name, change in BODIES.items():
        fresh_machine(f"{namespace}-{name}")
        with liar(server) as between:
            between.alter = partial(altered_values, namespace, change)
            found = read_all(between.url)
            assert between.altered, "nothing was altered"
            assert found != "identical" or namespace == "frames"


@pytest.mark.parametrize("path", ["/v1/values/frames/", "/v1/values/", "/v1/batch/", "/v1/values/index?"])
def test_altered_answers(server: Running, fresh_machine: Callable[[str], None], path: str) -> None:
    """Also what is about the values."""
    for name, change in BODIES.items():
        fresh_machine(f"{path.strip('/').replace('/', '-')}-{name}")
        with liar(server) as between:
            between.alter = lambda asked_for, _, body, c=change: c(body) if asked_for.startswith(path) else body  # type: ignore[misc]
            read_all(between.url)
            assert between.altered, "nothing was altered"


def test_other_values_than_were_asked_for(server: Running, fresh_machine: Callable[[str], None]) -> None:
    """Each of them sound in itself: another frame, another run, another slot; and an older log to who saw the newer."""
    values: dict[str, bytes] = {}

    def swapped(path: str, _: bytes, body: bytes) -> bytes:
        parts = path.split("/")
        if len(parts) != 5 or parts[2] != "values":
            return body
        other = values.setdefault(parts[3], body)
        return other if len(other) else body

    fresh_machine("swapped")
    with liar(server) as between:
        between.alter = swapped
        assert read_all(between.url) != "identical"
    fresh_machine("older")
    with liar(server) as between:
        assert read_all(between.url) == "identical"

        def shorter(path: str, _: bytes, body: bytes) -> bytes:
            if "/values/log?" not in path:
                return body
            return body.replace(b'["000000000003",', b'["000000000002",')

        def without_the_newest(path: str, _: bytes, body: bytes) -> bytes:
            return b'{"values":[["000000000001",1]],"more":false}' if "/values/log?" in path else body

        for alter in (shorter, without_the_newest):
            between.alter = alter
            found = read_all(between.url)
            assert found == "identical" or "cut short" in found or "in no order" in found, found


def test_of_two_servers_one_lies(
    server: Running, fresh_machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest one, though it is farther, is asked for what the other gave wrong, and nobody notices but the log."""
    fresh_machine("two")
    monkeypatch.setattr(choosing, "_OTHERS_S", 60.0)  # both are heard when it is opened, however slow the machine is
    monkeypatch.setattr(asking, "_GREETING_S", 60.0)
    with liar(server) as between, proxy("127.0.0.1", server.port) as honest:
        between.alter = lambda path, _, body: flip(0.5)(body) if "/frames/" in path or "/batch/" in path else body
        monkeypatch.setattr(choosing, "_distance", lambda one: one.url != between.url)
        assert read_all(f"{between.url},{honest.address}") == "identical"
        assert between.altered


def test_a_liar_cannot_make_a_client_lose_what_it_stores(server: Running, fresh_machine: Callable[[str], None]) -> None:
    """It says that chunks are there which are not: the client does not count on them, and stores them."""
    fresh_machine("storing")
    content = random.Random(77).randbytes(150_000)
    with liar(server) as between, Repository.open(between.url) as repository:
        make_version(repository, "t", {b"file": content})
        between.alter = lambda path, _, body: flip(0.5)(body) if "/values/frames/" in path else body
        make_version(repository, "t", {b"file": content, b"again": content})
    fresh_machine("reading")
    with Repository.open(server.url, read_only=True) as repository:
        for path in ("t@v1:file", "t@v2:file", "t@v2:again"):
            with repository.open_file(path) as stream:
                assert stream.read() == content
