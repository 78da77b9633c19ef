"""Servers of what a repository holds, and what asks them: curl for one large answer, processes for many small ones."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from benchmark import system
from benchmark.backends import Backend
from benchmark.peer import PeerError
from benchmark.phase import Setting

START_WITHIN_S = 300
LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_load.py")


class Serving(NamedTuple):
    """A server that answers at `url`, which ends without a slash."""

    url: str
    process: subprocess.Popen[str]

    def peak_mb(self) -> float:
        """The most memory that its processes had so far, summed."""
        return system.memory(system.descendants(self.process.pid), "VmHWM")


@contextmanager
def serving(repository: Backend, log: IO[bytes], *options: str) -> Iterator[Serving]:
    """`spraydry serve` of a repository, on any free port, until the end of the block."""
    command = repository.words("serve", "--listen", "127.0.0.1:0", *options)
    with answering(command, log, repository.environment()) as server:
        yield server


@contextmanager
def answering(command: list[str], log: IO[bytes], environment: dict[str, str]) -> Iterator[Serving]:
    """A server that prints where it listens. Raises PeerError where it does not."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )
    late = threading.Timer(START_WITHIN_S, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    try:
        assert process.stdout is not None
        found = re.search(r"http://[0-9.]+:[0-9]+", process.stdout.readline())
        late.cancel()
        if found is None:
            raise PeerError(f"{' '.join(command[:4])} does not listen")
        yield Serving(found[0], process)
    finally:
        late.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        system.end(process, 20)
        if process.stdout is not None:
            process.stdout.close()


def download(url: str, size: int, limit: float, *options: str) -> float:
    """Seconds that curl takes for an answer of so many bytes."""
    told = "%{time_total} %{size_download} %{http_code}"
    command = [shutil.which("curl") or "curl", "-sS", "-o", "/dev/null", "-w", told, *options, url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if ran.returncode:
        raise PeerError(f"curl: {ran.stderr.strip()}")
    seconds, got, status = ran.stdout.split()
    if int(got) != size or status != "200":
        raise PeerError(f"{url}: status {status}, {got} bytes instead of {size}")
    return float(seconds)


def load(setting: Setting, url: str, paths: list[str], seconds: float, processes: int, connections: int) -> float:
    """Requests per second that a server answers, when so many processes ask on so many connections each, one request
    at a time on each, for `paths` in any order."""
    host, _, port = url.removeprefix("http://").partition(":")
    order = os.path.join(setting.folder, "paths.json")
    with open(order, "w") as file:
        json.dump(paths, file)
    command = [sys.executable, LOAD, host, port, order, str(seconds), str(connections)]
    running = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=setting.log, text=True)
        for seed in range(processes)
    ]
    told = [process.communicate(timeout=seconds + setting.limit)[0] for process in running]
    if any(process.returncode for process in running):
        raise PeerError(f"{url}: {system.last_words(setting.log, 0)}")
    return sum(map(float, told))


def settle(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait a while, unless a process ends before."""
    select.select([], [], [], seconds)
    if process.poll() is not None:
        raise PeerError("the server ended")
