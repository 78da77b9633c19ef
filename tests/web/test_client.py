"""A client of `spraydry serve`: every verb over the wire, tokens, clear errors, several servers."""

from __future__ import annotations

import http.server
import json
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spraydry.errors import (
    NotFound,
    SprayDryError,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
)
from spraydry.repository.opening import STORES
from spraydry.repository.repository import Repository
from spraydry.stores.base import open_store
from spraydry.stores.over.retry import Retry
from spraydry.stores.remote import patience
from spraydry.stores.remote import server as asking
from spraydry.stores.remote import servers as choosing
from spraydry.stores.remote.tokens import tokens_path, withheld
from tests.faultproxy import Fault, proxy
from tests.ingest.trees import differences, taken, version_of
from tests.remote_store import check_repository, one_line
from tests.repositories import Run, caller, filled_source
from tests.versions import make_version
from tests.web.serving import Running, kept_port, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """Serves a new, empty repository, as another machine."""
    homes = {name: str(tmp_path / "elsewhere" / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
    with serving(tmp_path / "server", SPRAYDRY_REPO=f"dir:{tmp_path}/store", **homes) as running:
        yield running


@pytest.fixture
def spraydry(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def all_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a client that opens waits for what every server says."""
    monkeypatch.setattr(choosing, "_OTHERS_S", 60.0)
    monkeypatch.setattr(asking, "_GREETING_S", 60.0)


# -- every verb


def test_a_repository(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_repository(server.url, tmp_path, monkeypatch)


def test_verbs(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spraydry: Run) -> None:
    monkeypatch.setenv("SPRAYDRY_REPO", server.url)
    source = filled_source(tmp_path, 2_000_000)
    spraydry("ingest", source)
    (source / "more").write_bytes(random.Random(8).randbytes(500_000))
    spraydry("ingest", source, "--root", "second")
    spraydry("restore", "source", tmp_path / "back")
    local = str(tmp_path / "local.sqlite")
    spraydry("--repo", local, "pull", server.url)
    lazy = str(tmp_path / "lazy.sqlite")
    spraydry("clone", "--lazy", server.url, lazy)
    with Repository.open(server.url, read_only=True) as remote, Repository.open(local) as pulled:
        for root in ("source", "second"):
            assert pulled.log.find(root).record.root == remote.log.find(root).record.root
        assert differences(pulled, pulled.log.find("second"), source) == []
    with Repository.open(lazy) as fetched:
        assert differences(fetched, fetched.log.find("second"), source) == []
    spraydry("tag", "source@v1", "kept")
    (source / "local").write_bytes(b"made here")
    spraydry("--repo", local, "ingest", source, "--root", "pushed")
    spraydry("--repo", local, "push", server.url)
    spraydry("rm", "second@v1")
    spraydry("gc", "--grace", "0s")
    with Repository.open(server.url, read_only=True) as remote:
        assert remote.roots() == ["pushed", "source"]
        assert differences(remote, remote.log.find("pushed"), source) == []
    _, out, _ = spraydry("verify")
    assert "all is whole" in out
    _, out, _ = spraydry("--repo", f"dir:{tmp_path}/store", "verify")
    assert "all is whole" in out


def test_what_was_collected_meanwhile_is_stored_again(server: Running, tmp_path: Path) -> None:
    """The fence holds over the wire: another client condemns what this one counts on."""
    with Repository.open(server.url) as one, Repository.open(server.url) as other:
        first = make_version(one, "r", {b"a": random.Random(1).randbytes(200_000)})
        other.refresh()
        assert other.log.head == one.log.head and first.name == "v1"
        make_version(other, "r", {b"a": random.Random(1).randbytes(200_000), b"b": b"new"})
        one.refresh()
        assert [version.name for version in one.versions("r")] == ["v1", "v2"]


# -- tokens


@pytest.fixture
def guarded(tmp_path: Path, spraydry: Run) -> Iterator[tuple[Running, str, str]]:
    """A server that wants tokens, one that may do everything and one that may only read."""
    tokens = tmp_path / "tokens.json"
    made = []
    for name, rights in (("all", "list,read,add,overwrite,delete"), ("reader", "list,read")):
        _, out, _ = spraydry("token", "add", name, "--tokens", tokens, "--rights", rights)
        made.append(next(word for word in out.split() if len(word) > 30))
    with serving(tmp_path / "server", "--tokens", str(tokens), SPRAYDRY_REPO=f"dir:{tmp_path}/store") as running:
        yield running, made[0], made[1]


def test_tokens(
    guarded: tuple[Running, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spraydry: Run
) -> None:
    server, all_of_it, reader = guarded
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    error = one_line(StoreError, r"wants a token: \$SPRAYDRY_TOKEN", lambda: open_store(server.url))
    monkeypatch.setenv("SPRAYDRY_TOKEN", "wrong-" + "x" * 40)
    error = one_line(StoreError, "does not know this token", lambda: open_store(server.url))
    assert "x" * 40 not in str(error)
    monkeypatch.setenv("SPRAYDRY_TOKEN", all_of_it)
    with Repository.open(server.url) as repository:
        make_version(repository, "r", {b"a": b"one"})
    monkeypatch.setenv("SPRAYDRY_TOKEN", reader)
    with Repository.open(server.url) as repository:
        assert repository.roots() == ["r"]
        source = tmp_path / "source"
        source.mkdir()
        (source / "b").write_bytes(b"two")
        error = one_line(StoreReadOnly, "does not give the right", lambda: taken(repository, source))
        assert reader not in str(error)
    _, _, err = spraydry("--repo", server.url, "ingest", str(source), code=StoreReadOnly.exit_code)
    assert err.count("\n") == 1
    # From the file, which goes before what the environment says.
    path = Path(tokens_path())
    path.parent.mkdir(parents=True)
    path.write_text(f"# mine\nelsewhere {reader}\n127.0.0.1:{server.port} {all_of_it}\n")
    path.chmod(0o644)
    one_line(UsageError, "can be read by others: chmod 600", lambda: open_store(server.url))
    path.chmod(0o600)
    with Repository.open(server.url) as repository:
        make_version(repository, "r", {b"a": b"two"})
    path.write_text("127.0.0.1\n")
    error = one_line(UsageError, "line 1 is not HOST", lambda: open_store(server.url))


@dataclass
class Listener:
    """Says it serves a repository, and remembers what it was sent."""

    url: str = ""
    tokens: list[str | None] = field(default_factory=list)
    repository: str = "ab" * 16


@contextmanager
def listener(status: int = 200, location: str = "") -> Iterator[Listener]:
    heard = Listener()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            heard.tokens.append(self.headers.get("Authorization"))
            said = {"spraydry": 1, "repository": heard.repository, "read_only": True, "concurrency": 4}
            body = json.dumps(said | {"batch_bytes": 1 << 20, "body_bytes": 1 << 20}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    heard.url = f"http://127.0.0.1:{running.server_port}"
    try:
        yield heard
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def test_a_token_goes_to_its_host_only(tmp_path: Path, all_are_heard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with listener() as mine, listener() as other:
        port = mine.url.rpartition(":")[2]
        path = Path(tokens_path())
        path.parent.mkdir(parents=True)
        path.touch(0o600)
        path.write_text(f"127.0.0.1:{port} secret\n")
        open_store(mine.url).close()
        open_store(other.url).close()
        assert set(mine.tokens) == {"Bearer secret"} and set(other.tokens) == {None}
        # One of several: each gets its own.
        open_store(f"{mine.url},{other.url.removeprefix('http://')}").close()
        assert set(mine.tokens) == {"Bearer secret"} and set(other.tokens) == {None}
        # A redirection is not followed.
        with listener(302, other.url + "/v1/") as away, pytest.raises(SprayDryError):
            monkeypatch.setenv("SPRAYDRY_TOKEN", "secret")
            before = len(other.tokens)
            open_store(away.url)
        assert len(other.tokens) == before


def test_no_token_goes_where_a_repository_says(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the repository could collect tokens otherwise."""
    monkeypatch.setenv("SPRAYDRY_TOKEN", "secret")
    with listener() as evil:
        with withheld(), pytest.raises(SprayDryError):
            Repository.open(evil.url, read_only=True)
        url = f"dir:{tmp_path}/theirs"
        with Repository.open(url, create=True) as repository:
            text = (
                f'number = 1\nowner = "main"\ncopies = 1\n[[store]]\nname = "main"\n'
                f'id = "{repository.config.store.hex()}"\nurl = "{url}"\ncache = "{evil.url}"\ncache_size = "1M"\n'
                f'[[store]]\nname = "evil"\nid = "{"ab" * 16}"\nurl = "{evil.url}"\n'
            )
            repository.store.put("config", STORES, text.encode())
        Repository.open(url).close()
        assert len(evil.tokens) > 1 and set(evil.tokens) == {None}


# -- errors


def test_errors(server: Running, tmp_path: Path, spraydry: Run) -> None:
    one_line(StoreNotFound, "HOST:PORT/NAME", lambda: open_store(f"{server.url}/nothing"))
    with Repository.open(server.url) as repository:
        one_line(NotFound, "no root 'nothing'", lambda: repository.resolve("nothing"))
    with serving(tmp_path / "reading", "--read-only", SPRAYDRY_REPO=f"dir:{tmp_path}/store") as reading:
        with Repository.open(reading.url) as repository:
            assert repository.read_only
        (tmp_path / "source").mkdir()
        _, _, err = spraydry("--repo", reading.url, "ingest", tmp_path / "source", code=StoreReadOnly.exit_code)
        assert "a server that takes nothing" in err and err.count("\n") == 1
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        one_line(StoreUnavailable, "nothing answers", lambda: open_store(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    with listener(500) as broken:
        one_line(StoreUnavailable, "status 500", lambda: open_store(broken.url))


def test_a_server_that_goes_away(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spraydry: Run
) -> None:
    monkeypatch.setattr(Retry.__init__, "__defaults__", (2, 60.0, 0.01, 0.1, 1))
    monkeypatch.setenv(patience.VARIABLE, "0")
    with Repository.open(server.url) as repository:
        make_version(repository, "r", {b"a": b"one"})
        server.kill()
        one_line(StoreUnavailable, "nothing answers", repository.refresh)
    _, _, err = spraydry("--repo", server.url, "log", code=StoreUnavailable.exit_code)
    assert "nothing answers" in err and err.count("\n") == 1


def test_what_a_server_writes_is_made_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = b'{"error": "\\u001b[31mred\\nsecond line\\u0007", "kind": "StoreError"}'
    with proxy_answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(evil), evil)) as url:
        error = one_line(StoreError, "red.second line", lambda: open_store(url))
        assert "\x1b" not in str(error) and "\x07" not in str(error)


@contextmanager
def proxy_answering(answer: bytes) -> Iterator[str]:
    """An address where every request gets that answer."""
    with listener() as behind:
        at = behind.url.removeprefix("http://").split(":")
        with proxy(at[0], int(at[1])) as between:
            between.fault = Fault(answer=answer, answer_to=b"GET")
            yield f"http://{between.address}"


# -- several servers


def test_the_nearest_is_taken(server: Running, all_are_heard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy("127.0.0.1", server.port) as far, proxy("127.0.0.1", server.port) as near:
        far.fault = Fault(delay_s=0.75)  # so it counts as nearer only what answers within 1.4 s
        store = open_store(f"http://{far.address},{near.address}")
        struck = far.struck
        for _ in range(20):
            assert len(store.get("config", "config")) > 40
        assert far.struck == struck
        # The near one fails: the far one is taken, and the near one again when it is back.
        monkeypatch.setattr(choosing, "LEFT_OUT_S", 0.1)
        near.fault = Fault(cut_answer=0)
        assert len(store.get("config", "config")) > 40
        assert far.struck > struck
        near.fault = None
        for _ in range(200):
            struck = far.struck
            store.get("config", "config")
            if far.struck == struck:
                break
            threading.Event().wait(0.05)
        assert far.struck == struck
        store.close()


def test_who_has_not_answered_yet_is_waited_for_where_no_other_is_left(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_OTHERS_TIMES", 0.0)
    monkeypatch.setattr(choosing, "_OTHERS_S", 0.0)
    monkeypatch.setattr(asking, "_GREETING_S", 60.0)
    with proxy("127.0.0.1", server.port) as far, proxy("127.0.0.1", server.port) as near:
        far.fault = Fault(delay_s=0.75)
        store = open_store(f"http://{far.address},{near.address}")  # which does not wait for the far one
        near.fault = Fault(cut_answer=0)
        assert len(store.get("config", "config")) > 40
        store.close()


def test_others_that_are_not_there_or_wrong(server: Running, all_are_heard: None) -> None:
    here = server.url.removeprefix("http://")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        store = open_store(f"http://{nobody},{here}")
        assert len(store.get("config", "config")) > 40
        store.close()
    with listener() as other:
        one_line(
            StoreError,
            "serves another repository than http",
            lambda: open_store(f"http://{here},{other.url.removeprefix('http://')}"),
        )
    with listener(404) as none:
        one_line(UsageError, "no `spraydry serve`", lambda: open_store(f"{server.url},{none.url[7:]}"))


def test_a_server_that_comes_back_as_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to another repository, and nothing is read from it."""
    monkeypatch.setattr(choosing, "LEFT_OUT_S", 0.0)
    with kept_port() as port:
        with serving(tmp_path / "first", listen=f"127.0.0.1:{port}", SPRAYDRY_REPO=f"dir:{tmp_path}/one") as server:
            store = open_store(server.url)
            server.kill()
        with pytest.raises(StoreUnavailable):
            store.get("config", "config")
        with serving(tmp_path / "again", listen=f"127.0.0.1:{port}", SPRAYDRY_REPO=f"dir:{tmp_path}/other"):
            one_line(StoreError, "another repository than it did before", lambda: store.get("config", "config"))
        store.close()


@pytest.mark.parametrize("several", [False, True], ids=["one", "two"])
def test_a_lost_answer_to_a_commit(server: Running, all_are_heard: None, several: bool) -> None:
    """The record is there, and it is this client's: it hears so, and commits once."""
    with ExitStack() as stack:
        between = [stack.enter_context(proxy("127.0.0.1", server.port)) for _ in range(1 + several)]
        url = "http://" + ",".join(one.address for one in between)
        repository = stack.enter_context(Repository.open(url))
        for number in range(1, 6):
            fault = Fault(lose_answer_to=b"PUT /v1/values/log/", times=1)
            for one in between:
                one.fault = fault
            made = make_version(repository, "r", {b"a": b"%d" % number})
            assert made.name == f"v{number}"
        assert sum(one.struck for one in between) == 5
        assert [version.name for version in repository.versions("r")] == [f"v{n}" for n in range(1, 6)]
        assert len(repository.log.records) == 5


def test_another_wins_the_slot(server: Running) -> None:
    with Repository.open(server.url) as one, Repository.open(server.url) as other:
        make_version(one, "r", {b"a": b"1"})
        make_version(other, "r", {b"a": b"2"})
        make_version(one, "r", {b"a": b"3"})
        other.refresh()
        assert [version.name for version in other.versions("r")] == ["v1", "v2", "v3"]


def test_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = certified(tmp_path)
    with serving(
        tmp_path / "server", "--certificate", str(certificate), "--key", str(key), SPRAYDRY_REPO=f"dir:{tmp_path}/store"
    ) as running:
        url = f"https://localhost:{running.port}"
        one_line(StoreError, "certificate is not good", lambda: open_store(url))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        source = tmp_path / "source"
        source.mkdir()
        (source / "a").write_bytes(b"one")
        with Repository.open(url) as repository:
            assert version_of(taken(repository, source)).name == "v1"


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody vouches for, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", certificate, "-days", "30", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key
