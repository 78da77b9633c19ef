"""Reading files of several chunks and holes."""

from __future__ import annotations

import random

import pytest

from spraydry.errors import CorruptData
from spraydry.format.entry import Runs
from spraydry.mount import contents
from spraydry.mount.contents import Contents
from spraydry.repository.address import resolve
from spraydry.repository.repository import Repository
from tests.versions import make_version


def made(repository: Repository, plain: bytes) -> Runs:
    make_version(repository, "r", {b"f": plain})
    runs = resolve(repository, "r:f").entry.content
    assert isinstance(runs, Runs)
    return runs


def test_any_range_of_a_file_with_holes(
    repository: Repository, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_WINDOW_BYTES", 300_000)
    monkeypatch.setattr(contents, "_KEPT_SPANS", 8)
    plain = rng.randbytes(200_000) + bytes(1_500_000) + rng.randbytes(100_000) + bytes(70_000)
    runs = made(repository, plain)
    reader = Contents(repository.read_chunk)
    for _ in range(300):
        start = rng.randrange(len(plain))
        stop = start + rng.choice([1, 4096, 131072, 1 << 20])
        assert b"".join(reader.read(runs, len(plain), start, stop)) == plain[start:stop]
    assert reader.read(runs, len(plain), len(plain), len(plain) + 10) == []


def test_a_chunk_of_another_length_is_damage(repository: Repository, rng: random.Random) -> None:
    plain = rng.randbytes(200_000)
    runs = made(repository, plain)

    def short(digest: bytes) -> memoryview:
        chunk = repository.read_chunk(digest)
        return chunk if digest == runs.manifest else chunk[:-1]

    with pytest.raises(CorruptData, match="manifest"):
        Contents(short).read(runs, len(plain), 0, 10)
