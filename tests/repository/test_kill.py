"""kill -9 of a writer at seeded random points: what was acknowledged is whole, what was not is not there.

The control is a writer that commits the version before its chunks are stored: it must be caught.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from spraydry.errors import SprayDryError
from spraydry.format.entry import FILE, Runs, Subtree
from spraydry.format.version import VersionRecord
from spraydry.repository.repository import Repository

# Forks a writer for each line it reads, so that none has to start a Python; its progress goes into a file.
WRITERS = """
import os, random, sys
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.version import VersionRecord
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from tests.format.samples import entry

def commit(repository, subtree):
    with repository.batch():
        slot, _ = repository.log.append(
            lambda previous, now_ns: VersionRecord(
                format=1, previous=previous, made_ns=now_ns, made_by="test", root="r",
                name=repository.log.next_name("r"), entry=entry(b"", DIRECTORY, 0, subtree), links=None,
                spec="fixed:size=64K", users=(), groups=(), incomplete=False, new_bytes=0, stored_bytes=0,
            )
        )
        repository.remember_head()
    return slot

def write(path, progress, seed, broken):
    rng = random.Random(seed)
    with Repository.open(path, create=True) as repository:
        os.write(progress, b"0 ")
        while True:
            with Writer(repository, target_bytes=30_000, threads=2) as writer:
                def emit(name, plain):
                    writer.add(name, plain, "tree")
                builder = TreeBuilder(emit)
                for number in range(40):
                    plain = rng.randbytes(rng.randrange(1, 4000))
                    writer.add(digest(plain), plain, "other")
                    builder.add(entry(b"%03d" % number, FILE, len(plain), digest(plain)))
                subtree = builder.finish()
                if broken:
                    slot = commit(repository, subtree)
                    writer.finish()
                else:
                    writer.finish()
                    slot = commit(repository, subtree)
            repository.store.flush()
            os.write(progress, b"%d " % slot)

for line in sys.stdin:
    path, progress, seed, kind = line.split()
    descriptor = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = os.fork()
    if not child:
        try:
            write(path, descriptor, int(seed), kind == "broken")
        finally:
            os._exit(1)
    os.close(descriptor)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def verify(path: str) -> int:
    """Read every byte of every version; the newest slot. Raises SprayDryError for anything that is not whole."""
    with Repository.open(path) as repository:
        chunks = set()
        for slot, record in enumerate(repository.log.records, 1):
            assert isinstance(record, VersionRecord) and isinstance(record.entry.content, Subtree)
            assert record.name == f"v{slot}"
            tree = repository.tree(record.entry.content)
            entries = [entry for entry, _ in tree.entries()]
            assert len(entries) == 40
            for entry in entries:
                assert entry.kind == FILE and not isinstance(entry.content, Runs)
                assert isinstance(entry.content, bytes)
                assert len(repository.read_chunk(entry.content)) == entry.size
                chunks.add(entry.content)
        assert repository.catalog.chunks.known(list(chunks)) == chunks
        return repository.log.head[0]


def killed(path: str, kind: str, kills: int, seed: int) -> tuple[int, int]:
    """Kill a writer so many times, verifying after each; the slots that are there, and how many were acknowledged."""
    rng = random.Random(seed)
    found = acknowledged = 0
    version_s = 0.0
    progress = Path(path + ".progress")
    writers = subprocess.Popen(
        [sys.executable, "-c", WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert writers.stdin and writers.stdout

    def wait_for(versions: int) -> None:
        while len(progress.read_bytes().split()) <= versions:
            assert not select.select([writers.stdout], [], [], 0.001)[0], "the writer ended by itself"

    try:
        for turn in range(kills):
            progress.write_bytes(b"")
            writers.stdin.write(f"{path} {progress} {seed * 1000 + turn} {kind}\n")
            pid = int(writers.stdout.readline())
            whole = rng.randrange(3)  # versions it may finish; in the next one it is killed
            wait_for(whole)
            if turn == 0:  # how long a version takes on this machine, now
                began = time.monotonic()
                wait_for(4)
                version_s = (time.monotonic() - began) / 4
            time.sleep(rng.uniform(0, 1.2) * version_s)
            os.kill(pid, signal.SIGKILL)
            assert writers.stdout.readline() == "gone\n"
            told = [int(slot) for slot in progress.read_bytes().split()]
            found = verify(path)
            acknowledged += len(told) - 1
            assert found >= told[-1], "an acknowledged version is gone"
    finally:
        writers.stdin.close()
        writers.wait()
        writers.stdout.close()
    return found, acknowledged


def test_kill_at_random_points(repository_path: str) -> None:
    found, acknowledged = killed(repository_path, "right", 100, seed=1)
    assert acknowledged > 20, "the control: versions were committed at all"
    assert found >= acknowledged


def test_the_control_is_caught(repository_path: str) -> None:
    """Committing before storing must fail this test within fewer kills than the test above makes."""
    try:
        killed(repository_path, "broken", 100, seed=2)
    except SprayDryError:
        return
    raise AssertionError("a writer that commits too early was not noticed")
