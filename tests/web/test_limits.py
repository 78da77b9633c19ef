"""What a server takes: rates, sizes, quotas, nothing at all; and what it tells of itself: its log and its metrics."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from spraydry.actions.ingest import ingest
from spraydry.cli import run
from spraydry.errors import NotFound, UsageError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from spraydry.web.guard import tokenfile, usage
from spraydry.web.guard.limits import Rates, TooMany
from spraydry.web.guard.quotas import Quotas
from tests.web.asking import Answer, ask, token
from tests.web.serving import Running, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("served")
    (folder / "source").mkdir()
    (folder / "source" / "file name").write_bytes(b"content")
    with Repository.open(str(folder / "repository.sqlite"), create=True) as repository:
        ingest(repository, [str(folder / "source")], root="files")
    return str(folder / "repository.sqlite")


def _frame(content: bytes) -> bytes:
    return frames.encode([content], "other").stored


def _put(server: Running, frame: bytes, secret: str | None = None) -> Answer:
    return ask(server.port, "PUT", f"/v1/values/frames/{digest(frame).hex()}", frame, token=secret)


def test_requests_that_come_too_fast(tmp_path: Path, url: str) -> None:
    tokens = tmp_path / "tokens.json"
    one, other = (token(tokens, name, "read", "list") for name in ("one", "other"))
    with serving(tmp_path, "--rate", "0.001", "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        assert ask(server.port, "GET", "/v1/", token=one).status == 200
        refused = ask(server.port, "GET", "/v1/", token=one)
        assert (refused.status, refused.kind) == (429, "TooMany")
        assert 1 <= int(refused.headers["retry-after"]) <= 1000
        assert ask(server.port, "GET", "/v1/", token=other).status == 200, "each token has its own"
        assert ask(server.port, "GET", "/v1/").status == 401
        assert ask(server.port, "GET", "/v1/").status == 429, "and so has each address"
        assert ask(server.port, "GET", "/v1/", token="wrong").status == 429
        assert all(ask(server.port, "GET", "/healthz").status == 200 for _ in range(5))


def test_behind_a_proxy_it_is_the_client_who_counts(tmp_path: Path, url: str) -> None:
    log = tmp_path / "access.log"
    arguments = ("--rate", "0.001", "--proxy", "127.0.0.1", "--access-log", str(log))
    with serving(tmp_path, *arguments, SPRAYDRY_REPO=url) as server:
        for number in range(3):
            assert ask(server.port, "GET", "/v1/", X_Forwarded_For=f"::1, 192.0.2.{number}").status == 200
            assert ask(server.port, "GET", "/v1/", X_Forwarded_For=f"192.0.2.9, 192.0.2.{number}").status == 429
        assert ask(server.port, "GET", "/v1/", X_Forwarded_For="2001:db8::1").status == 200
        assert ask(server.port, "GET", "/v1/", X_Forwarded_For="2001:db8::2").status == 429, "one sender's network"
        assert ask(server.port, "GET", "/v1/", X_Forwarded_For="nonsense\\").status == 200
        assert server.end() == 0
    addresses = [json.loads(line)["address"] for line in log.read_text().splitlines()]
    assert addresses[0] == "192.0.2.0" and addresses[-1] == "127.0.0.1"
    with serving(tmp_path, "--rate", "0.001", SPRAYDRY_REPO=url) as server:
        assert ask(server.port, "GET", "/v1/", X_Forwarded_For="192.0.2.1").status == 200
        assert ask(server.port, "GET", "/v1/", X_Forwarded_For="192.0.2.2").status == 429, "nobody said it is a proxy"


async def test_who_waits_as_told_is_let_in(autojump_clock: trio.testing.MockClock) -> None:
    rates = Rates(4.0)
    for _ in range(8):
        rates.take("one")
    with pytest.raises(TooMany) as refused:
        rates.take("one")
    assert refused.value.after_s == 1
    rates.take("other")
    await trio.sleep(refused.value.after_s)
    for _ in range(4):
        rates.take("one")
    with pytest.raises(TooMany):
        rates.take("one")
    for number in range(20_000):
        rates.take(str(number))  # memory is bounded
    assert len(rates._left) == 10_000


def test_bodies_that_are_too_large(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, "--max-body", "1K", SPRAYDRY_REPO=url) as server:
        large = _frame(random.randbytes(2000))
        refused = _put(server, large)
        assert (refused.status, refused.kind) == (413, "BodyTooLarge")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        connection.request(
            "PUT",
            f"/v1/values/frames/{digest(large).hex()}",
            iter([large]),
            {"Transfer-Encoding": "chunked"},
            encode_chunked=True,
        )
        assert connection.getresponse().status == 413
        connection.close()
        assert _put(server, _frame(b"small")).status in {200, 201, 204}


def _until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_token_with_a_quota(tmp_path: Path, url: str) -> None:
    tokens = tmp_path / "tokens.json"
    secret = token(tokens, "limited", "list", "read", "add", quota_bytes=3000)
    free = token(tokens, "free", "list", "read", "add")
    first, second = _frame(random.randbytes(2000)), _frame(random.randbytes(2000))
    with serving(tmp_path, "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        assert _put(server, first, secret).status in {200, 201, 204}
        refused = _put(server, second, secret)
        assert (refused.status, refused.kind) == (507, "OverQuota")
        assert ask(server.port, "GET", "/v1/", token=secret).status == 200, "it still reads"
        assert ask(server.port, "POST", "/v1/batch/has", b"", token=secret).status != 507
        assert _put(server, _frame(b"little"), secret).status in {200, 201, 204}
        assert server.end() == 0
    assert json.loads((tmp_path / "tokens.json.used").read_text())["limited"] > 2000
    with serving(tmp_path, "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        assert _put(server, second, secret).status == 507, "it is remembered"
        assert _put(server, second, free).status in {200, 201, 204}


def test_a_quota_that_is_changed_while_a_server_runs(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = tmp_path / "tokens.json"
    secret = token(tokens, "limited", "add", quota_bytes=3000)
    first, second, third, fourth = (_frame(random.randbytes(2000)) for _ in range(4))
    taken = {200, 201, 204}

    def told(*arguments: str) -> dict[str, object]:
        assert run(["token", "set", "limited", "--tokens", str(tokens), "--json", *arguments]) == 0
        return {**json.loads(capsys.readouterr().out)}

    with serving(tmp_path, "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        assert _put(server, first, secret).status in taken
        assert _put(server, second, secret).status == 507
        assert told("--quota", "5000", "--dry-run")["quota_bytes"] == 5000
        assert tokenfile.named(tokens, "limited").quota_bytes == 3000
        said = told("--quota", "5000")
        assert (said["name"], said["quota_bytes"], said["expires"], said["dry_run"]) == ("limited", 5000, None, False)
        _until(lambda: _put(server, second, secret).status in taken)
        refused = _put(server, third, secret)
        assert refused.status == 507 and b"token set" in refused.body, "what came before it was raised counts"
        assert told("--quota", "none")["quota_bytes"] is None
        _until(lambda: _put(server, third, secret).status in taken)
        assert _put(server, fourth, secret).status in taken
        assert server.end() == 0
    before = tokenfile.named(tokens, "limited")
    used = usage.read(tokens)["limited"]
    assert used > 8000, "also what came while it had no quota"
    with serving(tmp_path, "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        assert told("--quota", "8000", "--days", "2")["uploaded_bytes"] == used
        _until(lambda: _put(server, _frame(b"little"), secret).status == 507)
    after = tokenfile.named(tokens, "limited")
    assert (after.secret, after.given, after.made) == (before.secret, before.given, before.made)
    assert 0 < after.expires - time.time() < 2.1 * 86400 and before.expires == 0


def test_what_was_uploaded_is_written_down_when_it_can_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = tmp_path / "folder" / "tokens.json"
    quotas = Quotas(tokens, None, [])
    for _ in range(3):
        upload = quotas.watch("one", None, 5)
        assert upload is not None
        upload.begin()
        upload.end(True)
        quotas.save()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once, though it is tried each time"
    tokens.parent.mkdir()
    quotas.save()
    assert usage.read(tokens) == {"one": 15}


@pytest.mark.parametrize(
    "arguments", [[], ["--quota", ""], ["--quota", "many"], ["--days", "0"], ["--days", "nan"], ["--days", "soon"]]
)
def test_what_cannot_be_changed_of_a_token(tmp_path: Path, arguments: list[str]) -> None:
    tokens = tmp_path / "tokens.json"
    token(tokens, "one", "read")
    before = tokens.read_bytes()
    assert run(["token", "set", "one", "--tokens", str(tokens), *arguments]) == UsageError.exit_code
    assert run(["token", "set", "other", "--tokens", str(tokens), "--quota", "1G"]) == NotFound.exit_code
    assert tokens.read_bytes() == before


def test_a_server_with_a_quota(tmp_path: Path, url: str) -> None:
    with Repository.open(url, read_only=True) as repository:
        held = repository.store.stat().bytes
    with serving(tmp_path, "--quota", str(held + 5000), SPRAYDRY_REPO=url) as server:
        assert _put(server, _frame(random.randbytes(4000))).status in {200, 201, 204}
        refused = _put(server, _frame(random.randbytes(4000)))
        assert (refused.status, refused.kind) == (507, "OverQuota")
        assert ask(server.port, "GET", "/files@v1/file%20name").body == b"content"


def test_a_server_that_takes_nothing(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, "--read-only", SPRAYDRY_REPO=url) as server:
        assert _put(server, _frame(b"anything")).status == 405
        assert ask(server.port, "DELETE", "/v1/values/frames/" + "0" * 64).status == 405
        assert ask(server.port, "GET", "/files@v1/file%20name").body == b"content"
        assert json.loads(ask(server.port, "GET", "/v1/").body)["read_only"] is True


def test_what_anyone_may(tmp_path: Path, url: str) -> None:
    tokens = tmp_path / "tokens.json"
    secret = token(tokens, "writer", "add")
    arguments = ("--anyone", "read,list", "--tokens", str(tokens))
    with serving(tmp_path, *arguments, listen="0.0.0.0:0", SPRAYDRY_REPO=url) as server:
        assert ask(server.port, "GET", "/files@v1/file%20name").body == b"content"
        assert _put(server, _frame(b"something new")).status == 401
        assert _put(server, _frame(b"something new"), secret).status in {200, 201, 204}
        assert ask(server.port, "GET", "/files@v1/file%20name", token="wrong").status == 401
        assert ask(server.port, "GET", "/metrics").status == 200
        assert ask(server.port, "GET", "/metrics", X_Forwarded_For="10.0.0.1").status == 401


# -- TLS


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        f" -addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls(tmp_path: Path, url: str) -> None:
    certificate, key = _certificate(tmp_path)
    with serving(tmp_path, "--certificate", str(certificate), "--key", str(key), SPRAYDRY_REPO=url) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificate))
        assert ask(server.port, "GET", "/files@v1/file%20name", secure=trusting).body == b"content"
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(server.port, "GET", "/healthz", secure=ssl.create_default_context())
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(server.port, "GET", "/healthz")
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(certificate)
        old.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("localhost", server.port))
        with old.wrap_socket(plain, server_hostname="localhost") as secure:
            assert secure.selected_alpn_protocol() == "h2"
        assert ask(server.port, "GET", "/healthz", secure=trusting).status == 200
        assert server.end() == 0


def test_what_is_no_certificate_is_one_line(tmp_path: Path, refusal: Callable[..., str]) -> None:
    certificate, key = _certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other = _certificate(tmp_path / "other")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    for pair, said in (
        ((certificate, other), "another certificate"),
        ((nonsense, key), "PEM"),
        ((certificate, nonsense), "PEM"),
        ((tmp_path / "absent", key), "absent"),
        ((certificate, None), "both"),
    ):
        arguments = ["--certificate", str(pair[0]), *(["--key", str(pair[1])] if pair[1] else [])]
        assert said in refusal(*arguments)


def test_what_cannot_be_served_so_is_one_line(tmp_path: Path, url: str, refusal: Callable[..., str]) -> None:
    path = tmp_path / "tokens.json"
    assert "spraydry token add" in refusal("--tokens", str(path))
    token(path, "one", "read")
    path.chmod(0o644)
    assert "chmod 600" in refusal("--tokens", str(path))
    assert "access log" in refusal("--access-log", str(tmp_path / "no" / "such" / "folder"))
    assert "healthz" in refusal(f"healthz={url}")
    assert "right" in refusal("--anyone", "everything")
    assert "nginx" in refusal("--accel", "apache")
    assert "s3://BUCKET/PREFIX" in refusal("--plain", "s3://b")


@pytest.fixture
def refusal(url: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def refused(*arguments: str) -> str:
        assert run(["--repo", url, "serve", "--listen", "127.0.0.1:0", *arguments])
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1, err
        return err

    return refused


# -- what it tells


def test_the_access_log(tmp_path: Path, url: str) -> None:
    tokens, log = tmp_path / "tokens.json", tmp_path / "access.log"
    secret = token(tokens, "reader", "list", "read")
    before_s = time.time()
    with serving(tmp_path, "--tokens", str(tokens), "--access-log", str(log), SPRAYDRY_REPO=url) as server:
        ask(server.port, "GET", "/files@v1/file%20name?x=very-secret", token=secret)
        ask(server.port, "HEAD", "/files@v1/absent", token=secret)
        ask(server.port, "GET", "/absent", token="wrong-secret")
        _until(lambda: log.read_text().count("\n") == 3)
        os.rename(log, tmp_path / "moved.log")
        ask(server.port, "GET", "/healthz")
        _until(lambda: log.exists() and log.read_text().count("\n") == 1)
        ask(server.port, "GET", '/%22%0a"quoted"')
        assert server.end() == 0
    assert log.stat().st_mode & 0o777 == 0o600
    text = (tmp_path / "moved.log").read_text()
    last = [json.loads(line) for line in log.read_text().splitlines()][-1]
    assert secret not in text and "secret" not in text
    first, second, third = map(json.loads, text.splitlines())
    assert first | {"time": 0, "seconds": 0} == {
        "time": 0,
        "address": "127.0.0.1",
        "token": "reader",
        "method": "GET",
        "path": "/files@v1/file%20name",
        "status": 200,
        "bytes": 7,
        "seconds": 0,
    }
    assert first["time"].endswith("Z") and before_s - 0.001 <= datetime.fromisoformat(first["time"]).timestamp()
    assert datetime.fromisoformat(last["time"]).timestamp() <= time.time()
    assert 0 < first["seconds"] < time.time() - before_s
    assert (second["method"], second["bytes"], second["status"]) == ("HEAD", 0, 404)
    assert (third["token"], third["status"]) == ("", 401)
    assert last["path"] == '/%22%0a"quoted"', "what was noted is written before the end"


def test_metrics(tmp_path: Path, url: str) -> None:
    tokens = tmp_path / "tokens.json"
    reader = token(tokens, "reader", "list", "read", roots=("files",))
    watcher = token(tokens, "watcher", "read", namespaces=("metrics",))
    with serving(tmp_path, "--tokens", str(tokens), SPRAYDRY_REPO=url) as server:
        for _ in range(3):
            assert ask(server.port, "GET", "/files@v1/file%20name", token=reader).status == 200
        assert ask(server.port, "GET", "/files@v1/absent", token=reader).status == 404
        assert ask(server.port, "GET", "/files@v1/file%20name", token=watcher).status == 403
        assert ask(server.port, "GET", "/metrics", token=reader).status == 403
        assert ask(server.port, "GET", "/metrics").status == 401
        told = ask(server.port, "GET", "/metrics", token=watcher)
    assert told.headers["content-type"].startswith("text/plain")
    rows = dict(line.rsplit(" ", 1) for line in told.body.decode().splitlines() if not line.startswith("#"))
    assert float(rows['spraydry_requests_total{method="GET",part="files",status="200"}']) == 3
    assert float(rows['spraydry_requests_total{method="GET",part="files",status="404"}']) == 1
    assert float(rows['spraydry_requests_total{method="GET",part="guard",status="401"}']) == 1
    assert float(rows['spraydry_sent_bytes_total{part="files"}']) >= 21
    assert float(rows['spraydry_request_seconds_count{part="files"}']) == 5
    assert float(rows["spraydry_connections"]) >= 1
    assert any(name.startswith("spraydry_store_calls_total{") for name in rows)
    assert 'spraydry_cache_frames_total{repository=""}' in rows
    assert "process_open_fds" in rows


def _until(seen, seconds: float = 300.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)
