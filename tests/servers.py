"""Real servers for tests, on loopback: what scripts/serving/NAME runs, one of each for a whole test run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVING = Path(__file__).parent.parent / "scripts" / "serving"
_START_WITHIN_S = 120


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`; `environment` is what a client needs, `folder` is where the server keeps all."""

    url: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[str]


@contextmanager
def server_or_skip(name: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """As `server`; the test is skipped, loudly, where its programs cannot be had."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server(name, folder, *arguments))
        except AssertionError as error:
            if re.search(f"{name}: there is no |cannot be fetched", str(error)):
                pytest.skip(f"NOT TESTED: {str(error).splitlines()[-1]}")
            raise
        yield running


@contextmanager
def server(name: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """A server of its own in `folder`, until the end of the block. Fails, loudly, where it cannot be started."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    errors = folder / "start.err"
    with errors.open("w") as printed:
        process = subprocess.Popen(
            [str(SERVING / name), str(folder), *arguments],
            stdout=subprocess.PIPE,
            stderr=printed,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    late = threading.Timer(_START_WITHIN_S, process.kill)
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
        assert url, f"{name} did not start: {errors.read_text()[-2000:]}"
        yield Server(url, environment, folder, process)
    finally:
        late.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
