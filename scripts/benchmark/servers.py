"""Real servers for measuring, on loopback: each is what scripts/serving/NAME runs, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from benchmark import system
from benchmark.workfolder import CHECKOUT

SERVING = os.path.join(CHECKOUT, "scripts", "serving")
START_WITHIN_S = 180  # with fetching it, where it is not installed


class ServerError(Exception):
    """A server cannot be had here."""


class Server(NamedTuple):
    url: str
    environment: dict[str, str]  # what a client needs
    folder: str
    pid: int


@contextmanager
def server(name: str, folder: str, log: IO[bytes], *arguments: str) -> Iterator[Server]:
    """One that runs in `folder` until the end of the block. Raises ServerError with the last that it said."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    since = os.path.getsize(log.name)
    process = subprocess.Popen(
        [os.path.join(SERVING, name), folder, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(START_WITHIN_S, process.kill)
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
        yield Server(url, environment, folder, process.pid)
    finally:
        late.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it ends what it started
        system.end(process, 20)
        if process.stdout is not None:
            process.stdout.close()
