"""Measures spraydry on trees of any number of files, and on a repository that grows. Both come as tar streams."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import IO, NamedTuple

from benchmark import streams, system
from benchmark.measure import CUT, Outcome
from benchmark.peer import PeerError
from benchmark.peers import Spraydry
from benchmark.reading import drain, reader
from benchmark.system import Ran, say

STREAMS = os.path.abspath(streams.__file__)
LOOK_UPS = 5000
TREE_BYTES = 1000  # at most, per file: its content, what names it, and an image of the tree
GROWTH_SHARE = 0.75  # at most, of what is inserted


class Tree(NamedTuple):
    """So many files, and the kind of stream that they come in."""

    kind: str
    files: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.files:,}"


class Options(NamedTuple):
    repeat: int  # mounts, after the first
    cap: float  # seconds of one read pass
    ingest_cap: float
    cold: bool  # caches may be dropped


class Streamed(NamedTuple):
    """An ingest with what made its stream."""

    ran: Ran
    entries: int  # files and folders
    maker_cpu: float


def ingest_stream(peer: Spraydry, stream: tuple[str, int, int], version: str, limit: float, log: IO[bytes]) -> Streamed:
    """The two share the machine, as a sender and a receiver of a backup on one machine do."""
    os.sync()  # what was written before is not this one's
    since = os.path.getsize(log.name)
    command = [sys.executable, STREAMS, *map(str, stream)]
    maker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert maker.stdout is not None and maker.stderr is not None
    try:
        words = peer.words("ingest", "-", "--root", "bench", "--as", version)
        ran = system.run(words, log, env=peer.environment(), limit=limit, stdin=maker.stdout)
        maker.stdout.close()
        told = maker.stderr.read()
        _, status, usage = os.wait4(maker.pid, 0)
        maker.returncode = os.waitstatus_to_exitcode(status)
    finally:
        if maker.returncode is None:
            maker.kill()
            maker.wait()
        maker.stdout.close()
        maker.stderr.close()
    if ran.cut:
        raise PeerError(f"ingest took more than {limit:.0f} s")
    if ran.code or maker.returncode:
        said = system.last_words(log, since) or told.decode(errors="replace")
        raise PeerError(f"ingest ended with {ran.code}, what makes the stream with {maker.returncode}: {said}")
    return Streamed(ran, int(told), usage.ru_utime + usage.ru_stime)


# --- Many files


def measure_tree(
    tree: Tree, ingester: Spraydry, engines: dict[str, Spraydry], options: Options, folder: str, log: IO[bytes]
) -> Outcome:
    """Ingest into a new repository, then each engine: mounts, one `find`, look-ups."""
    outcome = Outcome()
    try:
        ingester.reset()
        entries = _ingest_tree(tree, ingester, outcome, options, log)
        sample = os.path.join(folder, "sample")
        numbers = random.Random(5).sample(range(tree.files), min(LOOK_UPS, tree.files))
        with open(sample, "w") as file:
            file.write("\0".join(streams.PATHS[tree.kind](number) for number in numbers))
    except (PeerError, OSError) as error:
        outcome.errors.append(f"ingest: {error}")
        return outcome
    for engine, peer in engines.items():
        try:
            _read_tree(engine, peer, outcome, entries, sample, options, log)
        except (PeerError, OSError) as error:
            outcome.errors.append(f"engine {engine}: {error}")
        finally:
            peer.unmount()
        say(f"{tree.name}, engine {engine}: {outcome.errors[-1] if outcome.errors else 'done'}")
    return outcome


def _ingest_tree(tree: Tree, peer: Spraydry, outcome: Outcome, options: Options, log: IO[bytes]) -> int:
    outcome.add("ingest.fixed", system.calibrate())
    done = ingest_stream(peer, (tree.kind, 0, tree.files), "v1", options.ingest_cap, log)
    stored = system.size(peer.store)
    for key, number in {
        "ingest.s": done.ran.wall,
        "ingest.us": done.ran.wall / tree.files * 1e6,
        "ingest.cpu": done.ran.cpu / tree.files * 1e6,
        "ingest.maker": done.maker_cpu / tree.files * 1e6,
        "ingest.peak": done.ran.peak_mb,
        "stored.mb": stored.allocated / 1e6,
        "stored.per": stored.allocated / tree.files,
    }.items():
        outcome.add(key, number)
    say(f"{tree.name}, ingest: {done.ran.wall:.1f} s")
    return done.entries + 1  # the root


def _read_tree(
    engine: str, peer: Spraydry, outcome: Outcome, entries: int, sample: str, options: Options, log: IO[bytes]
) -> None:
    for number in range(options.repeat + 1):
        _mount(engine, peer, outcome, options)
        if number == 0:
            if options.cold:
                system.drop_caches()
            found = drain(["find", ".", "-ls"], peer.root("v1"), options.cap, log)
            if not found.cut and found.lines != entries:
                raise PeerError(f"find saw {found.lines} entries of {entries}")
            outcome.add(f"{engine}.find.rate", found.lines / found.wall, CUT if found.cut else None)
        if number == 1:
            if options.cold:
                system.drop_caches()
            answer = reader(options.cap * 2 + 60, log, "stat", peer.root("v1"), sample, options.cap)
            outcome.add(f"{engine}.stat.p50", answer["p50_ms"])
            outcome.add(f"{engine}.stat.p99", answer["p99_ms"])
        outcome.add(f"{engine}.mount.peak", peer.daemon_peak())
        peer.unmount()


def _mount(engine: str, peer: Spraydry, outcome: Outcome, options: Options) -> None:
    if options.cold:
        system.drop_caches()
    milliseconds = peer.mount("v1") * 1e3
    # The first one may make, and keep, what the later ones find.
    first = f"{engine}.mount.first.ms"
    outcome.add(f"{engine}.mount.ms" if first in outcome.samples else first, milliseconds)


# --- A repository that grows


class Piece(NamedTuple):
    """One ingest into the repository, MB and seconds."""

    inserted: float  # so far, with this one
    size: float
    wall: float
    cpu: float
    peak: float
    stored: float  # so far
    fixed: float  # ms, a fixed piece of work just before


def measure_growth(
    total: float, piece: float, peer: Spraydry, options: Options, pieces: list[Piece], log: IO[bytes]
) -> str | None:
    """Ingest pieces of so many MB, all different, until there are `total`, into `pieces`; returns what went wrong."""
    blocks = max(1, round(piece * 1e6 / streams.BLOCK))
    size = blocks * streams.BLOCK / 1e6
    try:
        peer.reset()
        while not pieces or pieces[-1].inserted + size / 2 < total:
            number, fixed = len(pieces), system.calibrate()
            stream = ("blocks", number * blocks, blocks)
            ran = ingest_stream(peer, stream, f"piece-{number}", options.ingest_cap, log).ran
            stored = system.size(peer.store).allocated / 1e6
            pieces.append(Piece((number + 1) * size, size, ran.wall, ran.cpu, ran.peak_mb, stored, fixed))
            say(f"growth: {pieces[-1].inserted:.0f} MB, the last {size:.0f} at {size / ran.wall:.0f} MB/s")
    except (PeerError, OSError) as error:
        return str(error)
    return None
