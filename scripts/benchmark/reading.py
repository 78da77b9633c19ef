"""Starts what reads a mount, and ends it when it takes too long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, NamedTuple

from benchmark.peer import PeerError

READERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "readers.py")


class Drained(NamedTuple):
    """What a command took, and what it printed."""

    wall: float
    cpu: float
    read: int  # bytes
    lines: int
    cut: bool


def drain(command: list[str], folder: str, cap: float, log: IO[bytes], env: dict[str, str] | None = None) -> Drained:
    """Run in a folder to the end or for `cap` seconds, and count what comes out."""
    cut = threading.Event()
    buffer, read, lines = bytearray(1 << 20), 0, 0
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )

    def stop() -> None:
        cut.set()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # just ended
            pass

    timer = threading.Timer(cap, stop)
    timer.start()
    try:
        assert process.stdout is not None
        while count := os.readv(process.stdout.fileno(), [buffer]):
            read += count
            lines += buffer.count(b"\n", 0, count)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
    finally:
        timer.cancel()
        timer.join()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout:
            process.stdout.close()
    if process.returncode and not cut.is_set():
        raise PeerError(f"{command[0]} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Drained(wall, cpu, read, lines, cut.is_set() and process.returncode != 0)


def reader(limit: float, log: IO[bytes], *arguments: object) -> dict[str, float]:
    """What one of the readers answers."""
    command = [sys.executable, READERS, *map(str, arguments)]
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, timeout=limit)
    except subprocess.TimeoutExpired:
        raise PeerError(f"reading ({arguments[0]}) hangs") from None
    if ran.returncode:
        raise PeerError(f"reading ({arguments[0]}) failed")
    answer: dict[str, float] = json.loads(ran.stdout)
    return answer
