"""The readers, each a process of its own so that a mount that hangs can be left: `readers.py KIND ARGUMENTS`.

    open ROOT LIST CAP    open, read and close each file of a list
    stat ROOT LIST CAP    ask for the attributes of each path of a list
    seq FILE CAP          a file from start to end, 1 MiB at a time
    rand FILE COUNT CAP   4 KiB at random places, the same ones every time

Each prints one JSON object. After CAP seconds it stops and reports the part done ("cut").
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

clock = time.perf_counter


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def result(began: float, cut: bool, read: int, latencies: list[float]) -> dict[str, object]:
    wall = clock() - began
    return {
        "wall": wall,
        "cut": cut,
        "bytes": read,
        "count": len(latencies),
        "p50_ms": percentile(latencies, 0.5) * 1e3,
        "p99_ms": percentile(latencies, 0.99) * 1e3,
    }


def read_files(root: str, listed: str, cap: float) -> dict[str, object]:
    with open(listed, "rb") as file:
        names = file.read().split(b"\0")
    folder, latencies, read, cut = os.fsencode(root) + b"/", [], 0, False
    began = clock()
    for name in names:
        before = clock()
        opened = os.open(folder + name, os.O_RDONLY)
        while block := os.read(opened, 131072):
            read += len(block)
        os.close(opened)
        after = clock()
        latencies.append(after - before)
        if after - began > cap:
            cut = True
            break
    return result(began, cut, read, latencies)


def look_up(root: str, listed: str, cap: float) -> dict[str, object]:
    with open(listed, "rb") as file:
        names = file.read().split(b"\0")
    folder, latencies, cut = os.fsencode(root) + b"/", [], False
    began = clock()
    for name in names:
        before = clock()
        os.lstat(folder + name)
        after = clock()
        latencies.append(after - before)
        if after - began > cap:
            cut = True
            break
    return result(began, cut, 0, latencies)


def read_through(path: str, cap: float) -> dict[str, object]:
    buffer, read, cut = bytearray(1 << 20), 0, False
    began = clock()
    opened = os.open(path, os.O_RDONLY)
    while count := os.readv(opened, [buffer]):
        read += count
        if clock() - began > cap:
            cut = True
            break
    return result(began, cut, read, [])


def read_at_random(path: str, count: int, cap: float) -> dict[str, object]:
    opened = os.open(path, os.O_RDONLY)
    pages = max(1, os.fstat(opened).st_size // 4096)
    rng = random.Random(11)
    offsets = [rng.randrange(pages) * 4096 for _ in range(count)]
    latencies, read, cut = [], 0, False
    began = clock()
    for offset in offsets:
        before = clock()
        read += len(os.pread(opened, 4096, offset))
        after = clock()
        latencies.append(after - before)
        if after - began > cap:
            cut = True
            break
    return result(began, cut, read, latencies)


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "open":
        answer = read_files(arguments[0], arguments[1], float(arguments[2]))
    elif kind == "stat":
        answer = look_up(arguments[0], arguments[1], float(arguments[2]))
    elif kind == "seq":
        answer = read_through(arguments[0], float(arguments[1]))
    else:
        answer = read_at_random(arguments[0], int(arguments[1]), float(arguments[2]))
    print(json.dumps(answer))
