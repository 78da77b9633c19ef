"""Processes that put: killed at each call of a store, and several on the same keys."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.verify import verify
from spraydry.repository.repository import Repository

# Forks a process for each line it reads, so that none has to start a Python.
_CHILDREN = """
import io, os, random, signal, sys
from spraydry import Hoard
import spraydry.actions.hoard, spraydry.repository.members
from spraydry.actions.hoard import checkpoint
from spraydry.errors import Conflict
from spraydry.repository.repository import Repository
from spraydry.stores.dir import DirStore
from spraydry.stores.sqlite import SqliteStore

def content(key, new, large):
    return random.Random(key + new).randbytes(700_000 if large else 3000)

def act(url, what, point, when):
    with Repository.open(url) as repository:
        hoard = Hoard("h", repository=repository)
        count = 0
        def struck(method):
            def call(*arguments):
                nonlocal count
                count += 1
                if count == point and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                made = method(*arguments)
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return made
            return call
        for store in (DirStore, SqliteStore):
            for name in ("put_many", "create", "delete"):
                setattr(store, name, struck(getattr(store, name)))
        if what in ("small", "large"):
            hoard["a"] = content("a", "new", what == "large")
        elif what == "transaction":
            with hoard.transaction() as change:
                change.put(io.BytesIO(content("a", "new", False)), "a")
                change.put(io.BytesIO(content("b", "new", True)), "b")
                change.delete("c")
        elif what == "checkpoint":
            checkpoint(repository, "h")

def count(url, times):
    with Repository.open(url) as repository:
        hoard = Hoard("h", repository=repository)
        for _ in range(times):
            while True:
                try:
                    with hoard.transaction() as change:
                        number = int(change.get("n").read()) + 1
                        change.put(io.BytesIO(b"%d" % number), "n")
                        change.put(io.BytesIO(b"%d" % number), "m")
                    break
                except Conflict:
                    continue

for line in sys.stdin:
    running = []
    for one in line.strip().split(";"):
        child = os.fork()
        if not child:
            url, what, *rest = one.split()
            try:
                count(url, int(rest[0])) if what == "count" else act(url, what, int(rest[0]), rest[1])
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        running.append(child)
    print(*(os.waitpid(child, 0)[1] for child in running), flush=True)
"""


@pytest.fixture(scope="module")
def children() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILDREN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


def run(children: subprocess.Popen[str], *lines: str) -> list[int]:
    """How the processes ended that did this at the same time."""
    assert children.stdin and children.stdout
    children.stdin.write(";".join(lines) + "\n")
    return [int(one) for one in children.stdout.readline().split()]


def content(key: str, new: str, large: bool) -> bytes:
    return random.Random(key + new).randbytes(700_000 if large else 3000)


OLD = {key: content(key, "old", False) for key in "abc"}
NEW = {
    "small": OLD | {"a": content("a", "new", False)},
    "large": OLD | {"a": content("a", "new", True)},
    "transaction": {"a": content("a", "new", False), "b": content("b", "new", True)},
    "checkpoint": OLD,
}


@pytest.mark.parametrize("scheme", ["sqlite", "dir"])
@pytest.mark.parametrize("what", NEW)
def test_killed_at_each_call(children: subprocess.Popen[str], tmp_path: Path, scheme: str, what: str) -> None:
    """Each key has the old or the new content, and those of a transaction all the one or all the other."""
    seen = set()
    for when in ("before", "after"):
        point, ended = 0, signal.SIGKILL
        while ended == signal.SIGKILL:
            point += 1
            url = f"{scheme}:{tmp_path}/{when}-{point}"
            with Repository.open(url, create=True) as repository:
                hoard = Hoard("h", repository=repository)
                for key, plain in OLD.items():
                    hoard[key] = plain
            (ended,) = run(children, f"{url} {what} {point} {when}")
            with Repository.open(url) as repository:
                hoard = Hoard("h", repository=repository)
                found = {key: hoard[key].read() for key in hoard}
                assert found in (OLD, NEW[what])
                assert ended == signal.SIGKILL or found == NEW[what]
                assert verify(repository).sound
                hoard["a"] = b"goes on"
                assert hoard["a"].read() == b"goes on"
            seen.add((found == OLD, found == NEW[what]))
        assert ended == 0 and point > 2
    assert what == "checkpoint" or seen == {(True, False), (False, True)}


@pytest.mark.parametrize("scheme", ["sqlite", "dir"])
def test_two_processes_count_with_one_key(children: subprocess.Popen[str], tmp_path: Path, scheme: str) -> None:
    """No transaction is lost, and none is half there, whichever of the two is faster."""
    url = f"{scheme}:{tmp_path}/r"
    with Repository.open(url, create=True) as repository:
        hoard = Hoard("h", repository=repository)
        hoard["n"] = hoard["m"] = b"0"
        assert run(children, f"{url} count 15", f"{url} count 15") == [0, 0]
        assert hoard["n"].read() == hoard["m"].read() == b"30"
        values = [event.entry for event in hoard.history("n")]
        assert len(values) == 31
