"""The writer: one batch is stored while the next is made, and an error of the store ends it."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from spraydry.errors import StoreError, StoreFull
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.repository import writer as writers
from spraydry.repository.local import open_catalog
from spraydry.repository.opening import Opened, read_config
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.stores.base import Traits
from spraydry.stores.memory import MemoryStore

CHUNK_BYTES = 10_000
BATCH = 5  # chunks that fill a batch, each a frame of its own


class Gated(MemoryStore):
    """A store far away. Frames are stored when the gate lets them, a batch for each release; what comes is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.traits = Traits(1, 0.02)
        self.gate = threading.Semaphore(1000)
        self.entered = threading.Semaphore(0)
        self.inside = self.most = self.batches = 0
        self.full_at: int | None = None  # of the batches, counted from 1
        self.events: list[tuple[str, str]] = []

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        if namespace != "frames":
            super().put_many(namespace, self._noted(namespace, values))
            return
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.batches += 1
        self.entered.release()
        try:
            assert self.gate.acquire(timeout=120), "the writer waits for a batch instead of making the next one"
            if self.batches == self.full_at:
                raise StoreFull("no room is left")
            super().put_many(namespace, self._noted(namespace, values))
        finally:
            self.inside -= 1

    def _noted(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for name, value in values:
            yield name, value
            self.events.append((namespace, name))

    def close(self) -> None:
        """It is there for whoever opens it next."""


@pytest.fixture
def store() -> Gated:
    return Gated()


@pytest.fixture
def repository(store: Gated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    monkeypatch.setattr(writers, "_FAR_TIMES", 1)
    monkeypatch.setattr(writers, "_BATCH_BYTES", BATCH * CHUNK_BYTES)
    monkeypatch.setattr(writers, "_RUN_BYTES", BATCH * CHUNK_BYTES)
    with opened(store) as repository:
        yield repository


def opened(store: Gated) -> Repository:
    config = read_config(store, True)
    found = Opened(store, config, None)
    return Repository(found, open_catalog(found), "memory:", 1 << 20)


def add(writer: Writer, rng: random.Random, chunks: int) -> list[bytes]:
    plains = [rng.randbytes(CHUNK_BYTES) for _ in range(chunks)]
    for plain in plains:
        writer.add(digest(plain), plain, "other", known=False)
    return [digest(plain) for plain in plains]


def test_the_next_batch_is_made_while_one_is_stored(repository: Repository, store: Gated, rng: random.Random) -> None:
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=1) as writer:
        store.gate = threading.Semaphore(0)
        names = add(writer, rng, 2 * BATCH + 1)  # the last ones are still being encoded: the second batch is not full
        assert store.entered.acquire(timeout=120) and store.inside == 1
        assert writer.unknown(names) == set()
        store.gate.release()
        names += add(writer, rng, BATCH)  # the first one has landed, the second one is on its way
        assert store.entered.acquire(timeout=120) and store.inside == 1
        assert writer.unknown(names) == set()
        store.gate.release(1000)
        names += add(writer, rng, 10 * BATCH)
        written = writer.finish()
    assert store.most == 1 and store.batches >= 12
    assert (written.frames, written.chunks) == (len(names), len(names))
    assert written.stored_bytes == sum(stored.size for stored in store.list("frames"))
    assert repository.catalog.chunks.known(names) == set(names)
    for name in names:
        assert digest(repository.read_chunk(name)) == name


def test_no_run_before_its_frames(repository: Repository, store: Gated, rng: random.Random) -> None:
    """Whatever is stored when: a run is written behind every frame it names, and `finish` leaves nothing to come."""
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=2) as writer:
        for chunks in (1, 3 * BATCH, 2 * BATCH - 1):
            names = add(writer, rng, chunks)
            writer.finish()
            assert store.inside == 0
            there = len(store.events)
            assert all(repository.catalog.chunks.locate(name) for name in names)
            with opened(store) as other:
                assert not other.damaged_runs
                assert all(other.catalog.chunks.locate(name) for name in names)
            assert len(store.events) == there
    stored: set[str] = set()
    indexed = 0
    for namespace, name in store.events:
        if namespace == "frames":
            stored.add(name)
        else:
            frames = frames_of(store, name)
            assert frames <= stored
            indexed += len(frames)
    assert indexed == len(stored) == 5 * BATCH


def frames_of(store: Gated, run: str) -> set[str]:
    infos, _ = decode_run(store.get("index", run))
    return {info.name.hex() for info in infos}


def test_an_error_while_storing_ends_it(repository: Repository, store: Gated, rng: random.Random) -> None:
    """The error is the store's; what was durable before is published by `keep`, and nothing else."""
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=1) as writer:
        store.full_at = 3
        with pytest.raises(StoreFull, match="no room is left"):
            add(writer, rng, 20 * BATCH)
        assert store.batches == 3
        with pytest.raises(StoreError, match="storing failed before"):
            writer.finish()
        writer.keep()
    frames = {stored.name for stored in store.list("frames")}
    indexed = {info.name.hex() for _, info in repository.catalog.frames()}
    assert indexed == frames and len(frames) == writer.written.frames == 2 * BATCH
    with opened(store) as other:
        assert {info.name.hex() for _, info in other.catalog.frames()} == frames


def test_an_error_in_the_last_batch(repository: Repository, store: Gated, rng: random.Random) -> None:
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=1) as writer:
        names = add(writer, rng, 2)
        store.full_at = 1
        with pytest.raises(StoreFull):
            writer.finish()
    assert repository.catalog.chunks.known(names) == set()


def test_kept_while_a_batch_is_on_its_way(repository: Repository, store: Gated, rng: random.Random) -> None:
    """As after an interrupt: what is on its way lands, and counts."""
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=1) as writer:
        store.gate = threading.Semaphore(0)
        names = add(writer, rng, 2 * BATCH)
        assert store.entered.acquire(timeout=120)
        threading.Timer(0.05, store.gate.release, [1000]).start()
        writer.keep()
    assert repository.catalog.chunks.known(names) == set(names)


def test_kept_when_what_is_on_its_way_fails(repository: Repository, store: Gated, rng: random.Random) -> None:
    with Writer(repository, target_bytes=CHUNK_BYTES, threads=1) as writer:
        kept = add(writer, rng, BATCH)
        writer.finish()
        store.full_at = store.batches + 1
        lost = add(writer, rng, 2 * BATCH)
        writer.keep()
    assert repository.catalog.chunks.known(kept) == set(kept)
    assert repository.catalog.chunks.known(lost) == set()
