"""Clients that do not behave: slow, greedy, silent, gone; and how the server ends while some are there."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from spraydry.actions.ingest import ingest
from spraydry.cli import run
from spraydry.repository.repository import Repository
from tests.web.asking import ask
from tests.web.impatient import MODULE, waits
from tests.web.serving import Running, serving

LARGE_BYTES = 24 << 20

_PATIENCE_S = 300.0  # of the tests, with a server that is slow
_HEAD_S, _IDLE_S = 1.0, 3.0  # of the server, with clients


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served")
    (folder / "source").mkdir()
    (folder / "source" / "large").write_bytes(random.randbytes(LARGE_BYTES))
    (folder / "source" / "small").write_bytes(b"small content")
    with Repository.open(str(folder / "repository.sqlite"), create=True) as repository:
        ingest(repository, [str(folder / "source")], root="files")
    return str(folder / "repository.sqlite")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Running]:
    waited = waits(head_s=_HEAD_S, idle_s=_IDLE_S, stall_s=1.5, linger_s=0.5, body_s=1.0)
    with _waiting(tmp_path_factory.mktemp("impatient"), url, waited) as running:
        yield running
        assert _alive(running), running.log.read_text()


@contextmanager
def _waiting(folder: Path, url: str, waited: dict[str, str]) -> Iterator[Running]:
    with serving(folder, module=MODULE, SPRAYDRY_REPO=url, **waited) as running:
        yield running
        assert "Traceback" not in running.log.read_text(), running.log.read_text()


def _asked(server: Running, path: str) -> bytes:
    """What it answers, asked again if this machine was too slow for a server that waits a second."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask(server.port, "GET", path).body
        except (OSError, HTTPException):
            assert time.monotonic() < deadline


def _alive(server: Running) -> bool:
    return _asked(server, "/files@v1/small") == b"small content"


def _connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=_PATIENCE_S)


def _begun(server: Running, sent: bytes) -> socket.socket:
    """A connection on which that was sent before the server had waited enough for it; another one, if this machine was
    too slow for that."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        began = time.monotonic()
        connection = _connected(server)
        with suppress(OSError):
            connection.sendall(sent)
        if time.monotonic() - began < _HEAD_S:
            return connection
        connection.close()
        assert time.monotonic() < deadline


def _some(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    assert part, "the server closed it"
    return part


def _all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    told = bytearray()
    try:
        while part := connection.recv(1 << 16):
            told += part
    except ConnectionResetError:
        pass
    return bytes(told)


def _sockets(server: Running) -> int:
    folder = f"/proc/{server.process.pid}/fd"
    number = 0
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            number += os.readlink(f"{folder}/{name}").startswith("socket:")
    return number


def _settles(server: Running, most: int) -> None:
    """Nothing stays open of connections that are over."""
    deadline = time.monotonic() + _PATIENCE_S
    while _sockets(server) > most or b"spraydry_connections 1.0" not in _asked(server, "/metrics"):
        assert time.monotonic() < deadline, _sockets(server)
        time.sleep(0.05)


GET_LARGE = b"GET /files@v1/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_SMALL = b"GET /files@v1/small HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_head_that_comes_too_slowly(server: Running) -> None:
    with closing(_begun(server, GET_SMALL[:-2])) as connection:
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(_all(connection)))
        reader.start()
        letters = 0
        with suppress(OSError):
            while reader.is_alive() and letters < 10 * _PATIENCE_S:
                connection.sendall(b"x" if letters else b"X-Long: ")
                letters += 1
                time.sleep(0.1)
        reader.join()
    assert told[0].startswith(b"HTTP/1.1 408 "), told
    assert letters < 10 * _PATIENCE_S, "a byte now and then is not enough"


def test_nothing_said_and_nothing_more_said(server: Running) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    in_time = False
    while not in_time:  # as soon as this machine is quick enough
        began = time.monotonic()
        assert began < deadline
        with closing(_connected(server)) as silent, closing(_begun(server, GET_SMALL)) as kept:
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            assert _all(silent) == b""
            kept.sendall(GET_SMALL)
            if in_time := time.monotonic() - began < _IDLE_S:
                told = kept.recv(1 << 16)
                assert b"small content" in told, "the first request is not waited for as long as another one"
                assert _all(kept) == b""


def test_a_body_that_comes_too_slowly(server: Running) -> None:
    put = b"PUT /v1/values/frames/abc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx"
    with closing(_begun(server, put)) as connection:
        assert _all(connection).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles(server: Running) -> None:
    put = b"PUT /v1/values/frames/abc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n"
    with closing(_begun(server, put)) as connection:
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(_all(connection)))
        reader.start()
        sent = 0
        with suppress(OSError):
            while reader.is_alive() and sent < 10 * _PATIENCE_S:
                connection.sendall(b"x")
                sent += 1
                time.sleep(0.1)
        reader.join()
    assert told[0].startswith(b"HTTP/1.1 408 "), told
    assert sent < 10 * _PATIENCE_S, "a byte now and then is not enough"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_refused_body_is_passed_over_and_the_answer_arrives(server: Running, method: str) -> None:
    before = _sockets(server)
    head = f"{method} /v1/nothing-here HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
    with closing(_begun(server, head.encode())) as connection:
        for _ in range(LARGE_BYTES >> 16):
            try:
                connection.sendall(bytes(1 << 16))
            except OSError:
                break
        assert _all(connection).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
    _settles(server, before)


def test_a_client_that_stops_reading(server: Running) -> None:
    before = _sockets(server)
    with closing(_begun(server, GET_LARGE)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.recv(1000)
        _settles(server, before)


@pytest.mark.parametrize("sent", [b"", b"GET", GET_SMALL[:-2], GET_SMALL, GET_LARGE])
@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_hangs_up(server: Running, sent: bytes, reset: bool) -> None:
    before = _sockets(server)
    for wait in (0.0, 0.05):
        connection = _connected(server)
        connection.sendall(sent)
        time.sleep(wait)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()
    connection = _connected(server)
    connection.sendall(b"PUT /v1/values/frames/abc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + sent)
    connection.close()
    _settles(server, before)


def test_heads_that_are_too_large(server: Running) -> None:
    for head in (b"GET /" + b"x" * 100_000, b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"x" * 100_000):
        with closing(_begun(server, head)) as connection:
            assert _all(connection).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET \xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: !!!\r\n\r\n",
    ],
)
def test_what_is_no_request(server: Running, nonsense: bytes) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        connection.sendall(nonsense)
        told = _all(connection)
    assert not told.startswith(b"HTTP/1.1 2") and b" 500 " not in told[:20], told
    _settles(server, before)


def _h2(server: Running, *paths: bytes) -> tuple[socket.socket, h2.connection.H2Connection]:
    """A connection of HTTP/2 with a request for each path, on streams 1, 3, 5 ..."""
    ours = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
        )
    )
    ours.initiate_connection()
    for place, path in enumerate(paths):
        ours.send_headers(2 * place + 1, _headers(path), end_stream=True)
    return _begun(server, ours.data_to_send()), ours


def _headers(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path)]


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"", b"no-slash", b"*", b"/%ff", b"//", b"/%00"])
def test_odd_paths_over_http2(server: Running, path: bytes) -> None:
    before = _sockets(server)
    connection, ours = _h2(server, path)
    with closing(connection):
        over = (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)
        while part := connection.recv(1 << 16):
            if any(isinstance(event, over) for event in ours.receive_data(part)):
                break
    _settles(server, before)


def test_http2_streams_that_are_given_up(server: Running) -> None:
    before = _sockets(server)
    connection, ours = _h2(server, *[b"/files@v1/large"] * 3)
    with closing(connection):
        seen = 0
        while seen < 3:  # their windows are full then, and nobody opens them
            for event in ours.receive_data(_some(connection)):
                seen += isinstance(event, h2.events.ResponseReceived)
        ours.reset_stream(1)
        ours.send_headers(7, _headers(b"/files@v1/small"), end_stream=True)
        ours.increment_flow_control_window(1 << 20)
        connection.sendall(ours.data_to_send())
        small = b""
        while not small:
            for event in ours.receive_data(_some(connection)):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == 7:
                    small += event.data
        assert small == b"small content"
    _settles(server, before)


def test_http2_streams_that_are_opened_and_reset_without_end(server: Running) -> None:
    before = _sockets(server)
    connection, ours = _h2(server, b"/files@v1/large")
    with closing(connection):
        ours.reset_stream(1)
        with suppress(OSError):
            for number in range(1, 5000):
                ours.send_headers(2 * number + 1, _headers(b"/files@v1/large"), end_stream=True)
                ours.reset_stream(2 * number + 1)
                connection.sendall(ours.data_to_send())
        assert _alive(server)
    _settles(server, before)


# -- many, and the end


def test_a_thousand_connections_at_once(tmp_path: Path, url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with ExitStack() as stack:
            given = waits(head_s=1000.0, idle_s=1000.0, files=256)  # a limit that the server raises by itself
            server = stack.enter_context(_waiting(tmp_path, url, given))
            connections = [stack.enter_context(closing(_connected(server))) for _ in range(1000)]
            for connection in connections:
                connection.sendall(GET_SMALL)
            for connection in connections:
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
            for connection in connections:
                connection.sendall(GET_SMALL[:-2])
            assert _alive(server), "those that stop in the middle of a head keep nobody out"
            for connection in connections:
                connection.sendall(b"\r\n")
            for connection in connections:
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_there_may_be(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, "--connections", "5", SPRAYDRY_REPO=url) as server, ExitStack() as stack:
        kept = [stack.enter_context(closing(_connected(server))) for _ in range(5)]
        for connection in kept:
            connection.sendall(GET_SMALL)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        refused = stack.enter_context(closing(_connected(server)))
        told = _all(refused)
        assert told.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in told
        kept[0].close()
        deadline = time.monotonic() + _PATIENCE_S
        while ask(server.port, "GET", "/healthz").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_end_waits_for_downloads(tmp_path: Path, url: str) -> None:
    with (
        _waiting(tmp_path, url, waits(grace_s=1000.0, stall_s=1000.0)) as ending,
        closing(_connected(ending)) as connection,
        closing(_connected(ending)) as idle,
    ):
        idle.sendall(GET_SMALL)
        assert b"small content" in idle.recv(1 << 16)
        connection.sendall(GET_LARGE)
        begun = connection.recv(1 << 16)
        ending.process.send_signal(signal.SIGTERM)
        assert _all(idle) == b"", "nothing is under way there"
        with pytest.raises(OSError):
            for _ in range(int(_PATIENCE_S * 50)):
                _connected(ending).close()
                time.sleep(0.02)
        whole = begun + _all(connection)
        assert len(whole.partition(b"\r\n\r\n")[2]) == LARGE_BYTES
        assert ending.process.wait(_PATIENCE_S) == 0


def test_the_end_waits_for_nobody_for_ever(tmp_path: Path, url: str) -> None:
    waited = waits(grace_s=0.5, stall_s=1000.0)
    with _waiting(tmp_path, url, waited) as ending, closing(_connected(ending)) as connection:
        connection.sendall(GET_LARGE)
        connection.recv(1000)
        assert ending.end() == 0


def test_ctrl_c_ends_it(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=url) as ending:
        ending.process.send_signal(signal.SIGINT)
        assert ending.process.wait(_PATIENCE_S) == 0


# -- where it cannot listen


def test_a_port_in_use_is_one_line(refusal: Callable[..., str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal("--listen", place) == f"spraydry: cannot listen at {place}: something listens there already\n"
    assert "HOST:PORT" in refusal("--listen", "127.0.0.1:http")
    assert "--tokens" in refusal("--listen", "0.0.0.0:0")
    assert "unix:" in refusal("--listen", "unix:")


def test_a_socket_at_a_path(tmp_path: Path, url: str, refusal: Callable[..., str]) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # again after it was killed
        with serving(tmp_path, "--listen", f"unix:{path}", SPRAYDRY_REPO=url) as server:
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.connect(str(path))
                connection.sendall(GET_SMALL)
                assert b"small content" in connection.recv(1 << 16)
            assert path.stat().st_mode & 0o777 == 0o600
            assert "already" in refusal("--listen", f"unix:{path}")
            server.kill()
    with serving(tmp_path, "--listen", f"unix:{path}", SPRAYDRY_REPO=url) as server:
        assert server.end() == 0
    assert not path.exists()


@pytest.fixture
def refusal(url: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refused(*arguments: str) -> str:
        assert run(["--repo", url, "serve", *arguments])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1, err
        return err

    return refused
