"""A cold tar of a mount over HTTP, beside a mount of the same repository where it lies."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from typing import IO

from benchmark import system
from benchmark.backends import Backend
from benchmark.peer import PeerError
from benchmark.phase import Row, Setting
from benchmark.reading import drain
from benchmark.serve._server import serving

GOAL = 0.5


class Client(Backend):
    """A machine that has nothing of a repository but its server's address."""

    name, label = "http", "http:"

    def __init__(self, folder: str, log: IO[bytes], address: str) -> None:
        super().__init__(folder, log)
        self._address = address

    def place(self, number: int) -> str:
        return self._address


def measure(setting: Setting) -> Iterator[Row]:
    """Python's standard library, with what compiling it left, without its tests. Both mounts take turns, each by a
    daemon that was just started, on a catalog that knows the repository; the kernel's caches are dropped where that is
    allowed."""
    if not system.fuse_opens():
        raise PeerError("/dev/fuse cannot be opened")
    local = setting.repository("mount-repository")
    library = sysconfig.get_paths()["stdlib"]
    setting.spray(
        local, "ingest", library, "--root", "bench", "--as", "v1", "--exclude=site-packages", "--exclude=test"
    )
    with serving(local, setting.log) as server:
        client = Client(os.path.join(setting.folder, "mount-client"), setting.log, server.url)
        client.reset()
        tar(setting, client)
        here, there = [], []
        for _ in range(setting.repeat):
            here.append(tar(setting, local))
            there.append(tar(setting, client))
        yield Row("cold tar of a mount: where it lies", here, "MB/s")
        yield Row("  over HTTP", there, "MB/s")
        ratios = [one / other for one, other in zip(there, here, strict=True)]
        yield Row("  part of it", ratios, "times", f"a cold tar over HTTP: at least {GOAL} of local", GOAL, least=True)
        yield Row("the server's memory", [server.peak_mb()], "MB")


def tar(setting: Setting, repository: Backend) -> float:
    """The rate in MB/s."""
    if system.drops_caches():
        system.drop_caches()
    repository.mount("v1")
    try:
        done = drain(["tar", "-cf", "-", "-C", repository.point, "."], setting.folder, setting.limit, setting.log)
    finally:
        repository.unmount()
    return done.read / 1e6 / done.wall
