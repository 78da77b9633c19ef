"""The catalog: look-ups, levels, trust, forgetting."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row
from spraydry.repository import chunk_rows
from spraydry.repository.catalog import Catalog
from spraydry.repository.chunk_rows import Place
from spraydry.stores.database.database import Database


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(Database(str(tmp_path / "catalog"), "", create=True))
    yield opened
    opened.close()


def info(number: int) -> FrameInfo:
    return FrameInfo(digest(b"frame %d" % number), "other", 0, 3, None, 1 << 20, 1 << 20)


def chunk(number: int) -> bytes:
    return digest(b"chunk %d" % number)


def test_levels_agree_with_a_dict(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_rows, "_FIRST_LEVEL_ROWS", 16)
    rng = random.Random(1)
    model: dict[bytes, set[Place]] = defaultdict(set)
    for turn in range(60):
        frames = [info(turn * 10 + number) for number in range(rng.randrange(1, 4))]
        rows = []
        for place, frame in enumerate(frames):
            for number in rng.sample(range(3000), rng.choice((1, 5, 20, 300))):
                rows.append(Row(chunk(number), place, number, 7))
                model[chunk(number)].add(Place(frame.name, number, 7))
        catalog.add_run(f"run-{turn}", frames, rows, verified=True)
    assert catalog.chunks.rows_count() == sum(map(len, model.values()))
    counts = [catalog.database.rows(f"SELECT count(*) FROM chunk_{level}")[0][0] for level in range(5)]
    assert sum(counts) == catalog.chunks.rows_count()
    assert all(count <= 16 << 3 * level for level, count in enumerate(counts[:4])), counts
    assert sum(count > 0 for count in counts) >= 3, "the control: several levels are in use"
    assert dict(catalog.database.rows("SELECT level, rows FROM level WHERE rows > 0")) == {
        level: count for level, count in enumerate(counts) if count
    }
    for number in range(0, 3000, 7):
        assert set(catalog.chunks.locate(chunk(number))) == model.get(chunk(number), set())
    every = [chunk(number) for number in range(3000)]
    assert catalog.chunks.known(every) == set(model)
    assert catalog.chunks.known(every[:1]) == set(every[:1]) & set(model)
    assert catalog.chunks.known([]) == set()
    assert [frame for _, frame in catalog.frames()] == [
        frame for frame in (info(number) for number in range(600)) if catalog.has_frame(frame.name)
    ]


def test_newest_place_first(catalog: Catalog) -> None:
    for number in range(3):
        catalog.add_run(f"{number}", [info(number)], [Row(chunk(1), 0, number, 5)], verified=True)
    assert [place.offset for place in catalog.chunks.locate(chunk(1))] == [2, 1, 0]


def test_only_verified_rows_count_for_deduplication(catalog: Catalog) -> None:
    catalog.add_run("theirs", [info(1)], [Row(chunk(1), 0, 0, 5)], verified=False)
    assert catalog.chunks.locate(chunk(1)) and not catalog.chunks.known([chunk(1)])
    catalog.add_run("mine", [info(2)], [Row(chunk(1), 0, 9, 5)], verified=True)
    assert [place.frame for place in catalog.chunks.locate(chunk(1))] == [info(2).name, info(1).name]
    assert catalog.chunks.known([chunk(1)])


def test_verifying_a_frame_does_not_trust_what_was_said_of_it(catalog: Catalog) -> None:
    """A run may claim chunks of a frame that are not in it; that must not make them known, ever."""
    lie = Row(chunk(666), 0, 0, 5)
    catalog.add_run("theirs", [info(1)], [Row(chunk(1), 0, 0, 5), lie], verified=False)
    catalog.add_run("decoded", [info(1)], [Row(chunk(1), 0, 0, 5)], verified=True)
    assert catalog.chunks.known([chunk(1), chunk(666)]) == {chunk(1)}
    catalog.add_run("theirs again", [info(1)], [lie], verified=False)
    assert catalog.chunks.known([chunk(1), chunk(666)]) == {chunk(1)}
    assert catalog.chunks.locate(chunk(666)) == []


def test_what_is_forgotten_is_not_known(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_rows, "_FIRST_LEVEL_ROWS", 16)
    for number in range(20):
        catalog.add_run(f"{number}", [info(number)], [Row(chunk(number * 10 + n), 0, 0, 5) for n in range(10)], True)
    catalog.forget_frames([info(0).name, info(19).name, digest(b"unheard of")])
    assert catalog.chunks.known([chunk(number) for number in range(200)]) == {
        chunk(number) for number in range(10, 190)
    }
    assert not catalog.has_frame(info(0).name) and catalog.has_frame(info(1).name)
    # A new frame never gets the rows of an old one.
    catalog.add_run("new", [info(100)], [Row(chunk(500), 0, 0, 5)], True)
    assert catalog.chunks.locate(chunk(0)) == [] and catalog.chunks.locate(chunk(195)) == []


def test_the_same_run_twice_changes_nothing(catalog: Catalog) -> None:
    for _ in range(2):
        catalog.add_run("run", [info(1)], [Row(chunk(1), 0, 0, 5), Row(chunk(1), 0, 50, 5)], True)
    assert catalog.chunks.rows_count() == 1 and len(catalog.chunks.locate(chunk(1))) == 1
    assert catalog.runs() == {"run"}


def test_small_things(catalog: Catalog) -> None:
    assert catalog.chunks.is_empty() and catalog.chunks.rows_count() == 0 and catalog.usage() == []
    assert catalog.state("head") is None
    catalog.remember("head", b"1")
    catalog.remember("head", b"2")
    assert catalog.state("head") == b"2"
    catalog.add_run("a", [info(1), info(2)], [Row(chunk(1), 0, 0, 5)], True)
    assert not catalog.chunks.is_empty()
    assert [(usage.frames, usage.plain) for usage in catalog.usage()] == [(2, 2 << 20)]
    catalog.replace_runs(["a"], "b")
    assert catalog.runs() == {"b"}
    catalog.clear()
    assert catalog.chunks.is_empty() and catalog.chunks.locate(chunk(1)) == [] and catalog.runs() == set()


def test_a_run_that_fails_leaves_nothing(catalog: Catalog) -> None:
    def rows() -> Iterator[Row]:
        yield Row(chunk(1), 0, 0, 5)
        raise CorruptData("damaged")

    with pytest.raises(CorruptData):
        catalog.add_run("run", [info(1)], rows(), True)
    assert catalog.chunks.is_empty() and not catalog.has_frame(info(1).name) and catalog.runs() == set()
