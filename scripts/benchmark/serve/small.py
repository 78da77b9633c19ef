"""Small files by path, beside the same bytes from a minimal Starlette app on the same Hypercorn."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from benchmark.backends import Backend
from benchmark.phase import Row, Setting
from benchmark.serve._server import answering, load, serving

FILES, IN_FOLDER, BYTES = 2000, 100, 4096
SECONDS = 3.0
PROCESSES, CONNECTIONS = 2, 8
GOAL = 0.8
STARLETTE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_starlette.py")


def measure(setting: Setting) -> Iterator[Row]:
    """Two processes with eight connections each ask for files in a random order; the servers take turns, and what is
    judged is the ratio of the two in each turn. Each file was asked for before."""
    files = os.path.join(setting.folder, "small")
    paths = list(fill(files, max(IN_FOLDER, int(FILES * setting.scale))))
    repository = setting.repository("small-repository")
    setting.spray(repository, "ingest", files, "--root", "small", "--as", "v1")
    seconds = max(0.3, SECONDS * min(1, setting.scale * 5))
    with (
        answering([Backend.python, STARLETTE, files], setting.log, {}) as starlette,
        serving(repository, setting.log) as mine,
    ):
        load(setting, mine.url, [f"/small@v1/{path}" for path in paths], seconds, PROCESSES, CONNECTIONS)
        theirs, own = [], []
        for _ in range(setting.repeat):
            for server, prefix, rates in ((starlette, "", theirs), (mine, "/small@v1", own)):
                asked = [f"{prefix}/{path}" for path in paths]
                rates.append(load(setting, server.url, asked, seconds, PROCESSES, CONNECTIONS))
        yield Row(f"{len(paths):,} files of {BYTES:,} bytes: spraydry", own, "requests/s")
        yield Row("  Starlette, from memory", theirs, "requests/s")
        goal = f"small files by path: at least {GOAL} of what a minimal Starlette app answers"
        ratios = [one / other for one, other in zip(own, theirs, strict=True)]
        yield Row("  part of it", ratios, "times", goal, GOAL, least=True)
        yield Row("the server's memory", [mine.peak_mb()], "MB")


def fill(folder: str, count: int) -> Iterator[str]:
    """Files of random bytes; their paths in the folder."""
    rng = random.Random(1)
    for number in range(count):
        path = f"{number // IN_FOLDER:03}/{number % IN_FOLDER:03}.bin"
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), "wb") as file:
            file.write(rng.randbytes(BYTES))
        yield path
