"""A repository on several stores, some of them on servers: their life, the loss of the owner, members that go away."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spraydry.stores.base import open_store
from spraydry.stores.over.retry import Retry
from spraydry.stores.shared import cloud_clients
from tests.faultproxy import Fault, Proxy, proxy
from tests.remote_store import impatient
from tests.repositories import Run, caller, check, filled_source, machine, stores
from tests.servers import Server, server_or_skip

_numbers = itertools.count()
KINDS = ("s3", "sftp")


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_or_skip("ceph", tmp_path_factory.mktemp("ceph")) as running:
        yield running


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server_or_skip("sshd", tmp_path_factory.mktemp("sshd")) as running:
        yield running


@dataclass
class Remote:
    """A server by way of a `network` that has faults on demand; each `place` in it is a URL of its own."""

    kind: str
    base: str
    network: Proxy

    def place(self) -> str:
        return f"{self.base}/t{next(_numbers)}"


@pytest.fixture(params=KINDS)
def remote(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Remote]:
    """Clients try little."""
    kind: str = request.param
    running: Server = request.getfixturevalue("ceph" if kind == "s3" else "sshd")
    machine(tmp_path, monkeypatch)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cloud_clients, "_RETRY", {"max_retries": 0})
    assert Retry.__init__.__defaults__ is not None
    monkeypatch.setattr(Retry.__init__, "__defaults__", (2, *Retry.__init__.__defaults__[1:]))
    with ExitStack() as stack:
        if kind == "s3":
            at = urlsplit(running.environment["AWS_ENDPOINT_URL"])
            network = stack.enter_context(proxy(at.hostname or "", at.port or 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{network.address}")
            base = running.url
        else:
            port = int((running.folder / "port").read_text())
            network = stack.enter_context(proxy("127.0.0.1", port))
            mine = int(network.address.rpartition(":")[2])
            known = running.folder / "known_hosts"
            key = known.read_text().split("\n", 1)[0].split(" ", 1)[1]
            with known.open("a") as file:
                file.write(f"[127.0.0.1]:{mine} {key}\n")
            base = running.url.replace(f":{port}/", f":{mine}/")
        yield Remote(kind, base, network)


@pytest.fixture
def spraydry(remote: Remote, capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def source(remote: Remote, tmp_path: Path) -> Path:
    return filled_source(tmp_path, 12 << 20)


def numbers(out: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(out)
    return found


def test_all_that_is_done_with_stores(
    remote: Remote, spraydry: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, local = remote.place(), remote.place(), f"dir:{tmp_path}/local"
    monkeypatch.setenv("SPRAYDRY_REPO", first)
    spraydry("init", local, "--copies", "2")
    spraydry("ingest", source)
    check(first, source)
    spraydry("store", "add", second, "--name", "second", "--cache", f"dir:{tmp_path}/cache")
    spraydry("store", "set", "second", "--latency-ms", "2", "--up", "20M", "--weight", "3")
    planned, done = (numbers(spraydry("store", "rebalance", *how, "--json")[1]) for how in (["--dry-run"], []))
    assert planned["copied"] == done["copied"] > 3 and planned["removed"] == done["removed"] > 3 and not done["failed"]
    check(first, source)
    (source / "more.bin").write_bytes(random.randbytes(1 << 20))
    spraydry("ingest", source)
    spraydry("store", "drain", "main")
    assert "owns the log" in spraydry("store", "remove", "main", code=2)[2]
    spraydry("store", "promote", "second")
    spraydry("store", "remove", "main")
    open_store(first).destroy()
    monkeypatch.setenv("SPRAYDRY_REPO", second)
    check(second, source)
    assert spraydry("ingest", source, "--as", "kept")[0] == 0
    assert set(stores(spraydry)) == {"second", "local"} and stores(spraydry)["second"]["owner"]
    assert numbers(spraydry("heal", "--json")[1])["copied"] == 0
    shutil.rmtree(tmp_path / "XDG_CACHE_HOME")  # as from another machine
    check(second, source)
    check(local, source)


@pytest.mark.parametrize("copies", ["1", "2"])
def test_the_owner_lost(
    remote: Remote, spraydry: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: str
) -> None:
    first, second, local = remote.place(), remote.place(), f"dir:{tmp_path}/local"
    monkeypatch.setenv("SPRAYDRY_REPO", first)
    spraydry("init", second, local, "--copies", copies)
    spraydry("ingest", source)
    spraydry("ingest", source, "--as", "kept")
    name = next(one for one in stores(spraydry) if one not in ("main", "local"))
    open_store(first).destroy()
    monkeypatch.setenv("SPRAYDRY_REPO", second)
    assert "main" in spraydry("ingest", source, "--as", "more", code=7)[2]
    spraydry("store", "promote", name, "--lost")
    spraydry("store", "remove", "main", "--lost")
    healed = numbers(spraydry("heal", "--json")[1])
    assert (healed["copied"] > 0) == (copies == "2") and not healed["failed"]
    spraydry("ingest", source, "--as", "more")
    check(second, source)
    _, out, _ = spraydry("log", "source")
    assert "kept" in out and "more" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "fault"),
    [
        ("heal", "cut"),
        ("heal", "stall"),
        ("rebalance", "cut"),
        ("drain-remote", "cut"),
        ("drain-local", "cut"),
        ("drain-local", "stall"),
    ],
)
def test_a_member_goes_away_in_the_middle(
    remote: Remote,
    spraydry: Run,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    fault: str,
) -> None:
    """All ends, says so in one line each, loses nothing, and is done when the member is back."""
    place, local = remote.place(), f"dir:{tmp_path}/local"
    monkeypatch.setenv("SPRAYDRY_REPO", local)
    spraydry("init", f"dir:{tmp_path}/other")
    spraydry("store", "set", "other", "--weight", "9")  # whatever salts frames have: there is enough to be moved
    spraydry("ingest", source)
    spraydry("store", "add", place, "--name", "far", "--weight", "90")
    words = {
        "heal": ("heal", "--json"),
        "rebalance": ("store", "rebalance", "--json"),
        "drain-remote": ("store", "drain", "far", "--json"),
        "drain-local": ("store", "drain", "other", "--json"),
    }[verb]
    if verb == "heal":
        spraydry("store", "copies", "3")
    elif verb == "drain-remote":
        spraydry("store", "rebalance")
    elif verb == "drain-local":
        spraydry("store", "set", "far", "--weight", "1000")
    going = Fault(cut_request=0) if fault == "cut" else Fault(stall=True)
    remote.network.after(1_000_000, going)
    with impatient(5) if fault == "stall" else nullcontext():
        _, out, _ = spraydry(*words, code=7)
    assert remote.network.struck
    failed = json.loads(out)["failed"]
    assert any("far" in reason for reason in failed) and all("\n" not in reason for reason in failed)
    remote.network.fault = None
    check(local, source)
    done = numbers(spraydry(*words)[1])
    assert not done["failed"] and (done["copied"] or done["removed"])
    held = stores(spraydry)
    emptied = {"drain-remote": "far", "drain-local": "other"}.get(verb)
    if emptied:
        spraydry("store", "remove", emptied)
        assert emptied in held
    check(local, source)
