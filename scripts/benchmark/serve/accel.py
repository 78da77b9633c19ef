"""A large file by path that the nginx in front sends (--accel), beside nginx serving the same file from disk."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmark.peer import PeerError
from benchmark.phase import Row, Setting
from benchmark.serve._server import download, serving, settle
from benchmark.serve.large import BYTES, write
from benchmark.servers import server

GOAL = 0.9
_TRIES = 300


def measure(setting: Setting) -> Iterator[Row]:
    """Once the plain file is in its folder, curl takes turns at both; what is judged is the ratio of the two in each
    turn. Each request asks this server first."""
    size = max(1 << 20, int(BYTES * setting.scale))
    files = os.path.join(setting.folder, "accel")
    plain = os.path.join(setting.folder, "plain")
    os.makedirs(files)
    os.makedirs(plain)
    write(os.path.join(files, "random"), size, half=False)
    repository = setting.repository("accel-repository")
    setting.spray(repository, "ingest", files, "--root", "large", "--as", "v1")
    with (
        server("nginx", os.path.join(setting.folder, "nginx-disk"), setting.log, files) as disk,
        serving(repository, setting.log, "--accel", "nginx", "--plain", f"{plain}:{3 * size}") as mine,
        server("nginx", os.path.join(setting.folder, "nginx"), setting.log, "--before", mine.url, plain) as front,
    ):
        first = download(f"{front.url}large@v1/random", size, setting.limit)
        for _ in range(_TRIES):
            if any(not inner.endswith("plain") and names for inner, _, names in os.walk(plain)):
                break
            settle(mine.process, 0.1)
        else:
            raise PeerError("the plain file does not come")
        theirs, own = [], []
        for _ in range(setting.repeat):
            theirs.append(size / 1e6 / download(f"{disk.url}random", size, setting.limit))
            own.append(size / 1e6 / download(f"{front.url}large@v1/random", size, setting.limit))
        yield Row(f"{size / 1e6:,.0f} MB: nginx in front of spraydry", own, "MB/s")
        yield Row("  the first time, while it is brought there", [size / 1e6 / first], "MB/s")
        yield Row("  nginx", theirs, "MB/s")
        ratios = [one / other for one, other in zip(own, theirs, strict=True)]
        goal = f"a large file that nginx sends (--accel): at least {GOAL} of nginx's rate from disk"
        yield Row("  part of it", ratios, "times", goal, GOAL, least=True)
