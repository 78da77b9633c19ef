"""Writers of segments that are killed, at each call and again and again: what was acknowledged is whole afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spraydry.segments.segments import Segments
from tests.segments.killed import value_of

Model = dict[str, bytes]
HEADER_BYTES = 32  # of a data file, which are synced before it gets its name


def start(folder: Path, seed: int, *call: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.segments.killed", str(folder), str(seed), *map(str, call)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def after(lines: list[str], model: Model) -> tuple[list[Model], dict[str, int]]:
    """What may be there after a writer said `lines` and was killed: one or several states; and what it synced."""
    states = [model]
    synced = {}
    for place, line in enumerate(lines):
        what, *words = line.split()
        if what == "synced":
            synced[words[0]] = int(words[1])
        elif what not in ("done", "end"):
            done = "done" in [later.split()[0] for later in lines[place + 1 :]]
            states = one_step(states[-1], what, words)[-1:] if done else one_step(states[-1], what, words)
    return states, synced


def one_step(model: Model, what: str, words: list[str]) -> list[Model]:
    """The states a step may leave when it is interrupted, the last one when it is not."""
    version, names = int(words[0]), words[1:]
    states = [model]
    if what == "put":
        states.append(model | {name: value_of(name, version) for name in names})
    elif what == "put_many":
        for count in range(1, len(names) + 1):
            states.append(model | {name: value_of(name, version) for name in names[:count]})
    elif what == "delete":
        for count in range(1, len(names) + 1):
            states.append({name: value for name, value in model.items() if name not in names[:count]})
    elif what == "move" and names[0] in model and names[0] != names[-1]:
        moved = model | {names[-1]: model[names[0]]}
        del moved[names[0]]
        states.append(moved)
    return states


def content(folder: Path, writer: int, read_only: bool) -> Model:
    """What one writer has there."""
    segments = Segments(str(folder), read_only=read_only)
    prefix = f"frames\0{writer}-".encode()
    try:
        values = {key: segments.get(key) for key, _ in segments.rows(prefix)}
        lengths = [row.length for _, row in segments.rows(b"")]
        assert segments.totals() == (len(lengths), sum(lengths))
    finally:
        segments.close()
    return {key.removeprefix(b"frames\0").decode(): value for key, value in values.items() if value is not None}


@pytest.mark.slow
def test_killed_at_each_call(tmp_path: Path) -> None:
    """Also when all is lost that was not synced: sizes of data files, and indexes."""
    ended = killed = 0
    for call in [*range(1, 130), *range(130, 1000, 41)]:
        folder = tmp_path / str(call)
        writer = start(folder, 5, call)
        lines = writer.communicate(timeout=600)[0].splitlines()
        assert writer.returncode in (0, -signal.SIGKILL)
        killed += writer.returncode != 0
        ended += "done" in lines
        states, synced = after(lines, {})
        if (folder / "segments").exists() and (folder / "segments").stat().st_size:
            for lost in (False, True):
                if lost:
                    lose_unsynced(folder, synced)
                for read_only in (True, False, True):
                    found = content(folder, 5, read_only)
                    assert found in states, (call, lost, lines[-3:])
        shutil.rmtree(folder, ignore_errors=True)
    assert killed > 130 and ended > 100


def lose_unsynced(folder: Path, synced: dict[str, int]) -> None:
    data = sorted(folder.glob("*.data"))
    for path in data:
        os.truncate(path, min(path.stat().st_size, synced.get(path.name, HEADER_BYTES)))
    if data and (index := data[-1].with_suffix(".index")).exists():
        index.unlink()


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path) -> None:
    """Fifty times on the same segments, in every third round with two writers at once."""
    rng = random.Random(11)
    models: dict[int, Model] = {}
    acknowledged = 0
    for turn in range(50):
        seeds = [turn + 1] if turn % 3 else [turn + 1, turn + 1001]
        writers = [start(tmp_path / "s", seed) for seed in seeds]
        said: list[list[str]] = []
        waiting = rng.randrange(1, 120)
        first = writers[0].stdout
        assert first
        begun = [first.readline() for _ in range(waiting)]
        for writer in writers:
            writer.kill()
        for place, writer in enumerate(writers):
            said.append([*(begun if place == 0 else []), *writer.communicate()[0].splitlines()])
        for seed, lines in zip(seeds, said, strict=True):
            states, _ = after(lines, {})
            acknowledged += sum(line.startswith("done") for line in lines)
            models[seed] = content(tmp_path / "s", seed, read_only=bool(turn % 2))
            assert models[seed] in states, (turn, seed)
    for seed, model in models.items():
        assert content(tmp_path / "s", seed, read_only=True) == model
    assert acknowledged > 1000
