"""The only server there is goes away and comes back: whoever was in the middle of something goes on."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from spraydry import Hoard
from spraydry.errors import StoreUnavailable, UsageError
from spraydry.repository.repository import Repository
from spraydry.stores.remote import patience
from spraydry.stores.remote.server import Server
from tests.faultproxy import Fault, proxy
from tests.remote_store import one_line
from tests.repositories import Run, caller, check, filled_source
from tests.web.serving import Running, kept_port, serving

_PATIENCE_S = 300.0


class Site:
    """A server that is killed, and started again at the same address once a client said that it waits."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.waited = threading.Event()
        self.port = stack.enter_context(kept_port())
        self._running: Running = self._start()
        self.url = self._running.url
        self.kills = 0

    def _start(self) -> Running:
        homes = {name: str(self._folder / "homes" / name) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME")}
        started = serving(
            self._folder, listen=f"127.0.0.1:{self.port}", SPRAYDRY_REPO=f"dir:{self._folder}/store", **homes
        )
        return self._stack.enter_context(started)

    def kill(self) -> None:
        self.kills += 1
        self._running.kill()

    def restart(self) -> None:
        """Kill it, and start it again when somebody waits for it."""
        self.waited.clear()
        self.kill()
        self._stack.enter_context(_thread(self._again))

    def _again(self) -> None:
        assert self.waited.wait(_PATIENCE_S)
        self._running = self._start()


@contextmanager
def _thread(target: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=target)
    thread.start()
    yield
    thread.join(_PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv(patience.VARIABLE, f"{_PATIENCE_S:g}")
    with ExitStack() as stack:
        made = Site(tmp_path / "site", stack)

        class Heard(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                made.waited.set()

        heard = Heard()
        monkeypatch.setattr(patience.log, "level", logging.INFO)
        patience.log.addHandler(heard)
        stack.callback(patience.log.removeHandler, heard)
        yield made


@pytest.fixture
def spraydry(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def killed_in_the_middle(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is killed before the third request that brings frames or records."""
    request, seen, lock = Server.request, 0, threading.Lock()

    def counted(self: Server, method: str, path: str, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        with lock:
            if "/frames/" in path or "namespace=frames" in path or "/log/" in path:
                seen += method in ("PUT", "POST")
                if seen == 3 and not site.kills:
                    site.restart()
        return request(self, method, path, *arguments, **options)

    monkeypatch.setattr(Server, "request", counted)


def _lines(error: str) -> list[str]:
    return [line for line in error.splitlines() if "waiting" in line]


def test_a_hoard(site: Site) -> None:
    long = random.Random(1).randbytes(3 << 20)
    with Hoard("photos", site.url) as hoard:
        hoard["a"] = b"one"
        calls: list[Callable[[], Any]] = [
            lambda: hoard.put(io.BytesIO(long), "long", new=True),
            lambda: hoard["long"].read(),
        ]
        for call in calls:
            site.restart()
            said = call()
        assert said == long and sorted(hoard) == ["a", "long"] and site.kills == len(calls)


@pytest.mark.usefixtures("killed_in_the_middle")
def test_an_ingest(site: Site, tmp_path: Path, spraydry: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bar on the terminal, above which the line stands."""
    source = filled_source(tmp_path, 12_000_000)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, _, err = spraydry("--repo", site.url, "ingest", source)
    assert site.kills == 1 and len(_lines(err)) == 1
    assert f"spraydry: waiting for {site.url}" in err
    check(site.url, source)


@pytest.mark.usefixtures("killed_in_the_middle")
def test_a_push(site: Site, tmp_path: Path, spraydry: Run) -> None:
    """Nobody watches: nothing is told."""
    source, here = filled_source(tmp_path, 12_000_000), str(tmp_path / "here.sqlite")
    spraydry("--repo", here, "ingest", source)
    _, _, err = spraydry("--repo", here, "push", site.url)
    assert site.kills == 1 and _lines(err) == []
    check(site.url, source)


def test_what_only_stands_before_it_answers(site: Site, tmp_path: Path) -> None:
    """A proxy says for a while that there is nobody behind it."""
    nobody = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n"
    with proxy("127.0.0.1", site.port) as between, Hoard("photos", f"http://{between.address}") as hoard:
        hoard["a"] = b"one"
        between.fault = Fault(answer=nobody, times=6)
        hoard["b"] = b"two"
        assert between.struck == 6 and sorted(hoard) == ["a", "b"]


def test_nobody_was_there_at_all(spraydry: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience.Patience, "wait", lambda *_: pytest.fail("it waits"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for arguments in (("log",), ("get", "photos/a"), ("put", tmp_path / "none", "photos/a"), ("push", url)):
            _, _, err = spraydry("--repo", url, *arguments, code=StoreUnavailable.exit_code)
            assert "nothing answers" in err and err.count("\n") == 1


def test_it_stays_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is waited once, and not for each call after it."""
    monkeypatch.setenv(patience.VARIABLE, "0.3")
    waits, wait = [], patience.interrupted.wait
    monkeypatch.setattr(patience.interrupted, "wait", lambda seconds: waits.append(seconds) or wait(seconds))
    with Hoard("photos", site.url) as hoard, Repository.open(site.url) as repository:
        site.kill()
        for call in (hoard.ping, repository.refresh):
            waits.clear()
            began = time.monotonic()
            one_line(StoreUnavailable, "nothing answers", call)
            assert waits and sum(waits) <= 0.3 and time.monotonic() - began >= 0.3
            waits.clear()
            one_line(StoreUnavailable, "nothing answers", call)
            assert waits == []


@pytest.mark.parametrize("said", ["", "soon", "-1", "nan", "inf"])
def test_how_long_is_no_number(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.VARIABLE, said)
    with pytest.raises(UsageError, match="number of seconds"):
        patience.wanted_s()


_INTERRUPTED = """
import logging, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
from spraydry.actions.hoard.remote import hoard_at
from spraydry.commands import session
from spraydry.parallel import ordered_map
from spraydry.stores.remote import patience

session.options.repo = sys.argv[1]
with session.open_hoard("photos") as hoard:
    hoard.ping()
    patience.log.addHandler(logging.StreamHandler(sys.stdout))
    print("ready", flush=True)
    sys.stdin.readline()
    list(ordered_map(lambda _: hoard.ping(), [1], 1))
"""


def test_ctrl_c(site: Site) -> None:
    """It ends what waits in threads."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, site.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, patience.VARIABLE: "100000"},
    )
    with waiting:
        try:
            assert waiting.stdout is not None and waiting.stdin is not None
            assert waiting.stdout.readline() == "ready\n"
            site.kill()
            waiting.stdin.write("\n")
            waiting.stdin.flush()
            assert "waiting for http" in waiting.stdout.readline()
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=_PATIENCE_S)
            assert "KeyboardInterrupt" in err
        finally:
            waiting.kill()
