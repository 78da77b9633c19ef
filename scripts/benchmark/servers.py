"""Real servers, for measuring and for tests, on loopback: each is what scripts/serving/NAME runs, in its own folder."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from benchmark import system
from benchmark.workfolder import CHECKOUT

SERVING = os.path.join(CHECKOUT, "scripts", "serving")
START_WITHIN_S = 600  # with fetching it, where it is not installed, on a machine that is busy


class ServerError(Exception):
    """A server cannot be had here."""


class Server(NamedTuple):
    """A server that answers at `url`; `environment` is what a client needs, `folder` is where the server keeps all."""

    url: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[str]


@contextmanager
def server(name: str, folder: str | Path, log: IO[bytes], *arguments: str) -> Iterator[Server]:
    """A server of its own in `folder`, until the end of the block. Raises ServerError with the last that it said."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    since = os.path.getsize(log.name)
    process = subprocess.Popen(
        [os.path.join(SERVING, name), str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(START_WITHIN_S, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    try:
        assert process.stdout is not None
        environment, url = {}, ""
        for line in process.stdout:
            if line.startswith("READY "):
                url = line.split(" ", 1)[1].strip()
                break
            key, equals, value = line.rstrip("\n").partition("=")
            if equals:
                environment[key] = value
        late.cancel()
        if not url:
            raise ServerError(system.last_words(log, since) or f"{name} did not start")
        yield Server(url, environment, Path(folder), process)
    finally:
        late.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends what it started
        system.end(process, 20)
        if process.stdout is not None:
            process.stdout.close()
