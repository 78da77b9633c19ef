"""What the tests of stores on servers share: a whole repository, writers that are killed, errors of one line."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from spraydry.actions.verify import verify
from spraydry.errors import SprayDryError
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store, open_store
from spraydry.stores.over.retry import Retry
from tests.ingest.trees import differences, fill, taken, version_of

LARGE = random.Random(1).randbytes(5 << 20)

# What a writer does until it is killed: it tells each name when the call that wrote it has returned.
WRITER = """
import itertools, sys
from spraydry.stores.base import Store, open_store
from tests.remote_store import value_of
{broken}
url, turn = sys.argv[1:]
store = open_store(url, create=True)
for number in itertools.count():
    names = [f"{{turn}}-{{number}}-{{each}}" for each in range(3)]
    store.put_many("frames", ((name, value_of(name)) for name in names))
    assert store.create("log", names[0], value_of(names[0]))
    print(*names, flush=True)
"""


@pytest.fixture
def opened(url: str) -> Iterator[Store]:
    """The new store at a test's `url`."""
    store = open_store(url, create=True)
    yield store
    store.close()


def value_of(name: str) -> bytes:
    """The value a writer gives a name: up to 1.5 MiB."""
    rng = random.Random(name)
    return rng.randbytes(rng.randrange(1_500_000))


def check_writers(url: str, told: set[str]) -> None:
    """Raises AssertionError unless all that was told is there, and all that is there is whole."""
    store = open_store(url)
    try:
        for namespace in ("frames", "log"):
            names = {stored.name for stored in store.list(namespace)}
            for name in names:
                assert store.get(namespace, name) == value_of(name), f"{namespace}/{name} is there in part"
            acknowledged = told if namespace == "frames" else {name for name in told if name.endswith("-0")}
            assert names >= acknowledged, f"gone: {sorted(acknowledged - names)}"
    finally:
        store.close()


def kill_writers(url: str, kills: int, broken: str = "") -> int:
    """Kill so many writers, checking after each; how many values were told. `broken`: statements that break one."""
    rng = random.Random(kills)
    told: set[str] = set()
    for turn in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(broken=broken), url, str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            for _ in range(rng.randrange(1, 3)):
                told.update(writer.stdout.readline().split())
            time.sleep(rng.uniform(0, 0.1))
            writer.send_signal(signal.SIGKILL)
            told.update(" ".join(line for line in writer.stdout if line.endswith("\n")).split())
        writer.wait()
        assert told, "the writer came to nothing"
        check_writers(url, told)
    return len(told)


def check_repository(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository works whole there: two ingests, a second machine with no catalog, reading back, verifying."""
    source = folder / "source"
    fill(source, random.Random(1), 60)
    (source / "large").write_bytes(random.Random(2).randbytes(3_000_000))
    with Repository.open(url, create=True) as repository:
        first = version_of(taken(repository, source))
        assert differences(repository, first, source) == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "other-machine"))
    with Repository.open(url) as repository:
        (source / "new").write_bytes(b"new")
        second = version_of(taken(repository, source))
        assert [version.record.name for version in repository.versions("r")] == ["v1", "v2"]
        assert differences(repository, second, source) == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "third-machine"))
    with Repository.open(url, read_only=True) as repository:
        assert differences(repository, repository.versions("r")[1], source) == []
        found = verify(repository)
        assert found.frames > 0 and found.versions == 2
        assert (found.damaged_frames, found.damage, found.other) == ([], [], [])


@contextmanager
def impatient(answer_s: float) -> Iterator[None]:
    """Inside, whoever connects to a server gives up after so many seconds without an answer, not minutes.

    Only what must fail belongs inside: a server that is well may take that long on a machine that is busy.
    """
    from spraydry.stores.postgres import connections
    from spraydry.stores.shared import cloud_clients
    from spraydry.stores.ssh import channels, connection

    times = {"connect_timeout": timedelta(seconds=20), "timeout": timedelta(seconds=answer_s)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloud_clients, "_TIMES", times)
        patch.setattr(cloud_clients, "_RETRY", {**cloud_clients._RETRY, "max_retries": 0})
        patch.setattr(channels, "_ANSWER_WITHIN_S", answer_s)
        patch.setattr(connection, "_TAKEN_WITHIN_S", answer_s)
        patch.setattr(connections, "ANSWER_WITHIN_S", answer_s)
        patch.setattr(Retry.__init__, "__defaults__", (2, 60.0, 0.01, 0.1, 1))
        yield


def one_line(kind: type[SprayDryError], says: str, ask: Callable[[], object]) -> SprayDryError:
    """The error of that very kind, which a call must raise, in one line that says `says`, a regular expression."""
    with pytest.raises(SprayDryError) as caught:
        ask()
    text = str(caught.value)
    assert issubclass(type(caught.value), kind) and type(caught.value).exit_code == kind.exit_code, repr(caught.value)
    assert re.search(says, text) and "\n" not in text and len(text) < 400, text
    return caught.value


# What one of several machines does: it commits, and has the listing written, which takes a while, again and again.
COMMITTER = """
import random, sys, time
from spraydry.stores.base import open_store
from spraydry.stores.shared import listing
quick = listing.listing_of
def slow(store, depths=None):
    found = quick(store, depths)
    time.sleep(random.uniform(0, 0.1))
    return found
listing.listing_of = slow
{broken}
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    store.put("log", f"{{sys.argv[2]}}-{{number}}", b"x")
    store.flush()
"""
# Breaks them: a listing is written as it was when that began, whatever came meanwhile. One machine commits all at once,
# and takes longer for its listing than the others for all they do.
WRITES_ONCE = """
asked = 0
def write_once(store, write, depths=None):
    global asked
    asked += 1
    if sys.argv[2] != "a":
        write(slow(store, depths))
    elif asked == 8:
        found = quick(store, depths)
        time.sleep(4)
        write(found)
listing.write_listing = write_once
"""


def commit_together(url: str, broken: str = "") -> None:
    """Three machines commit to one store at the same time, 24 times together. `broken`: statements that break them."""
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", COMMITTER.format(broken=broken), url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for each in machines:
        assert each.stdout and each.stdout.readline() == "ready\n"
    for each in machines:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in machines:
        each.communicate(timeout=600)
        assert each.returncode == 0
