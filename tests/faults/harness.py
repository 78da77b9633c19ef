"""Runs ingest and recompress in children that are killed or whose system calls fail, and checks what is left.

A process of its own (`python -m tests.faults.harness MODE VARIANT SEED POINTS FOLDER`), so that children can be forked
from a warmed interpreter that holds no repository: a point costs tens of milliseconds. Prints a JSON document: `points`
that were reached and `bad`, what was found wrong. The variants are deliberately broken: there something must be found.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spraydry.actions.closure import chunks_of
from spraydry.actions.ingest import ingest
from spraydry.actions.recompress import recompress
from spraydry.errors import SprayDryError
from spraydry.format.entry import FILE
from spraydry.repository.log import Log
from spraydry.repository.repository import Repository
from spraydry.stores.sqlite import SqliteStore

ROOT = "r"
CALLS = ("fsync", "fdatasync", "rename", "renameat", "renameat2", "pwrite64", "ftruncate", "unlink", "unlinkat")
FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")
_TRACED = 0x77  # what the kernel says to a traced child's getppid
_VARIANTS = ("sound", "frames last", "acknowledge first", "errors ignored")

Snapshot = dict[bytes, bytes]


def _many_batches() -> None:
    """A tree of a few files takes as many batches, runs and frames as one of gigabytes."""
    writer = sys.modules["spraydry.repository.writer"]
    writer._BATCH_BYTES = 6 << 10  # type: ignore[attr-defined]
    writer._RUN_BYTES = 15 << 10  # type: ignore[attr-defined]
    sys.modules["spraydry.actions.ingest.ingest"].FRAME_TARGET_BYTES = 3 << 10  # type: ignore[attr-defined]
    sys.modules["spraydry.actions.recompress.recompress"]._BATCH_BYTES = 8 << 10  # type: ignore[attr-defined]


def _break(variant: str) -> None:
    """Make the program wrong, in a child."""
    if variant == "frames last":
        late: list[tuple[str, bytes]] = []
        put_many, flushed, batch = SqliteStore.put_many, SqliteStore.flush, Log.append

        def put_later(self: SqliteStore, namespace: str, values: object) -> None:
            if namespace == "frames":
                late.extend(values)  # type: ignore[arg-type]
            else:
                put_many(self, namespace, values)  # type: ignore[arg-type]

        def flush(self: SqliteStore) -> None:
            put_many(self, "frames", late)
            flushed(self)

        def slow(self: Log, make: object) -> object:
            made = batch(self, make)  # type: ignore[arg-type]
            time.sleep(0.02)
            return made

        SqliteStore.put_many, SqliteStore.flush, Log.append = put_later, flush, slow  # type: ignore[method-assign,assignment]


@dataclass
class Stage:
    """One repository and the source that goes into it, with what is known of both. `acknowledged` are versions an
    ingest returned, with what the source held then; `pending` what a killed ingest may have committed as well."""

    folder: Path
    rng: random.Random
    variant: str
    acknowledged: dict[str, Snapshot] = field(default_factory=dict)
    pending: Snapshot | None = None
    bad: list[str] = field(default_factory=list)

    @property
    def repository(self) -> str:
        return str(self.folder / "repository.sqlite")

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def change(self) -> None:
        """Make the source another one."""
        self.source.mkdir(parents=True, exist_ok=True)
        for _ in range(6):
            place = self.source / f"d{self.rng.randrange(3)}" / f"f{self.rng.randrange(12)}.txt"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(self.rng.randbytes(self.rng.randrange(4000)) + b"the same " * self.rng.randrange(900))
        with contextlib.suppress(FileNotFoundError):
            (self.source / f"d{self.rng.randrange(3)}" / f"f{self.rng.randrange(12)}.txt").unlink()

    def snapshot(self) -> Snapshot:
        return {
            os.fsencode(path.relative_to(self.source)): path.read_bytes()
            for path in self.source.rglob("*")
            if path.is_file()
        }

    def work(self, verb: str, tell: Callable[[str], None]) -> None:
        """What a child does; `tell` says what became of it."""
        _break(self.variant)
        try:
            if self.variant == "acknowledge first" and verb == "ingest":
                with Repository.open(self.repository, create=True) as repository:
                    tell(f"version {repository.log.next_name(ROOT)}")
            with Repository.open(self.repository, create=True) as repository:
                if verb == "recompress":
                    recompress(repository, level=random.randrange(1, 6))
                    tell("done")
                    return
                try:
                    result = ingest(repository, [str(self.source)], root=ROOT, threads=1)
                except SprayDryError:
                    if self.variant != "errors ignored":
                        raise
                    tell(f"version {repository.log.next_name(ROOT)}")
                    return
                if result.problems:
                    tell(f"unexpected problems {result.problems}")
                elif result.version is not None:
                    tell(f"version {result.version.name}")
        except SprayDryError as error:
            tell(f"error {type(error).__name__}: {error}")
        except BaseException as error:
            tell(f"unexpected {type(error).__name__}: {error}")

    def run(self, verb: str, kill_after_s: float | None = None, strace: list[str] | None = None) -> tuple[bool, str]:
        """A child that does `verb`; whether it was killed, and what it said last."""
        self.pending = self.snapshot() if verb == "ingest" else None
        told, say = os.pipe()
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(told)
                os.close(go)
                ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # whoever likes may trace it
                while strace is not None and os.getppid() != _TRACED:
                    time.sleep(0.001)
                os.write(say, b"begins\n")
                os.read(wait, 1)
                _many_batches()
                self.work(verb, lambda text: (os.write(say, text.encode() + b"\n"), None)[1])
            finally:
                os._exit(0)
        os.close(say)
        os.close(wait)
        tracer = None
        if strace is not None:
            command = ["strace", "-f", "-qq", "-p", str(child), "-e", f"inject=getppid:retval={_TRACED}", *strace]
            tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while not select.select([told], [], [], 0.1)[0]:
                if tracer.poll() is not None:
                    os.kill(child, signal.SIGKILL)
                    raise RuntimeError("strace cannot attach here")
        assert os.read(told, 7) == b"begins\n"
        os.write(go, b"x")
        os.close(go)
        if kill_after_s is not None:
            select.select([told], [], [], kill_after_s)  # ends early when the child says something
            time.sleep(0 if self.rng.random() < 0.9 else 0.001)
            os.kill(child, signal.SIGKILL)
        said = b""
        while part := os.read(told, 4096):
            said += part
        os.close(told)
        _, status = os.waitpid(child, 0)
        if tracer is not None:
            tracer.wait()
        last = said.decode().strip().rpartition("\n")[2]
        if last.startswith("unexpected"):
            self.bad.append(last)
        if last.startswith("version "):
            self.acknowledged.setdefault(last.split()[1], self.pending or {})
        return os.WIFSIGNALED(status), last

    def check(self) -> None:
        """Every acknowledged version whole, at most the one being made visible beside them, and that whole, too."""
        if not os.path.exists(self.repository):
            if self.acknowledged:
                self.bad.append("the repository is gone")
            return
        try:
            with Repository.open(self.repository, create=True) as repository:
                found = {version.name: version for version in (repository.log.versions(ROOT))}
                for name in self.acknowledged.keys() - found.keys():
                    self.bad.append(f"{name} was acknowledged and is not there")
                more = found.keys() - self.acknowledged.keys()
                if len(more) > 1 or (more and self.pending is None):
                    self.bad.append(f"versions nobody made: {sorted(more)}")
                for name in more:
                    self.acknowledged[name] = self.pending or {}
                seen: set[bytes] = set()

                def fresh(pages: Sequence[bytes]) -> set[bytes]:
                    unseen = set(pages) - seen
                    seen.update(unseen)
                    return unseen

                for name, version in found.items():
                    held: Snapshot = {}
                    for entry in repository.walk(str(version)):
                        if entry.entry.kind == FILE:
                            with repository.open_file(entry) as stream:
                                held[entry.path] = stream.read()
                    if held != self.acknowledged[name]:
                        self.bad.append(f"{name} holds something else")
                    for chunk in chunks_of(repository, version.record.entry, version.record.links, fresh):
                        repository.read_chunk(chunk)
                if repository.damaged_runs:
                    self.bad.append(f"damaged runs: {repository.damaged_runs}")
        except SprayDryError as error:
            self.bad.append(f"{type(error).__name__}: {error}")

    def finish(self) -> None:
        """The next run works, and stores nothing twice."""
        _, said = self.run("ingest")
        if not said.startswith("version "):
            self.bad.append(f"the next run said {said!r}")
        self.check()
        if self.variant == "sound":
            with Repository.open(self.repository) as repository:
                again = ingest(repository, [str(self.source)], root=ROOT, threads=1)
                if again.new or again.stored_bytes:
                    self.bad.append(f"{again.stored_bytes} bytes were stored again")


def _injected(line: bytes) -> bool:
    """Whether a line of strace tells of a call that failed, not of the one that told the child that it is traced."""
    return b"INJECTED" in line and b"getppid" not in line


def kills(variant: str, seed: int, points: int, folder: Path) -> dict[str, object]:
    """Kill children at random moments until `points` were killed in the midst of their work."""
    rng = random.Random(seed)
    done = 0
    bad: list[str] = []
    stage = None
    rounds = 0
    lasts: dict[str, float] = {}
    while done < points and not (bad and variant != "sound") and len(bad) < 5:
        if stage is None or len(stage.acknowledged) > 8 or rounds % 24 == 0:
            if stage is not None:
                stage.finish()
                bad += stage.bad
                shutil.rmtree(stage.folder)
            stage = Stage(folder / f"stage{rounds}", rng, variant)
            stage.folder.mkdir(parents=True)
            stage.change()
        rounds += 1
        verb = "recompress" if stage.acknowledged and rng.random() < 0.3 else "ingest"
        if verb == "ingest" and rng.random() < 0.6:
            stage.change()
        started = time.monotonic()
        kill_after_s = rng.uniform(0, lasts[verb] * 1.2) if verb in lasts else None
        killed, said = stage.run(verb, kill_after_s=kill_after_s)
        took = time.monotonic() - started
        # How long the work takes here and now, so that the kills are spread over all of it.
        if said:
            lasts[verb] = 0.9 * lasts.get(verb, took) + 0.1 * took
        elif killed:
            done += 1
            lasts[verb] *= 1.008
        stage.check()
        bad += [f"round {rounds} ({verb}): {text}" for text in stage.bad]
        stage.bad.clear()
    return {"points": done, "rounds": rounds, "bad": bad}


def injections(variant: str, seed: int, points: int, folder: Path) -> dict[str, object]:
    """Let the 1st, 2nd, ... call of each kind fail once, until no call is left to fail; `points` bounds each kind."""
    rng = random.Random(seed)
    reached: dict[str, int] = {}
    bad: list[str] = []
    base = Stage(folder / "base", rng, "sound")
    base.folder.mkdir(parents=True)
    base.change()
    base.run("ingest")
    if list(base.acknowledged) != ["v1"]:
        raise RuntimeError("no first version")
    base.change()
    for verb, state in (("ingest", "base"), ("recompress", "base"), ("ingest", "nothing")):
        for call in CALLS:
            for fault in FAULTS:
                # Of the many writes every sixth, a different one for each fault.
                stride = 6 if call == "pwrite64" and variant == "sound" else 1
                for number in range(1 + 2 * FAULTS.index(fault) % stride, points + 1, stride):
                    stage = Stage(folder / "stage", rng, variant, dict(base.acknowledged) if state == "base" else {})
                    shutil.rmtree(stage.folder, ignore_errors=True)
                    if state == "base":
                        shutil.copytree(base.folder, stage.folder)
                    else:
                        stage.folder.mkdir()
                        shutil.copytree(base.source, stage.source)
                    log = folder / "strace.log"
                    expression = f"inject={call}:{fault}:when={number}"
                    traced = ["-e", f"trace=getppid,{call}", "-e", expression, "-o", str(log)]
                    killed, said = stage.run(verb, strace=traced)
                    lines = log.read_bytes().splitlines()
                    if not (killed if fault == "signal=KILL" else any(_injected(line) for line in lines)):
                        break
                    kind = f"{verb} {call} {fault}"
                    reached[kind] = reached.get(kind, 0) + 1
                    stage.check()
                    if not stage.bad:
                        stage.finish()
                    bad += [f"{verb} onto {state}, {expression} ({said}): {text}" for text in stage.bad]
                    if len(bad) > 5 or (bad and variant != "sound"):
                        return {"points": sum(reached.values()), "reached": reached, "bad": bad}
    return {"points": sum(reached.values()), "reached": reached, "bad": bad}


def main() -> None:
    mode, variant, seed, points, folder = sys.argv[1:]
    assert variant in _VARIANTS
    place = Path(folder)
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    warm = Stage(place / "warm", random.Random(0), "sound")
    warm.folder.mkdir(parents=True)
    warm.change()
    with Repository.open(warm.repository, create=True) as repository:  # imports everything the children need
        ingest(repository, [str(warm.source)], root=ROOT, threads=1)
        recompress(repository)
    run = {"kills": kills, "injections": injections}[mode]
    print(json.dumps(run(variant, int(seed), int(points), place)))


if __name__ == "__main__":
    main()
