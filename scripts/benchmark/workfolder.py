"""The folder that a run works in: one run at a time, and nothing of it left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator

from benchmark import system
from benchmark.system import say

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))


def default() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "spraydry-bench")


def program() -> str:
    """spraydry of this checkout, else the one on PATH."""
    own = os.path.join(CHECKOUT, ".venv", "bin", "spraydry")
    return own if os.path.exists(own) else "spraydry"


@contextlib.contextmanager
def work_folder(work: str, keep: bool) -> Iterator[str]:
    """A folder for stores and mounts that is gone at the end, with all that is mounted there, however it ends."""
    os.makedirs(work, exist_ok=True)
    folder = os.path.join(work, "run")

    def clean(leave: bool) -> None:
        for point in system.mounts_below(folder):
            system.unmount(point)
        if system.mounts_below(folder):
            say("still mounted, so left there:", folder)
        elif not leave:
            shutil.rmtree(folder, ignore_errors=True)

    def interrupted(number: int, frame: object) -> None:
        for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_IGN)  # nothing interrupts the cleaning up
        raise KeyboardInterrupt

    with open(os.path.join(work, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"bench: another run uses {work}; name another folder with --work")
        clean(leave=False)  # what a killed run left
        os.makedirs(folder)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, interrupted)
        try:
            yield folder
        finally:
            clean(keep)
