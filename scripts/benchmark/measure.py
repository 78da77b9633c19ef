"""Measures peers on one corpus, in rounds: in each round every peer does one thing, then every peer the next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from benchmark import system
from benchmark.corpora import Corpus
from benchmark.peer import Peer, PeerError
from benchmark.reading import Drained, drain, reader
from benchmark.system import say
from benchmark.trees import LARGE_FILE, Listing, LiveTree

PHASES = ("find", "tar", "open", "seq", "rand")
SMALL_FILES = 1500
RANDOM_READS = 4000

CUT, REBUILT = "cut", "rebuilt"  # marks


class Options(NamedTuple):
    folder: str  # for stores and mounts; goes away at the end
    repeat: int
    cap: float  # seconds of one read pass
    ingest_cap: float
    settle: float  # a file changed just now is one that no tool may take as unchanged
    phases: tuple[str, ...]
    cold: bool  # caches may be dropped
    ingest_only: frozenset[str]  # peers that are not mounted


class Outcome:
    """All that was measured of one peer."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}
        self.marks: dict[str, str] = {}
        self.errors: list[str] = []

    def add(self, metric: str, value: float, mark: str | None = None) -> None:
        self.samples.setdefault(metric, []).append(value)
        if mark:
            self.marks[metric] = mark


class Pass(NamedTuple):
    """One pass of a reader."""

    values: dict[str, float]
    cut: bool


class Measurement:
    def __init__(self, corpus: Corpus, peers: list[Peer], options: Options, log: IO[bytes]) -> None:
        self.corpus, self.peers, self.options, self.log = corpus, peers, options, log
        self.outcomes = {peer.name: Outcome() for peer in peers}
        self.listing = Listing(corpus.v1)
        self.calibration: list[float] = []
        self.sample = os.path.join(options.folder, "sample")

    def run(self, after_round: Callable[[], None]) -> None:
        """Everything; what is measured so far stands in `outcomes` at any time."""
        say(f"{self.corpus.name}: {len(self.listing.sizes)} files, {self.listing.bytes / 1e6:.1f} MB")
        live = LiveTree(os.path.join(self.options.folder, "source"), self.corpus.v1, self.corpus.v2)
        with open(self.sample, "wb") as file:
            file.write(b"\0".join(self.listing.some_small(SMALL_FILES)))
        for number in range(self.options.repeat):
            self._ingest_round(number, live)
            after_round()
        for number in range(self.options.repeat):
            self._read_round(number)
            after_round()

    def _turn(self, number: int) -> list[Peer]:
        """Another one begins in each round; those that broke are out."""
        first = number % len(self.peers)
        turn = [*self.peers[first:], *self.peers[:first]]
        return [peer for peer in turn if not self.outcomes[peer.name].errors]

    @contextmanager
    def _step(self, peer: Peer, what: str) -> Iterator[Outcome]:
        """A peer's error is kept beside its numbers, and the others go on."""
        began, outcome = time.monotonic(), self.outcomes[peer.name]
        try:
            yield outcome
        except (PeerError, OSError) as error:
            outcome.errors.append(f"{what}: {error}")
            say(f"{self.corpus.name} {peer.name} {what}: {error}")
        else:
            say(f"{self.corpus.name} {peer.name} {what}: {time.monotonic() - began:.1f} s")

    # --- Ingest

    def _ingest_round(self, number: int, live: LiveTree) -> None:
        self._source(live, "v1")
        for peer in self._turn(number):
            if peer.store_of:
                continue
            with self._step(peer, "ingest of v1") as outcome:
                peer.reset()
                self._ingest(peer, outcome, "first", [live.path], "v1")
                stored = system.size(peer.store)
                outcome.add("stored.allocated", stored.allocated / 1e6)
                outcome.add("stored.apparent", stored.apparent / 1e6)
                if peer.image:
                    outcome.add("ingest.unchanged.s", outcome.samples["ingest.first.s"][-1], REBUILT)
                else:
                    self._ingest(peer, outcome, "unchanged", [live.path], "v1-again")
        self._source(live, "v2")
        if any(peer.image for peer in self.peers):
            system.warm(self.corpus.v1)
        for peer in self._turn(number):
            if peer.store_of:
                continue
            if peer.image and not peer.several_sources:
                continue
            with self._step(peer, "ingest of v2") as outcome:
                before = system.size(peer.store)
                sources = [live.path, self.corpus.v1] if peer.image else [live.path]
                mark = REBUILT if peer.image else None
                self._ingest(peer, outcome, "changed", sources, "v2", mark)
                after = system.size(peer.store)
                if peer.image:  # the image of both versions lies beside that of v1
                    after = system.Size(after.allocated - before.allocated, after.apparent - before.apparent)
                    peer.forget("v2")
                outcome.add("added.allocated", (after.allocated - before.allocated) / 1e6)
                outcome.add("added.apparent", (after.apparent - before.apparent) / 1e6)

    def _source(self, live: LiveTree, version: str) -> None:
        live.show(version)
        time.sleep(self.options.settle)
        system.warm(live.path)
        self.calibration.append(system.calibrate())

    def _ingest(
        self, peer: Peer, outcome: Outcome, kind: str, sources: list[str], version: str, mark: str | None = None
    ) -> None:
        os.sync()  # what others left to be written is not this one's
        ran = peer.ingest(sources, version, self.options.ingest_cap)
        outcome.add(f"ingest.{kind}.s", ran.wall, mark)
        outcome.add(f"ingest.{kind}.cpu", ran.cpu, mark)
        outcome.add("ingest.peak", ran.peak_mb)
        if kind == "first":
            outcome.add("ingest.first.rate", self.listing.bytes / 1e6 / ran.wall)

    # --- Reading

    def _read_round(self, number: int) -> None:
        size = self.listing.largest()[1]
        passes: dict[str, Callable[[Peer], Pass]] = {"find": self._find, "tar": self._tar}
        if os.path.getsize(self.sample):
            passes["open"] = self._open
        if size >= LARGE_FILE:
            passes |= {"seq": self._sequential, "rand": self._random}
        for phase, once in passes.items():
            if phase not in self.options.phases:
                continue
            self.calibration.append(system.calibrate())
            for peer in self._turn(number):
                if peer.name in self.options.ingest_only or peer.cannot_mount():
                    continue
                with self._step(peer, f"mount, {phase}") as outcome:
                    self._passes(peer, outcome, phase, once)

    def _passes(self, peer: Peer, outcome: Outcome, phase: str, once: Callable[[Peer], Pass]) -> None:
        """A first pass over a fresh mount, cold if it can be, and a second one."""
        try:
            if self.options.cold:
                system.drop_caches()
            milliseconds = peer.mount("v1") * 1e3
            # The first one may make, and keep, what the later ones find.
            outcome.add("mount.ms" if "mount.first.ms" in outcome.samples else "mount.first.ms", milliseconds)
            if self.options.cold:
                system.drop_caches()
            done = once(peer)
            if self.options.cold:
                self._keep(outcome, phase, "cold", done)
            if not done.cut:
                self._keep(outcome, phase, "warm", once(peer))
            if peer.daemon:
                outcome.add("mount.peak", peer.daemon_peak())
        finally:
            peer.unmount()

    def _keep(self, outcome: Outcome, phase: str, state: str, done: Pass) -> None:
        for name, value in done.values.items():
            outcome.add(f"{phase}.{state}.{name}", value, CUT if done.cut else None)

    def _find(self, peer: Peer) -> Pass:
        wall, cpu, _, lines, cut = self._drain(peer, ["find", ".", "-ls"])
        if not cut and lines != self.listing.entries:
            raise PeerError(f"find saw {lines} entries of {self.listing.entries}")
        return Pass({"rate": lines / wall, "cpu": cpu / lines * 1e6 if lines else 0.0}, cut)

    def _tar(self, peer: Peer) -> Pass:
        wall, cpu, read, _, cut = self._drain(peer, ["tar", "-cf", "-", "."])
        if not cut and read < self.listing.bytes:
            raise PeerError(f"tar read {read} bytes of {self.listing.bytes}")
        share = min(1.0, read / self.listing.stream_bytes) if cut else 1.0
        megabytes = self.listing.bytes * share / 1e6
        return Pass({"rate": megabytes / wall, "cpu": cpu / megabytes * 1e3 if megabytes else 0.0}, cut)

    def _drain(self, peer: Peer, command: list[str]) -> Drained:
        """With the CPU seconds of the daemon."""
        before = peer.daemon_cpu()
        drained = drain(command, peer.root("v1"), self.options.cap, self.log)
        return drained._replace(cpu=drained.cpu + peer.daemon_cpu() - before)

    def _open(self, peer: Peer) -> Pass:
        answer = self._reader("open", peer.root("v1"), self.sample, self.options.cap / 3)
        return Pass({"rate": answer["count"] / answer["wall"], "p99": answer["p99_ms"]}, bool(answer["cut"]))

    def _sequential(self, peer: Peer) -> Pass:
        answer = self._reader("seq", self._large(peer), self.options.cap)
        if not answer["cut"] and answer["bytes"] != self.listing.largest()[1]:
            raise PeerError(f"read {answer['bytes']} bytes of {self.listing.largest()[1]}")
        return Pass({"rate": answer["bytes"] / 1e6 / answer["wall"]}, bool(answer["cut"]))

    def _random(self, peer: Peer) -> Pass:
        answer = self._reader("rand", self._large(peer), RANDOM_READS, min(10.0, self.options.cap))
        values = {"rate": answer["count"] / answer["wall"], "p50": answer["p50_ms"], "p99": answer["p99_ms"]}
        return Pass(values, bool(answer["cut"]))

    def _large(self, peer: Peer) -> str:
        return os.path.join(peer.root("v1"), os.fsdecode(self.listing.largest()[0]))

    def _reader(self, *arguments: object) -> dict[str, float]:
        return reader(self.options.cap * 2 + 60, self.log, *arguments)
