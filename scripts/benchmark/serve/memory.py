"""A server's memory while a thousand clients download at the same time."""

from __future__ import annotations

import os
import random
import resource
import select
import socket
from collections.abc import Iterator

from benchmark.peer import PeerError
from benchmark.phase import Row, Setting
from benchmark.serve._server import Serving, serving, settle
from benchmark.serve.large import write

CLIENTS = 1000
BYTES, EACH_BYTES = 512 << 20, 4 << 20
STILL_S = 3.0
LIMIT_MB = 400


def measure(setting: Setting) -> Iterator[Row]:
    """Each asks for 4 MiB from another place of a large file. At first none of them reads anything; then all read to
    the end, a little at a time."""
    clients = max(10, int(CLIENTS * setting.scale))
    size = max(16 << 20, int(BYTES * setting.scale))
    files = os.path.join(setting.folder, "memory")
    os.makedirs(files)
    write(os.path.join(files, "random"), size, half=False)
    repository = setting.repository("memory-repository")
    setting.spray(repository, "ingest", files, "--root", "large", "--as", "v1")
    with serving(repository, setting.log) as mine:
        settle(mine.process, 0.5)
        before = mine.peak_mb()
        downloads(mine, clients, size)
        goal = f"a server's memory under {CLIENTS:,} downloads at most {LIMIT_MB} MB"
        yield Row(f"{clients:,} downloads at once: peak", [mine.peak_mb()], "MB", goal, LIMIT_MB)
        yield Row("  before them", [before], "MB")


def downloads(mine: Serving, clients: int, size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    host, _, port = mine.url.removeprefix("http://").partition(":")
    rng, sockets = random.Random(2), {}
    for _ in range(clients):
        start = rng.randrange(size - EACH_BYTES)
        one = socket.create_connection((host, int(port)), timeout=60)
        asked = f"GET /large@v1/random HTTP/1.1\r\nHost: {host}\r\nRange: bytes={start}-{start + EACH_BYTES - 1}\r\n"
        one.sendall(f"{asked}Connection: close\r\n\r\n".encode())
        sockets[one.fileno()] = one
    settle(mine.process, STILL_S)
    waiting, got = select.epoll(), dict.fromkeys(sockets, 0)
    for descriptor in sockets:
        waiting.register(descriptor, select.EPOLLIN)
    buffer = bytearray(64 << 10)
    while sockets:
        ready = waiting.poll(60)
        if not ready:
            raise PeerError("the server sends nothing any more")
        for descriptor, _ in ready:
            count = sockets[descriptor].recv_into(buffer)
            got[descriptor] += count
            if not count:
                sockets.pop(descriptor).close()
    if min(got.values()) <= EACH_BYTES:
        raise PeerError("an answer was cut short")
