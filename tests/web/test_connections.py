"""Clients that do not behave: slow, greedy, silent, gone; and how the server ends while some are there."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from spraydry.actions.ingest import ingest
from spraydry.repository.repository import Repository
from tests.web.asking import ask
from tests.web.serving import Running, serving

LARGE_BYTES = 24 << 20

# Shorter than what a server waits otherwise: the same program, with other numbers.
_IMPATIENT = """
from spraydry.web.guard import connection, limits
from spraydry.web import serving
connection.Patience.__init__.__defaults__ = (1.0, 2.0, 1.5, 0.5)
limits.BODY_WAIT_S = 1.0
serving._GRACE_S = 2.0
from spraydry.cli import main
main()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served")
    (folder / "source").mkdir()
    (folder / "source" / "large").write_bytes(os.urandom(LARGE_BYTES))
    (folder / "source" / "small").write_bytes(b"small content")
    with Repository.open(str(folder / "repository.sqlite"), create=True) as repository:
        ingest(repository, [str(folder / "source")], root="files")
    return str(folder / "repository.sqlite")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[Running]:
    with _impatient(tmp_path_factory.mktemp("impatient"), url) as running:
        yield running
        assert _alive(running), running.log.read_text()


@pytest.fixture
def ending(tmp_path: Path, url: str) -> Iterator[Running]:
    with _impatient(tmp_path, url) as running:
        yield running


@contextmanager
def _impatient(folder: Path, url: str) -> Iterator[Running]:
    real = subprocess.Popen

    def started(command: list[str], **options: object) -> subprocess.Popen[str]:
        assert command[1] == "-c"
        return real([command[0], "-c", _IMPATIENT, *command[3:]], **options)  # type: ignore[call-overload, no-any-return]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.web.serving.subprocess.Popen", started)
        with serving(folder, SPRAYDRY_REPO=url) as running:
            patched.undo()
            yield running
            assert "Traceback" not in running.log.read_text(), running.log.read_text()


def _alive(server: Running) -> bool:
    return ask(server.port, "GET", "/files@v1/small").body == b"small content"


def _connected(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


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
    deadline = time.monotonic() + 15
    while _sockets(server) > most or b"spraydry_connections 1.0" not in ask(server.port, "GET", "/metrics").body:
        assert time.monotonic() < deadline, _sockets(server)
        time.sleep(0.05)


GET_LARGE = b"GET /files@v1/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_SMALL = b"GET /files@v1/small HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_head_that_comes_too_slowly(server: Running) -> None:
    with closing(_connected(server)) as connection:
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(_all(connection)))
        reader.start()
        began = time.monotonic()
        try:
            for letter in GET_SMALL[:-1].decode():
                connection.sendall(letter.encode())
                time.sleep(0.1)
        except OSError:
            pass
        reader.join()
    assert told[0].startswith(b"HTTP/1.1 408 "), told
    assert time.monotonic() - began < 4


def test_nothing_said_and_nothing_more_said(server: Running) -> None:
    began = time.monotonic()
    with closing(_connected(server)) as silent, closing(_connected(server)) as kept:
        kept.sendall(GET_SMALL)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert _all(silent) == b""
        assert time.monotonic() - began < 1.9, "the first request is not waited for as long as another one"
        kept.sendall(GET_SMALL)
        assert b"small content" in kept.recv(1 << 16), "it was kept"
        assert _all(kept) == b""


def test_a_body_that_comes_too_slowly(server: Running) -> None:
    with closing(_connected(server)) as connection:
        connection.sendall(b"PUT /v1/values/frames/abc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
        assert _all(connection).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles(server: Running) -> None:
    with closing(_connected(server)) as connection:
        connection.sendall(b"PUT /v1/values/frames/abc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n")
        told: list[bytes] = []
        reader = threading.Thread(target=lambda: told.append(_all(connection)))
        reader.start()
        sent = 0
        with suppress(OSError):
            while reader.is_alive() and sent < 100:
                connection.sendall(b"x")
                sent += 1
                time.sleep(0.1)
        reader.join()
    assert told[0].startswith(b"HTTP/1.1 408 "), told
    assert sent < 95, "a byte now and then is not enough"


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_refused_body_is_passed_over_and_the_answer_arrives(server: Running, method: str) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        head = f"{method} /v1/nothing-here HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LARGE_BYTES}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(LARGE_BYTES >> 16):
            try:
                connection.sendall(bytes(1 << 16))
            except OSError:
                break
        assert _all(connection).startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
    _settles(server, before)


def test_a_client_that_stops_reading(server: Running) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(GET_LARGE)
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
        with closing(_connected(server)) as connection:
            try:
                connection.sendall(head)
            except OSError:
                pass
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


def _h2(connection: socket.socket) -> h2.connection.H2Connection:
    ours = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
        )
    )
    ours.initiate_connection()
    connection.sendall(ours.data_to_send())
    return ours


def _asked(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", path)]


@pytest.mark.parametrize("path", [b"/\xff\xfe", b"", b"no-slash", b"*", b"/%ff", b"//", b"/%00"])
def test_odd_paths_over_http2(server: Running, path: bytes) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        ours = _h2(connection)
        ours.send_headers(1, _asked(path), end_stream=True)
        connection.sendall(ours.data_to_send())
        connection.settimeout(0.5)
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            pass
    _settles(server, before)


def test_http2_streams_that_are_given_up(server: Running) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        ours = _h2(connection)
        for stream in (1, 3, 5):
            ours.send_headers(stream, _asked(b"/files@v1/large"), end_stream=True)
        connection.sendall(ours.data_to_send())
        seen = 0
        while seen < 3:  # their windows are full then, and nobody opens them
            for event in ours.receive_data(connection.recv(1 << 16)):
                seen += isinstance(event, h2.events.ResponseReceived)
        ours.reset_stream(1)
        ours.send_headers(7, _asked(b"/files@v1/small"), end_stream=True)
        ours.increment_flow_control_window(1 << 20)
        connection.sendall(ours.data_to_send())
        small = b""
        while not small:
            for event in ours.receive_data(connection.recv(1 << 16)):
                if isinstance(event, h2.events.DataReceived) and event.stream_id == 7:
                    small += event.data
        assert small == b"small content"
    _settles(server, before)


def test_http2_streams_that_are_opened_and_reset_without_end(server: Running) -> None:
    before = _sockets(server)
    with closing(_connected(server)) as connection:
        ours = _h2(connection)
        with suppress(OSError):
            for number in range(5000):
                ours.send_headers(2 * number + 1, _asked(b"/files@v1/large"), end_stream=True)
                ours.reset_stream(2 * number + 1)
                connection.sendall(ours.data_to_send())
        assert _alive(server)
    _settles(server, before)


# -- many, and the end


def test_a_thousand_connections_at_once(tmp_path: Path, url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # which the server raises by itself
            server = stack.enter_context(serving(tmp_path, SPRAYDRY_REPO=url))
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
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
        deadline = time.monotonic() + 10
        while ask(server.port, "GET", "/healthz").status != 200:
            assert time.monotonic() < deadline


def test_the_end_waits_for_downloads(ending: Running) -> None:
    with closing(_connected(ending)) as connection, closing(_connected(ending)) as idle:
        idle.sendall(GET_SMALL)
        assert b"small content" in idle.recv(1 << 16)
        connection.sendall(GET_LARGE)
        begun = connection.recv(1 << 16)
        ending.process.send_signal(signal.SIGTERM)
        assert _all(idle) == b"", "nothing is under way there"
        with pytest.raises(OSError):
            for _ in range(100):
                _connected(ending).close()
                time.sleep(0.02)
        whole = begun + _all(connection)
    assert len(whole.partition(b"\r\n\r\n")[2]) == LARGE_BYTES
    assert ending.process.wait(10) == 0


def test_the_end_waits_for_nobody_for_ever(ending: Running) -> None:
    with closing(_connected(ending)) as connection:
        connection.sendall(GET_LARGE)
        connection.recv(1000)
        began = time.monotonic()
        assert ending.end() == 0
        assert time.monotonic() - began < 6


def test_ctrl_c_ends_it(ending: Running) -> None:
    ending.process.send_signal(signal.SIGINT)
    assert ending.process.wait(10) == 0


# -- where it cannot listen


def test_a_port_in_use_is_one_line(tmp_path: Path, url: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert (
            _refusal(url, "--listen", place) == f"spraydry: cannot listen at {place}: something listens there already\n"
        )
    assert "HOST:PORT" in _refusal(url, "--listen", "127.0.0.1:http")
    assert "--tokens" in _refusal(url, "--listen", "0.0.0.0:0")
    assert "unix:" in _refusal(url, "--listen", "unix:")


def test_a_socket_at_a_path(tmp_path: Path, url: str) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # again after it was killed
        with serving(tmp_path, "--listen", f"unix:{path}", SPRAYDRY_REPO=url) as server:
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.connect(str(path))
                connection.sendall(GET_SMALL)
                assert b"small content" in connection.recv(1 << 16)
            assert path.stat().st_mode & 0o777 == 0o600
            assert "already" in _refusal(url, "--listen", f"unix:{path}")
            server.kill()
    with serving(tmp_path, "--listen", f"unix:{path}", SPRAYDRY_REPO=url) as server:
        assert server.end() == 0
    assert not path.exists()


def _refusal(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from spraydry.cli import main; main()", "--repo", url, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode and done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
