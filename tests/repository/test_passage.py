"""Chunks read one after another: right, whatever order they lie in, and whatever became of their frames."""

from __future__ import annotations

import random

import pytest

from spraydry.errors import ChunkCorrupt, ChunkNotFound, CorruptData
from spraydry.format.digest import digest
from spraydry.repository.passage import Passage
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer


def stored(repository: Repository, rng: random.Random, count: int) -> list[bytes]:
    """Chunks in frames of several."""
    chunks = [rng.randbytes(rng.randrange(1000, 40_000)) for _ in range(count)]
    with Writer(repository, target_bytes=100_000) as writer:
        for chunk in chunks:
            writer.add(digest(chunk), chunk, "other", part=True)
        writer.finish()
    return chunks


def wanted(chunks: list[bytes]) -> list[tuple[bytes, int]]:
    return [(digest(chunk), len(chunk)) for chunk in chunks]


def test_any_order(repository: Repository, rng: random.Random) -> None:
    chunks = stored(repository, rng, 60)
    gone = 0
    get = repository.store.get

    def counted(namespace: str, *arguments: object) -> bytes:
        nonlocal gone
        gone += namespace == "frames"
        return get(namespace, *arguments)  # type: ignore[arg-type]

    repository.store.get = counted  # type: ignore[method-assign, assignment]
    assert list(map(bytes, Passage(repository).read(wanted(chunks)))) == chunks
    assert gone == repository.catalog.frames_count()  # each frame once
    for _ in range(3):
        mixed = rng.choices(chunks, k=80)
        repository.read_chunk(digest(mixed[0]))  # some are in memory
        assert list(map(bytes, Passage(repository).read(wanted(mixed)))) == mixed
    assert Passage(repository).read([]) == []


def test_never_wrong_bytes(repository: Repository, rng: random.Random) -> None:
    chunks = stored(repository, rng, 20)
    frame = repository.catalog.chunks.locate(digest(chunks[5]))[0].frame.hex()
    damaged = bytearray(repository.store.get("frames", frame))
    damaged[-10] ^= 1  # in its last chunk
    repository.store.put("frames", frame, bytes(damaged))
    inside = [chunk for chunk in chunks if repository.catalog.chunks.locate(digest(chunk))[0].frame.hex() == frame]
    assert list(map(bytes, Passage(repository).read(wanted(inside[:-1])))) == inside[:-1]
    with pytest.raises(ChunkCorrupt):
        Passage(repository).read(wanted(inside))
    repository.store.delete("frames", [frame])
    with pytest.raises(ChunkCorrupt):
        Passage(repository).read(wanted(chunks))
    with pytest.raises(ChunkNotFound):
        Passage(repository).read([(bytes(32), 5)])
    with pytest.raises(CorruptData):
        Passage(repository).read([(digest(chunks[0]), len(chunks[0]) + 1)])
