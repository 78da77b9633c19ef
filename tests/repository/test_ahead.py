"""Reading files from front to back from a store that is far away."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from spraydry.errors import ChunkCorrupt
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from tests.far_store import Far, opened
from tests.versions import make_version

LARGE = random.Random(7).randbytes(8 << 20)
TOGETHER = 4


@pytest.fixture
def far() -> Far:
    store = Far(TOGETHER)
    with opened(store) as repository:
        make_version(repository, "r", {b"large": LARGE})
    return store


@pytest.fixture
def repository(far: Far) -> Iterator[Repository]:
    with opened(far, 64 << 20) as repository:
        yield repository


def frames_of(repository: Repository) -> list[bytes]:
    """The frame of each chunk of the file, of which only the manifest is read."""
    entry = repository.resolve("r:large").entry
    names = [span.chunk for span in spans(entry, repository.read_chunk)]
    return [repository.catalog.chunks.locate(name)[0].frame for name in names if name is not None]


def test_as_many_frames_at_a_time_as_the_store_is_good_for(far: Far, repository: Repository) -> None:
    frames = frames_of(repository)
    loads = len(set(frames))
    assert loads >= 2 * TOGETHER and len(frames) >= 2 * loads
    assert loads % TOGETHER == 0, "or the last would wait for others that never come"
    with far.answering(TOGETHER, "frames"):
        parts = list(read_ahead(repository, repository.resolve("r:large").entry))
    assert b"".join(bytes(chunk or b"") for _, chunk in parts) == LARGE
    assert far.asked == loads, "each frame once"


def test_bytes_before_and_behind_a_damaged_frame(far: Far, repository: Repository) -> None:
    frames = frames_of(repository)
    broken = frames[len(frames) // 2]
    first, count = frames.index(broken), frames.count(broken)
    held = bytearray(far.get("frames", broken.hex()))
    held[len(held) // 2] ^= 1
    far.put("frames", broken.hex(), bytes(held))
    spans_of = list(spans(repository.resolve("r:large").entry, repository.read_chunk))
    begin, end = spans_of[first].offset, spans_of[first + count].offset
    with repository.open_file("r:large", ahead=True) as file:
        assert file.read(begin) == LARGE[:begin]
        for _ in range(2):  # the second time as the first: no zeros, no end of the file
            with pytest.raises(ChunkCorrupt):
                file.read(1)
        file.seek(end)
        assert file.read() == LARGE[end:]
        file.seek(begin - 5)
        assert file.read(5) == LARGE[begin - 5 : begin]
