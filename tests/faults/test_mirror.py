"""A mirror on a folder, S3 and SFTP loses one of them in the middle of one ingest, and its writer too: nothing is lost.

The ingest stops itself in the middle, so that what happens there happens there on every machine.
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
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from spraydry.actions.verify import verify
from tests.faults.machines import Machine
from tests.ingest.trees import differences
from tests.servers import Server, server_or_skip

_fresh = itertools.count()
_WAITS_S = 600
# Stops itself, for others to go on, when it has stored so many batches.
_INGEST = """
import itertools, os, signal
from spraydry.repository import storer, writer
writer._BATCH_BYTES = writer._RUN_BYTES = 200_000
store, batches = storer.Storer._store, itertools.count(1)
def store_and_stop(self, batch, publish):
    stored = store(self, batch, publish)
    if next(batches) in (3, 5):
        os.kill(os.getpid(), signal.SIGSTOP)
    return stored
storer.Storer._store = store_and_stop
{broken}
from spraydry.cli import main
main()
"""
# A mirror that stores each frame once.
_CARELESS = """
from spraydry.stores.over.placement import Copies
Copies.of = lambda self, namespace, value: 1
"""


class Mirror:
    """A repository on three stores, two copies of each frame, and a server of one of them that can be killed."""

    def __init__(self, folder: Path, ceph: Server, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.sshd = stack.enter_context(server_or_skip("sshd", folder / "sshd"))
        self.ceph = ceph
        self.environment = {**ceph.environment, **self.sshd.environment}
        self.urls = {
            "main": f"dir:{folder}/main",
            "s3": f"{ceph.url}/mirror{next(_fresh)}",
            "sftp": f"{self.sshd.url}/store",
        }
        self.machine = self.new_machine()
        self.machine.run("init", self.urls["s3"], self.urls["sftp"], "--copies", "2")

    def new_machine(self, url: str = "", **settings: str) -> Machine:
        """One that never saw the repository."""
        home = self.folder / f"home-{next(_fresh)}"
        return Machine(home, url or self.urls["main"], {**self.environment, **settings})

    def sftp(self) -> dict[str, Any]:
        """What is told of the store on SFTP."""
        (found,) = (one for one in self.machine.told("store", "list") if one["url"] == self.urls["sftp"])
        return cast("dict[str, Any]", found)

    def lose_sftp(self) -> None:
        """Its server and all of its sessions are gone when this returns."""
        self.sshd.process.terminate()
        self.sshd.process.wait(_WAITS_S)

    def bring_back_sftp(self) -> None:
        self.sshd = self.stack.enter_context(server_or_skip("sshd", self.folder / "sshd"))
        assert f"{self.sshd.url}/store" == self.urls["sftp"], "it has the same keys and port"


class Ingest:
    """An ingest that stops twice."""

    def __init__(self, machine: Machine, source: Path, broken: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _INGEST.format(broken=broken), "ingest", str(source), "--root", "r"],
            env=machine.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_it_stops(self) -> None:
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), self.process.communicate()

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> str:
        """It succeeds, however often it stops; what it says of its stores."""
        status = 0x7F  # stopped
        while os.WIFSTOPPED(status):
            self.go_on()
            _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        told = self.process.communicate()[1]
        assert os.waitstatus_to_exitcode(status) == 0, told
        return told

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def mirror(tmp_path: Path, ceph: Server) -> Iterator[Mirror]:
    with ExitStack() as stack:
        yield Mirror(tmp_path, ceph, stack)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some more than six batches, of four times 200 KB."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(24):
        (folder / f"{number}").write_bytes(random.Random(number).randbytes(240_000))
    return folder


def lose_in_the_middle(mirror: Mirror, source: Path, killed: bool, broken: str = "") -> str:
    """Ingest so that the SFTP server is there for a part of it only; what that says of it."""
    ingest = Ingest(mirror.machine, source, broken)
    ingest.until_it_stops()
    mirror.lose_sftp()
    if killed:
        ingest.go_on()
        ingest.until_it_stops()
        ingest.go_on()
        time.sleep(random.Random(1).uniform(0, 0.05))  # any moment is good
        ingest.kill()
        (source / "more").write_bytes(random.Random(99).randbytes(3_000_000))
        ingest = Ingest(mirror.machine, source, broken)
    return ingest.end()


def check_reading(machine: Machine, source: Path, silent: int) -> None:
    """What was ingested can be read, and all is whole, with so many stores away."""
    with machine.opened(read_only=True) as repository:
        assert len(repository.store.silent) == silent
        assert differences(repository, repository.log.find("r"), source) == []
        found = verify(repository)
        assert (found.damaged_frames, found.damage, found.other) == ([], [], [])


@pytest.mark.parametrize("killed", [False, True])
def test_a_member_is_lost_in_the_middle_of_an_ingest(mirror: Mirror, source: Path, killed: bool) -> None:
    told = lose_in_the_middle(mirror, source, killed)
    assert told.startswith("spraydry: store does not answer, and missed ") and told.count("\n") == 1, told
    check_reading(mirror.machine, source, 1)
    assert mirror.sftp()["waiting"] > 0
    mirror.bring_back_sftp()
    (source / "later").write_bytes(b"later")
    mirror.machine.run("ingest", source, "--root", "r")
    assert mirror.sftp()["waiting"] == 0
    if killed:
        assert mirror.machine.told("heal")["failed"] == {}
    healed = mirror.machine.told("heal")
    assert (healed["copied"], healed["replaced"], healed["failed"]) == (0, 0, {})
    check_reading(mirror.new_machine(), source, 0)
    # Any one of them away: a machine that never saw the repository reads it from another.
    (mirror.folder / "main").rename(mirror.folder / "away")
    check_reading(mirror.new_machine(mirror.urls["s3"]), source, 1)
    (mirror.folder / "away").rename(mirror.folder / "main")
    check_reading(mirror.new_machine(AWS_ENDPOINT_URL="http://127.0.0.1:9"), source, 1)
    mirror.lose_sftp()
    check_reading(mirror.new_machine(), source, 1)


def test_a_mirror_that_loses_copies_is_caught(mirror: Mirror, source: Path) -> None:
    """The control: `heal` finds copies missing, as it does not above."""
    lose_in_the_middle(mirror, source, False, _CARELESS)
    mirror.bring_back_sftp()
    assert mirror.machine.told("heal")["copied"] > 0
