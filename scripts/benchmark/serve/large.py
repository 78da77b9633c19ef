"""A large file by path, beside nginx serving the same file from disk."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from benchmark.phase import Row, Setting
from benchmark.serve._server import download, serving
from benchmark.servers import server

BYTES = 1 << 30
GOAL = 0.5


def measure(setting: Setting) -> Iterator[Row]:
    """One file of random bytes, and one that compresses to about half: curl takes turns at both servers; what is
    judged is the ratio of the two in each turn."""
    size = max(1 << 20, int(BYTES * setting.scale))
    files = os.path.join(setting.folder, "large")
    os.makedirs(files)
    for name, half in (("random", False), ("half", True)):
        write(os.path.join(files, name), size, half)
    repository = setting.repository("large-repository")
    setting.spray(repository, "ingest", files, "--root", "large", "--as", "v1")
    with (
        server("nginx", os.path.join(setting.folder, "nginx"), setting.log, files) as nginx,
        serving(repository, setting.log) as mine,
    ):
        for name, what in (("random", "random bytes"), ("half", "bytes that compress to half")):
            theirs, own = [], []
            for _ in range(setting.repeat):
                theirs.append(size / 1e6 / download(f"{nginx.url}{name}", size, setting.limit))
                own.append(size / 1e6 / download(f"{mine.url}/large@v1/{name}", size, setting.limit))
            ratios = [one / other for one, other in zip(own, theirs, strict=True)]
            told = f"{size / 1e6:,.0f} MB of {what}"
            yield Row(f"{told}: spraydry", own, "MB/s")
            yield Row("  nginx", theirs, "MB/s")
            goal = f"a large file by path ({what}): at least {GOAL} of nginx's rate"
            yield Row("  part of it", ratios, "times", goal, GOAL, least=True)
        yield Row("the server's memory", [mine.peak_mb()], "MB")


def write(path: str, size: int, half: bool) -> None:
    """A file of random bytes; with `half`, each 4 KiB of them are followed by as many that were there before."""
    rng, piece = random.Random(size), 4096
    known = rng.randbytes(piece)
    with open(path, "wb") as file:
        for _ in range(0, size, 1 << 20):
            fresh = rng.randbytes(1 << 20)
            if half:
                fresh = b"".join(fresh[at : at + piece] + known for at in range(0, 1 << 20, 2 * piece))
            file.write(fresh)
        file.truncate(size)
