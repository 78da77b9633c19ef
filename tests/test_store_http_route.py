"""The http store reaches servers with TLS, by proxies, and gives up in time where nobody answers."""

from __future__ import annotations

import http.client
import http.server
import select
import shutil
import socket
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spraydry.errors import StoreError, StoreUnavailable, UsageError
from spraydry.stores.base import open_store
from spraydry.stores.shared import exchange
from tests.remote_store import LARGE, one_line
from tests.servers import server_or_skip


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to serve, with a store in it."""
    folder = tmp_path_factory.mktemp("files")
    store = open_store(f"dir:{folder / 'store'}", create=True)
    store.put("config", "config", b"c")
    store.put("frames", "large", LARGE)
    store.flush()
    store.close()
    subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def plain(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_or_skip("nginx", tmp_path_factory.mktemp("nginx"), str(files)) as running:
        yield running.url


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made one, for 127.0.0.1; its key is `key` beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: there is no openssl to make a certificate")
    made = tmp_path_factory.mktemp("certificate")
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=spraydry"
    command = ["openssl", "req", *kind.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", made / "key", "-out", made / "it"], check=True, capture_output=True)
    return made / "it"


@pytest.fixture(scope="module")
def secure(files: Path, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, key = tmp_path_factory.mktemp("nginx"), certificate.with_name("key")
    with server_or_skip("nginx", folder, str(files), str(certificate), str(key)) as running:
        yield running.url


def check_reading(url: str) -> None:
    store = open_store(url + "store")
    assert store.get("config", "config") == b"c"
    assert store.get("frames", "large") == LARGE
    assert store.get("frames", "large", -5, 3) == LARGE[-5:-2]
    assert store.info("frames", "nothing") is None
    store.close()


# -- TLS


def test_with_tls(secure: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secure.startswith("https://")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    check_reading(secure)
    other = secure.replace("127.0.0.1", "localhost")
    error = one_line(StoreError, "certificate is not good: .*localhost", lambda: open_store(other + "store"))
    assert not error.retryable


def test_a_certificate_nobody_vouches_for(secure: str) -> None:
    error = one_line(StoreError, "not good: self-signed.*SSL_CERT_FILE", lambda: open_store(secure + "store"))
    assert not error.retryable


def test_servers_of_the_other_kind(plain: str, secure: str) -> None:
    error = one_line(
        StoreError, "not speak TLS.*http://", lambda: open_store(plain.replace("http:", "https:") + "store")
    )
    assert not error.retryable
    one_line(StoreError, "status 400", lambda: open_store(secure.replace("https:", "http:") + "store"))


# -- proxies


class Forwarding(http.server.BaseHTTPRequestHandler):
    """A proxy as RFC 9110 has them: whole addresses, and CONNECT. It notes what it is asked for."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    wants = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        if not self.lets_in():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            both = {self.connection: server, server: self.connection}
            with suppress(OSError):
                while True:
                    for one in select.select(list(both), [], [])[0]:
                        if not (data := one.recv(1 << 16)):
                            return
                        both[one].sendall(data)

    def do_GET(self) -> None:
        if not self.lets_in():
            return
        to = urlsplit(self.path)
        assert to.scheme == "http" and self.headers["Host"] == to.netloc
        connection = http.client.HTTPConnection(to.netloc)
        connection.request(self.command, to.path, headers={"Range": self.headers["Range"] or "bytes=0-"})
        answer = connection.getresponse()
        body = answer.read()
        whole = answer.status == 206 and "Range" not in self.headers
        self.send_response(200 if whole else answer.status)
        for name in ("Content-Range",) if not whole and answer.headers["Content-Range"] else ():
            self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", answer.headers["Content-Length"])
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_HEAD = do_GET

    def lets_in(self) -> bool:
        self.asked.append(f"{self.command} {self.path}")
        if self.wants and self.headers["Proxy-Authorization"] != "Basic " + b64encode(self.wants.encode()).decode():
            self.send_error(407)
            return False
        return True


@contextmanager
def proxy(wants: str = "") -> Iterator[tuple[str, list[str]]]:
    """Its HOST:PORT, and what it is asked for; `wants` is the USER:PASSWORD it lets in."""
    asked: list[str] = []
    handler = type("Handler", (Forwarding,), {"asked": asked, "wants": wants})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever).start()
        try:
            yield f"127.0.0.1:{running.server_address[1]}", asked
        finally:
            running.shutdown()


def test_by_a_proxy(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as (place, asked):
        monkeypatch.setenv("http_proxy", f"http://{place}")
        check_reading(plain)
        assert len(asked) >= 5 and all(f" {plain}store/" in one for one in asked), asked
        before = len(asked)
        for spared in ("127.0.0.1", "elsewhere, " + urlsplit(plain).netloc, "*"):
            monkeypatch.setenv("no_proxy", spared)
            check_reading(plain)
        assert len(asked) == before
        monkeypatch.setenv("no_proxy", "127.0.0.2,example.org")
        monkeypatch.setenv("http_proxy", place)  # as some write it
        check_reading(plain)
        assert len(asked) > before


def test_by_a_proxy_with_tls(secure: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with proxy() as (place, asked):
        monkeypatch.setenv("https_proxy", f"http://{place}")
        check_reading(secure)
        assert set(asked) == {f"CONNECT {urlsplit(secure).netloc}"}
        monkeypatch.delenv("SSL_CERT_FILE")
        one_line(StoreError, f"by the proxy {place}: .*not good: self-signed", lambda: open_store(secure + "store"))


def test_a_proxy_with_a_password(plain: str, secure: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with proxy("me:a b@c") as (place, _):
        for url in (plain, secure):
            variable = url.partition(":")[0] + "_proxy"
            monkeypatch.setenv(variable, f"http://me:a%20b%40c@{place}/")
            check_reading(url)
            monkeypatch.setenv(variable, f"http://me:secret@{place}/")
            error = one_line(StoreError, f"by the proxy {place}.*(without a password|407)", lambda u=url: open_store(u))  # type: ignore[misc]
            assert "secret" not in str(error)


def test_proxies_that_cannot_be_used(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("socks5://me:secret@host:1", "https://host:1", "http://", "http://host:port", "http://[::1"):
        monkeypatch.setenv("http_proxy", value)
        error = one_line(UsageError, r"\$http_proxy names no proxy", lambda: open_store(plain))
        assert "secret" not in str(error)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = "{}:{}".format(*unused.getsockname())
        monkeypatch.setenv("http_proxy", f"http://{place}")
        assert one_line(
            StoreUnavailable, f"by the proxy {place} cannot be reached", lambda: open_store(plain)
        ).retryable


# -- nobody answers


def test_a_server_that_never_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes the first connections; for those behind them it answers nothing at all."""
    monkeypatch.setattr(exchange, "_PATIENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        url = "http://{}:{}/".format(*listening.getsockname())
        waiting: list[socket.socket] = []
        one_line(StoreUnavailable, "does not answer in time", lambda: open_store(url))
        try:
            for _ in range(8):  # until no more are taken
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listening.getsockname())
                waiting.append(one)
            began_s = time.monotonic()
            one_line(StoreUnavailable, "does not answer in time", lambda: open_store(url))
            assert 0.4 < time.monotonic() - began_s < 100, "the kernel tries for two minutes"
        finally:
            for one in waiting:
                one.close()
