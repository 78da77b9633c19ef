"""What is asked of a store or repository from inside, each a process of its own, run by spraydry's own Python:
`probe.py TOLD KIND URL ARGUMENTS` writes one JSON object into the file TOLD.

    open URL                      open the repository
    list URL                      list its frames
    rebuild URL                   make the catalog anew from the index runs
    fill URL FRAMES CHUNKS        make a repository of so many frames, of so many chunks of 40 bytes each
    write URL PLAN                values into a store, and then
    read URL PLAN COLD            values and look-ups, as PLAN (JSON) says; with COLD = 1 the caches are dropped before
    put URL ROOT PATH...          make a version for each path, with a few bytes there
    diff URL A B                  compare two versions, twice
    push URL TARGET VERSION...    copy versions to another repository, each alone
    destroy URL                   remove the store
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

clock = time.perf_counter
CHUNK_BYTES = 40


def value_names(kind: str, count: int) -> list[str]:
    """As those of frames: 64 digits in no order."""
    rng = random.Random(kind)
    return [f"{rng.getrandbits(256):064x}" for _ in range(count)]


# --- Repositories


def open_repository(url: str) -> dict[str, float]:
    from spraydry.repository.repository import Repository

    began = clock()
    repository = Repository.open(url, read_only=True)
    opened = clock() - began
    try:
        return {"s": opened, "frames": repository.catalog.frames_count()}
    finally:
        repository.close()


def list_frames(url: str) -> dict[str, float]:
    from spraydry.stores.base import open_store

    store = open_store(url, read_only=True)
    began = clock()
    count = sum(1 for _ in store.list("frames"))
    took = clock() - began
    store.close()
    return {"s": took, "count": count}


def rebuild(url: str) -> dict[str, float]:
    from spraydry.repository.repository import Repository

    with Repository.open(url) as repository:
        began = clock()
        count = repository.reindex()
        return {"s": clock() - began, "frames": count}


def fill(url: str, frames: int, per_frame: int) -> dict[str, float]:
    """Through the repository's writer, as an ingest stores them; into a folder of files see `put_in_folder`."""
    from spraydry.format.digest import digest
    from spraydry.repository.repository import Repository
    from spraydry.repository.writer import Writer

    began = clock()
    with Repository.open(url, create=True) as repository:
        if url.startswith("dir:"):
            quicker = put_in_folder(url.removeprefix("dir:"), repository.store.put_many)
            repository.store.put_many = quicker  # type: ignore[method-assign]
        with Writer(repository, target_bytes=per_frame * CHUNK_BYTES) as writer:
            for number in range(frames * per_frame):
                plain = b"chunk %034d" % number
                writer.add(digest(plain), plain, "small", known=False)
            written = writer.finish()
        repository.store.flush()
    os.sync()
    if written.frames != frames:
        raise SystemExit(f"{written.frames} frames were made instead of {frames}")
    return {"s": clock() - began, "stored": written.stored_bytes}


PutMany = Callable[[str, Iterable[tuple[str, bytes]]], None]


def put_in_folder(path: str, put_many: PutMany) -> PutMany:
    """Frames as `dir:` lays them out, but made durable together, by a sync at the end: each by itself, a million took
    twenty minutes. All else as the store does it."""
    from spraydry.stores.shared.layout import read_layout

    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    layout = read_layout(folder, path, None)
    os.close(folder)
    made: set[str] = set()

    def put(namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        if namespace != "frames":
            put_many(namespace, values)
            return
        for name, value in values:
            nest = os.path.join(path, *layout.nests(namespace, name)[0])
            if nest not in made:
                os.makedirs(nest, mode=0o700, exist_ok=True)
                made.add(nest)
            file = os.open(os.path.join(nest, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(file, value)
            os.close(file)

    return put


# --- Stores


def write_values(url: str, plan: dict[str, int]) -> dict[str, float]:
    """Rates: MB/s of values of the size of frames, and small values a second, in batches as a writer makes them."""
    from spraydry.stores.base import open_store

    store = open_store(url, create=True)
    noise = random.Random(1).randbytes(32 << 20)
    took = written = 0.0
    for batch in batches(noise, plan):
        began = clock()
        with store.batch():
            store.put_many("frames", batch)
        took += clock() - began
        written += sum(len(value) for _, value in batch)
    names = value_names("small", plan["small"])
    began = clock()
    for at in range(0, len(names), 1000):
        with store.batch():
            store.put_many("index", [(name, noise[at : at + 200]) for name in names[at : at + 1000]])
    small = clock() - began
    store.flush()
    store.close()
    return {"append": written / took / 1e6, "append.small": len(names) / small}


def sizes(plan: dict[str, int]) -> list[int]:
    rng = random.Random(2)
    return [rng.randrange(16 << 10, 1 << 20) for _ in range(plan["values"])]


def batches(noise: bytes, plan: dict[str, int]) -> Iterator[list[tuple[str, bytes]]]:
    """Of 8 MiB, as the writer stores them."""
    batch: list[tuple[str, bytes]] = []
    held = 0
    for name, size in zip(value_names("frame", plan["values"]), sizes(plan), strict=True):
        at = int(name[:8], 16) % (len(noise) - size)
        batch.append((name, noise[at : at + size]))
        held += size
        if held >= 8 << 20:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def read_values(url: str, plan: dict[str, int], cold: bool) -> dict[str, float]:
    from spraydry.errors import ValueNotFound
    from spraydry.parallel import ordered_map
    from spraydry.stores.base import open_store

    store = open_store(url, read_only=True)
    known = dict(zip(value_names("frame", plan["values"]), sizes(plan), strict=True))
    rng = random.Random(3)
    order = rng.sample([*known], len(known))
    told: dict[str, float] = {}

    def drop() -> None:
        if cold:
            os.sync()
            with open("/proc/sys/vm/drop_caches", "w") as file:
                file.write("3")

    def whole(name: str) -> int:
        value = store.get("frames", name)
        if len(value) != known[name]:
            raise SystemExit(f"{name} has {len(value)} bytes instead of {known[name]}")
        return len(value)

    drop()
    began = clock()
    read = sum(map(whole, order))
    if cold:
        told["whole.cold"] = read / (clock() - began) / 1e6
        began = clock()
        read = sum(map(whole, order))
    told["whole"] = read / (clock() - began) / 1e6
    began = clock()
    read = sum(ordered_map(whole, order, 4))
    told["whole.threads"] = read / (clock() - began) / 1e6

    ranges = [(name, rng.randrange(known[name] - 4096)) for name in rng.choices(order, k=plan["ranges"])]
    for key in ["range.cold", "range"] if cold else ["range"]:
        if key == "range.cold":
            drop()
        began = clock()
        for name, at in ranges:
            if len(store.get("frames", name, at, 4096)) != 4096:
                raise SystemExit(f"{name} has no 4096 bytes at {at}")
        told[key] = len(ranges) / (clock() - began)

    small = rng.sample(value_names("small", plan["small"]), plan["small"])
    began = clock()
    for name in small:
        if len(store.get("index", name)) != 200:
            raise SystemExit(f"{name} has not 200 bytes")
    told["small"] = len(small) / (clock() - began)
    absent = value_names("absent", plan["small"])
    began = clock()
    for name in absent:
        try:
            store.get("frames", name)
        except ValueNotFound:
            continue
        raise SystemExit(f"{name} is there")
    told["absent"] = len(absent) / (clock() - began)
    began = clock()
    count = sum(1 for _ in store.list("index"))
    told["list"] = count / (clock() - began)
    store.close()
    if count != plan["small"]:
        raise SystemExit(f"{count} values are listed instead of {plan['small']}")
    return told


# --- Versions


def put(url: str, root: str, paths: list[str]) -> dict[str, float]:
    import io

    import spraydry

    with spraydry.open(url) as repository:
        for path in paths:
            spraydry.put(repository, root, path, io.BytesIO(b"changed"))
    return {"versions": len(paths)}


def diff_versions(url: str, addresses: list[str]) -> dict[str, float]:
    from spraydry.actions.diff import diff, sides
    from spraydry.repository.repository import Repository

    began = clock()
    repository = Repository.open(url, read_only=True)
    told = {"open_ms": (clock() - began) * 1e3}
    for key in ("first_ms", "again_ms"):
        began = clock()
        changes = list(diff(repository, *sides(repository, addresses)))
        told[key] = (clock() - began) * 1e3
    repository.close()
    told["files"] = sum(change.after is not None and "content" in change.aspects for change in changes)
    return told


def push(url: str, target: str, versions: list[str]) -> dict[str, float]:
    """The bytes that went there and came from there for each version (`up_v3`), the time, and what it takes in frames
    where it was made."""
    from spraydry.actions.transfer import transfer
    from spraydry.repository.repository import Repository

    told: dict[str, float] = {}
    with Repository.open(url) as source:
        for version in versions:
            with Repository.open(target, create=True, metered=True) as other:
                meter = other.opened.meter
                assert meter is not None
                before = meter.report()
                began = clock()
                transfer(source, other, [version])
                name = version.partition("@")[2]
                told[f"s_{name}"] = clock() - began
                told[f"up_{name}"] = sum(one.up_bytes for one in meter.report()) - sum(one.up_bytes for one in before)
                told[f"down_{name}"] = sum(one.down_bytes for one in meter.report()) - sum(
                    one.down_bytes for one in before
                )
                told[f"stored_{name}"] = source.resolve(version).version.record.stored_bytes
    return told


def destroy(url: str) -> dict[str, float]:
    from spraydry.errors import StoreNotFound
    from spraydry.stores.base import open_store

    with ExitStack() as stack:
        try:
            store = open_store(url)
        except StoreNotFound:
            return {}
        stack.callback(store.close)
        store.destroy()
    return {}


if __name__ == "__main__":
    told, kind, url, *arguments = sys.argv[1:]
    if kind == "open":
        answer = open_repository(url)
    elif kind == "list":
        answer = list_frames(url)
    elif kind == "rebuild":
        answer = rebuild(url)
    elif kind == "fill":
        answer = fill(url, int(arguments[0]), int(arguments[1]))
    elif kind == "write":
        answer = write_values(url, json.loads(arguments[0]))
    elif kind == "read":
        answer = read_values(url, json.loads(arguments[0]), arguments[1] == "1")
    elif kind == "put":
        answer = put(url, arguments[0], arguments[1:])
    elif kind == "push":
        answer = push(url, arguments[0], arguments[1:])
    elif kind == "diff":
        answer = diff_versions(url, arguments)
    else:
        answer = destroy(url)
    with open(told, "w") as file:
        json.dump(answer, file)
