"""Sorted indexes and merging: what is there is found, with any memory; what is not there mostly without reading."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.segments.files import File
from spraydry.segments.index import SortedIndex, key_hash, write_sorted
from spraydry.segments.layout import SORTED, VALUE, Damaged, IndexHeader, Row, pack_row, row_of
from spraydry.segments.merge import Block, merged
from spraydry.segments.segments import Segments
from tests.segments.folders import key

PLENTY = 1 << 30


class CountingFile(File):
    """Counts how often it is read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.reads = 0

    def read(self, size: int, at: int) -> bytes:
        self.reads += 1
        return super().read(size, at)


def names(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return sorted({b"frames\0" + rng.randbytes(rng.randrange(4, 33)).hex().encode() for _ in range(count)})


def row(name: bytes) -> Row:
    return Row(VALUE, 1, 1, 1000, len(name), name[:16].ljust(16))


def made(folder: Path, keys: list[bytes], memory_bytes: int = PLENTY) -> str:
    path = str(folder / "00000001.index")
    packed = [pack_row(row(name), name) for name in keys]
    blocks: list[Block] = [(keys[at : at + 100], packed[at : at + 100]) for at in range(0, len(keys), 100)]
    write_sorted(path, blocks, IndexHeader(SORTED, 1, 1, max(map(len, keys))), len(keys), memory_bytes)
    return path


@pytest.mark.parametrize("memory_bytes", [PLENTY, 10_000, 100, 0])
def test_what_is_there_is_found_with_any_memory(tmp_path: Path, memory_bytes: int) -> None:
    keys = names(5000, 1)
    index = SortedIndex(File(made(tmp_path, keys)), memory_bytes)
    held = sum(len(fence) + 48 for fence in index._fences) + len(index._filter)
    assert held <= max(memory_bytes, 200)  # one key is kept in any case
    for name in keys:
        found = index.find(name, key_hash(name))
        assert found is not None and row_of(found) == row(name)
    for name in names(2000, 2):
        assert index.find(name, key_hash(name)) is None or name in keys
    for after in (b"", keys[0], keys[63], keys[64], keys[2500], keys[-1], b"frames\0", b"g"):
        assert [name for some, _ in index.blocks(after) for name in some] == [name for name in keys if name > after]
    assert index.last(b"frames\0") == keys[-1] and index.last(b"g") is None


def test_the_filter_spares_reading(tmp_path: Path) -> None:
    keys = names(5000, 1)
    for limit, least, most in ((PLENTY, 0, 150), (9000, 4000, 5000)):  # 1.4 % and all of 5000
        file = CountingFile(made(tmp_path, keys, limit))
        index = SortedIndex(file, PLENTY)
        file.reads = 0
        for name in names(5000, 2):
            index.find(name, key_hash(name))
        assert least <= file.reads <= most


def test_a_changed_bit_in_the_filter_is_noticed(tmp_path: Path) -> None:
    """It would deny what is there."""
    path = Path(made(tmp_path, names(500, 1)))
    content = bytearray(path.read_bytes())
    for at in range(len(content) - 1000, len(content), 50):
        content[at] ^= 4
        path.write_bytes(content)
        with pytest.raises(Damaged):
            SortedIndex(File(str(path)), PLENTY)
        content[at] ^= 4


@given(st.lists(st.dictionaries(st.binary(min_size=1, max_size=2), st.binary(max_size=1)), max_size=5), st.data())
def test_merging(sources: list[dict[bytes, bytes]], data: st.DataObject) -> None:
    """Of each key the newest row, in order, however the sources are cut into blocks."""
    expected: dict[bytes, bytes] = {}
    for source in reversed(sources):
        expected |= source

    def cut(source: dict[bytes, bytes]) -> Iterator[Block]:
        keys = sorted(source)
        while keys:
            size = data.draw(st.integers(1, 4))
            yield keys[:size], [source[name] for name in keys[:size]]
            keys = keys[size:]

    found = [
        pair for keys, rows in merged([cut(source) for source in sources]) for pair in zip(keys, rows, strict=True)
    ]
    assert found == sorted(expected.items())


def test_little_index_memory(tmp_path: Path) -> None:
    """Whatever the indexes may take, segments hold the same."""
    held = {key(number): b"%d" % number for number in range(3000)}
    with_little = Segments(str(tmp_path), create=True, max_file_size=20_000, index_memory=1000)
    with_little.put_many(held.items())
    with_little.delete([key(7)])
    del held[key(7)]
    with_little.close()
    for index_memory in (0, 1000, PLENTY):
        segments = Segments(str(tmp_path), index_memory=index_memory)
        assert {name: segments.get(name) for name, _ in segments.rows(b"")} == held
        assert segments.find(key(7)) is None and segments.find(key("other")) is None
        segments.close()
