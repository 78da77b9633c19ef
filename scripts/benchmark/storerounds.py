"""Measures spraydry on several stores in rounds: in each every store does one thing, then every store the next."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import IO

from benchmark import system
from benchmark.backends import Backend
from benchmark.corpora import Corpus
from benchmark.measure import CUT, Measurement, Options, Outcome
from benchmark.peer import PeerError
from benchmark.system import Ran, say
from benchmark.trees import Listing


class CorpusRounds(Measurement):
    """One corpus: ingest, opening, a mount, restore. Every repository of a round is gone at its end."""

    def __init__(self, corpus: Corpus, backends: list[Backend], options: Options, log: IO[bytes]) -> None:
        super().__init__(corpus, [*backends], options, log)
        self.backends = {backend.name: backend for backend in backends}

    def run(self, after_round: Callable[[], None]) -> None:
        say(f"{self.corpus.name}: {len(self.listing.sizes)} files, {self.listing.bytes / 1e6:.1f} MB")
        phases = {
            "ingest": self._store,
            "opening": self._open_it,
            "mount, tar": self._mount_it,
            "restore": self._restore,
        }
        try:
            for number in range(self.options.repeat):
                for what, once in phases.items():
                    system.warm(self.corpus.v1)
                    self.calibration.append(system.calibrate())
                    for peer in self._turn(number):
                        if what == "mount, tar" and peer.cannot_mount():
                            continue
                        with self._step(peer, what) as outcome:
                            once(self.backends[peer.name], outcome)
                self._clear()
                after_round()
        finally:
            self._clear()

    def _clear(self) -> None:
        for backend in self.backends.values():
            try:
                backend.remove()
            except (PeerError, OSError) as error:
                say(f"{backend.label} is not removed: {error}")

    def _store(self, backend: Backend, outcome: Outcome) -> None:
        backend.reset()
        if backend.store_of:
            return
        for kind, version in (("first", "v1"), ("unchanged", "v1-again")):
            os.sync()  # what others left to be written is not this one's
            ran = backend.ingest([self.corpus.v1], version, self.options.ingest_cap)
            outcome.add(f"ingest.{kind}.rate", self.listing.bytes / 1e6 / ran.wall)
            outcome.add(f"ingest.{kind}.s", ran.wall)
            outcome.add(f"ingest.{kind}.cpu", ran.cpu)
            outcome.add("ingest.peak", ran.peak_mb)

    def _open_it(self, backend: Backend, outcome: Outcome) -> None:
        backend.fresh_machine()
        for key in ("open.fresh.ms", "open.again.ms"):
            if self.options.cold:
                system.drop_caches()
            outcome.add(key, backend.probe("open", limit=self.options.ingest_cap).values["s"] * 1e3)

    def _mount_it(self, backend: Backend, outcome: Outcome) -> None:
        if self.options.cold:
            system.drop_caches()
        try:
            outcome.add("mount.ms", backend.mount("v1") * 1e3)
            if self.options.cold:
                system.drop_caches()
            done = self._tar(backend)
            for name, number in done.values.items():
                outcome.add(f"tar.{name}", number, CUT if done.cut else None)
            outcome.add("mount.peak", backend.daemon_peak())
        finally:
            backend.unmount()

    def _restore(self, backend: Backend, outcome: Outcome) -> None:
        target = os.path.join(self.options.folder, "restored")
        if self.options.cold:
            system.drop_caches()
        since = os.path.getsize(self.log.name)
        try:
            words = backend.words("restore", "bench@v1", target)
            ran = system.run(words, self.log, env=backend.environment(), limit=self.options.ingest_cap)
            self._check(ran, target, since)
        finally:
            shutil.rmtree(target, ignore_errors=True)
        outcome.add("restore.rate", self.listing.bytes / 1e6 / ran.wall)
        outcome.add("restore.cpu", ran.cpu)
        outcome.add("restore.peak", ran.peak_mb)

    def _check(self, ran: Ran, target: str, since: int) -> None:
        if ran.cut:
            raise PeerError(f"restore took more than {self.options.ingest_cap:.0f} s")
        if ran.code:
            raise PeerError(f"restore ended with {ran.code}: {system.last_words(self.log, since)}")
        restored = Listing(target)
        if (restored.sizes, restored.entries) != (self.listing.sizes, self.listing.entries):
            raise PeerError("what was restored is not what was ingested")


# --- Values in a store, without a repository


def measure_values(
    backends: list[Backend], plan: dict[str, int], repeat: int, cold: bool, limit: float
) -> dict[str, Outcome]:
    """Writing and reading values, the stores taking turns."""
    outcomes = {backend.name: Outcome() for backend in backends}
    for number in range(repeat):
        first = number % len(backends)
        for backend in [*backends[first:], *backends[:first]]:
            outcome = outcomes[backend.name]
            if outcome.errors:
                continue
            try:
                backend.reset()
                os.sync()
                for words in (("write", json.dumps(plan)), ("read", json.dumps(plan), int(cold))):
                    answer = backend.probe(*words, limit=limit)
                    for key, value in answer.values.items():
                        outcome.add(f"value.{key}", value)
                    outcome.add(f"value.{words[0]}.peak", answer.ran.peak_mb)
                backend.remove()
            except (PeerError, OSError) as error:
                outcome.errors.append(str(error))
            say(f"values, {backend.label} {outcome.errors[-1] if outcome.errors else 'done'}")
    return outcomes


# --- A repository of very many frames


def measure_frames(backend: Backend, frames: int, chunks: int, cold: bool, limit: float, outcome: Outcome) -> None:
    """Make it, unless the backend only reads; list its frames; open it, with its catalog there and from nothing."""

    def timed(key: str, *words: object) -> dict[str, float]:
        if cold:
            system.drop_caches()
        answer = backend.probe(*words, limit=limit)
        outcome.add(f"{key}.s", answer.values["s"])
        outcome.add(f"{key}.peak", answer.ran.peak_mb)
        return answer.values

    try:
        backend.reset()
        outcome.add("frames.count", frames)
        if not backend.store_of:
            told = timed("frames.fill", "fill", frames, chunks)
            outcome.add("frames.fill.rate", frames / told["s"])
            count = timed("frames.list", "list")["count"]
            outcome.add("frames.list.rate", frames / outcome.samples["frames.list.s"][-1])
            if count != frames:
                raise PeerError(f"{count:.0f} frames are listed instead of {frames}")
            timed("frames.open", "open")
        backend.fresh_machine()
        # A catalog that lies in the store itself is there on every machine: it is made anew.
        found = timed("frames.fresh", "rebuild" if backend.name == "sqlite" else "open")["frames"]
        if found != frames:
            raise PeerError(f"{found:.0f} frames are known after opening instead of {frames}")
        if backend.store_of:
            timed("frames.open", "open")
    except (PeerError, OSError) as error:
        outcome.errors.append(str(error))
    say(f"{frames:,} frames, {backend.label} {outcome.errors[-1] if outcome.errors else 'done'}")
