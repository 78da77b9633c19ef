"""kill -9 of an ingest into each backend, again and again: what is committed is whole, the next ingest goes on.

The controls are a writer that commits before its frames are stored and one that leaves halves: they must be caught.
`SPRAYDRY_KILLS=500` kills longer.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from spraydry.errors import SprayDryError
from tests.faults.conftest import NewMachine
from tests.faults.machines import Machine, check_sound
from tests.ingest.trees import differences

KILLS = int(os.environ.get("SPRAYDRY_KILLS", 5))
# Forks a writer for each line it reads, so that none has to start a Python.
_WRITERS = """
import os, sys
import spraydry.actions.ingest, spraydry.commands.ingest, spraydry.repository.members
from spraydry.stores import dir, postgresql, s3, segment, sftp, sqlite
from spraydry.repository import writer
from spraydry.cli import run
writer._BATCH_BYTES = writer._RUN_BYTES = 200_000  # several batches, also where a round trip is long
{broken}
for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(run(["ingest", line.strip(), "--root", "r"]))
    print(child, flush=True)
    sys.stdin.readline()  # until then nobody else gets its number
    print(os.waitpid(child, 0)[1], flush=True)
"""
# Keeps frames back, and dies when it has committed.
_COMMITS_FIRST = """
from spraydry.stores.dir import DirStore
put, create = DirStore.put_many, DirStore.create
DirStore.put_many = lambda self, namespace, values: put(self, namespace, [] if namespace == "frames" else values)
DirStore.create = lambda self, *value: create(self, *value) and (value[0] != "log" or os.kill(os.getpid(), 9))
"""
# Puts the first half of each frame there, then, when a slow disk would have it, all of it.
_WRITES_BY_HALVES = """
import time
from spraydry.stores.dir import DirStore
put = DirStore.put_many
def put_many(self, namespace, values):
    values = list(values)
    if namespace == "frames":
        put(self, namespace, [(name, value[: len(value) // 2]) for name, value in values])
        time.sleep(0.1)
    put(self, namespace, values)
DirStore.put_many = put_many
"""


class Writers:
    """Starts writers, one after another, as processes of a machine."""

    def __init__(self, machine: Machine, broken: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WRITERS.format(broken=broken)],
            env=machine.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdin and self.process.stdout
        self._asked: IO[str] = self.process.stdin
        self._told: IO[str] = self.process.stdout

    def start(self, source: Path) -> int:
        """The process that ingests it now."""
        self._asked.write(f"{source}\n")
        return int(self._next())

    def ended(self) -> int:
        """What the kernel says of how the one that runs ended."""
        self._asked.write("\n")
        return int(self._next())

    def _next(self) -> str:
        while True:
            line = self._told.readline()
            assert line, "the writers are gone"
            if line.strip().lstrip("-").isdecimal():  # beside what the verb prints
                return line

    def close(self) -> None:
        self._asked.close()
        self.process.wait(600)
        self._told.close()


@contextmanager
def writers(machine: Machine, broken: str = "") -> Iterator[Writers]:
    running = Writers(machine, broken)
    try:
        yield running
    finally:
        running.close()


def change(source: Path, rng: random.Random) -> None:
    """Something small, something large, something gone."""
    source.mkdir(exist_ok=True)
    for path in sorted(source.iterdir())[:2]:
        path.unlink()
    for _ in range(6):
        (source / f"{rng.getrandbits(40):010x}").write_bytes(rng.randbytes(rng.choice((500, 40_000, 400_000))))


def check(machine: Machine, source: Path, before: int) -> int:
    """How many versions there are: those before, and perhaps the one that was to be, which then is whole."""
    with machine.opened(read_only=True) as repository:
        versions = repository.log.versions("r")
        assert before <= len(versions) <= before + 1, "a version is gone"
        if len(versions) > before:
            assert differences(repository, versions[-1], source) == []
        check_sound(repository)
        return len(versions)


def killed(new_machine: NewMachine, source: Path, kills: int, broken: str = "") -> None:
    """Kill so many writers before they end, looking at what is there after each from their machine and from a fresh
    one."""
    here, rng = new_machine(), random.Random(kills)
    with writers(here, broken) as machine:
        took_s, versions, struck = 0.0, 0, 0
        for turn in itertools.count():
            change(source, rng)
            began_s = time.monotonic()
            pid = machine.start(source)
            if turn < 2:  # the second tells how long one takes on this machine, now
                assert machine.ended() == 0
                took_s = time.monotonic() - began_s
            else:
                time.sleep(rng.uniform(0.2, 1) * took_s)
                os.kill(pid, signal.SIGKILL)
                in_time = machine.ended() == signal.SIGKILL
                struck += in_time
                took_s *= 1.02 if in_time else 0.8
            versions = check(here, source, versions)
            assert check(new_machine(), source, versions) == versions
            if struck == kills:
                break
        machine.start(source)
        assert machine.ended() == 0
    assert check(here, source, versions) >= versions
    with new_machine().opened(read_only=True) as repository:
        assert differences(repository, repository.log.find("r"), source) == []


def test_writers_are_killed(new_machine: NewMachine, tmp_path: Path) -> None:
    killed(new_machine, tmp_path / "source", KILLS)


@pytest.mark.parametrize("backend", ["dir"], indirect=True)
def test_a_writer_that_commits_first_is_caught(new_machine: NewMachine, tmp_path: Path) -> None:
    change(tmp_path / "source", random.Random(1))
    here = new_machine()
    with writers(here, _COMMITS_FIRST) as machine:
        machine.start(tmp_path / "source")
        assert machine.ended() == signal.SIGKILL
    for looking in (here, new_machine()):
        with pytest.raises((AssertionError, SprayDryError)):
            check(looking, tmp_path / "source", 0)


@pytest.mark.parametrize("backend", ["dir"], indirect=True)
def test_a_writer_that_leaves_halves_is_caught(new_machine: NewMachine, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not those its name was made from"):
        killed(new_machine, tmp_path / "source", 40, _WRITES_BY_HALVES)
