"""A real `spraydry serve`, as a process of its own on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread

_PATIENCE_S = 300  # to begin and to end, on machines that are busy
_SPRAYDRY = ["-c", "from spraydry.cli import main; main()"]


@dataclass
class Running:
    """A server's process and where it answers (`url` ends without a slash)."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_PATIENCE_S)


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine at which servers of the block may listen, one after another: nobody else gets it, not
    even between them."""
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do; it never listens itself
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


@contextmanager
def serving(
    folder: Path, *arguments: str, listen: str = "127.0.0.1:0", module: str | None = None, **environment: str
) -> Iterator[Running]:
    """`spraydry serve ARGUMENTS`, from when it answers to the end of the block; its log is in `folder`. With `module`
    that is run in the place of spraydry. Where SPRAYDRY_REPO names what is not there, a new repository is made."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "serve.log"
    program = [sys.executable, *(["-m", module] if module else _SPRAYDRY)]
    environment = {"PYTHONFAULTHANDLER": "1", **os.environ, **environment}
    url = environment.get("SPRAYDRY_REPO", "")
    if url and not os.path.exists(re.sub("^(sqlite|dir|segment):", "", url).partition("?")[0]):
        # Far away it may be there: then this says so, and the server begins all the same.
        subprocess.run([sys.executable, *_SPRAYDRY, "init"], env=environment, capture_output=True, timeout=_PATIENCE_S)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*program, "serve", "--listen", listen, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    said: Queue[str] = Queue()
    reader = Thread(target=_read, args=(process, said), daemon=True)
    reader.start()
    try:
        first = said.get(timeout=_PATIENCE_S)
        found = re.search(r"https?://\S+?(?=/;)", first)
        if not found:
            process.send_signal(signal.SIGTERM)
            raise AssertionError(
                f"it said {first!r}, ended with {process.wait(_PATIENCE_S)}: {log.read_text()[-3000:]}"
            )
        yield Running(process, found[0], log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join(_PATIENCE_S)
    assert not reader.is_alive(), "something that the server began outlives it"


def _read(process: subprocess.Popen[str], said: Queue[str]) -> None:
    """Take what it says until it ends, first a line."""
    assert process.stdout is not None
    with process.stdout as stdout:
        said.put(stdout.readline())
        while stdout.read(1 << 16):
            pass
