"""diff of two versions of very many files, ten of which differ."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark import streams
from benchmark.peer import PeerError
from benchmark.phase import Row, Setting
from benchmark.scale import ingest_stream

FILES = 1_000_000
CHANGES = 10
GOAL_MS = 100


def measure(setting: Setting) -> Iterator[Row]:
    """Once in folders, once in one folder: the function in a new process that has opened the repository, by which the
    goal is judged, and the whole command, of which starting Python and importing is the most."""
    files = max(100, round(FILES * setting.scale))
    for kind in ("tree", "flat"):
        repository = setting.repository(f"diff-{kind}")
        ingest_stream(repository, (kind, 0, files), "before", setting.limit, setting.log)
        paths = [streams.PATHS[kind](number * files // CHANGES) for number in range(CHANGES)]
        repository.probe("put", "bench", *paths, limit=setting.limit)
        inside: dict[str, list[float]] = {}
        whole = []
        for _ in range(setting.repeat):
            told = repository.probe("diff", "bench@before", "bench", limit=setting.limit).values
            if told["files"] != CHANGES:
                raise PeerError(f"{told['files']:.0f} files are told as changed instead of {CHANGES}")
            for key in ("open_ms", "first_ms", "again_ms"):
                inside.setdefault(key, []).append(told[key])
            whole.append(setting.spray(repository, "diff", "bench@before", "bench").wall * 1e3)
        what = f"{files:,} files in {'folders' if kind == 'tree' else 'one folder'}"
        goal = f"diff of {what}, ten of which differ, below {GOAL_MS} ms (the function, repository open)"
        yield Row(f"{what}: diff", inside["first_ms"], "ms", goal, GOAL_MS)
        yield Row("  the same process again", inside["again_ms"], "ms")
        yield Row("  opening the repository", inside["open_ms"], "ms")
        yield Row("  the whole command", whole, "ms")
    yield Row("spraydry --version, for comparison", [_start(setting) for _ in range(setting.repeat)], "ms")


def _start(setting: Setting) -> float:
    return setting.spray(setting.repository("none"), "--version").wall * 1e3
