"""Where space goes: what each entry takes, compared with du, and over how many frames a file lies."""

from __future__ import annotations

import random

import pytest

from spraydry.actions.du import du
from spraydry.actions.progress import Done
from spraydry.actions.space import largest, space
from spraydry.actions.spread import spread
from spraydry.repository.repository import Repository
from tests.versions import make_version


@pytest.fixture
def filled(repository: Repository, rng: random.Random) -> Repository:
    """Two versions and another root: what is shared among entries, versions, roots, and what is not."""
    shared, own, twice, old = (rng.randbytes(50_000) for _ in range(4))
    first = {
        b"a": {b"own": own, b"shared": shared},
        b"b": {b"shared": shared, b"twice": twice},
        b"c": twice,
        b"d": {b"deep": {b"er": rng.randbytes(90_000)}},
        b"e": b"",
        b"link": "a/somewhere/that/takes/bytes",
    }
    make_version(repository, "r", {**first, b"old": old})
    make_version(repository, "r", {**first, b"new": rng.randbytes(200_000), b"other": {b"x": b"same" * 9000}})
    make_version(repository, "elsewhere", {b"x": own})
    alone, both, nephew = (rng.randbytes(40_000) for _ in range(3))
    make_version(
        repository,
        "solo",
        {b"a": {b"1": both, b"2": alone}, b"b": {b"3": both, b"in": {b"4": nephew}}, b"c": nephew, b"d": {b"5": both}},
    )
    return repository


@pytest.mark.parametrize("address", ["r", "r@v1", "r:a", "r:d", "solo", "solo:a", "solo:b"])
def test_each_entry_takes_what_du_says(filled: Repository, address: str) -> None:
    found = filled.resolve(address)
    entries = largest(filled, found, 20).entries
    parts = space(filled, found, entries)
    assert [part.entry for part in parts] == entries
    for part in parts:
        path = b"/".join(name for name in (found.path, part.entry.name) if name).decode()
        used = du(filled, [f"{found.version}:{path}"])
        assert part.apparent_bytes == used.apparent_bytes
        assert abs(part.stored_bytes - used.stored_bytes) <= 2
        assert abs(part.exclusive_bytes - used.exclusive_stored_bytes) <= 2


def test_what_is_not_shown_counts_as_there(filled: Repository) -> None:
    found = filled.resolve("r@v2")
    some = largest(filled, found, 2)
    whole = {part.entry.name: part for part in space(filled, found, largest(filled, found, 20).entries)}
    for part in space(filled, found, some.entries):
        assert part == whole[part.entry.name]
    assert [entry.name for entry in some.entries] == [b"new", b"a"]
    assert some.others == 6
    assert some.others_bytes == found.entry.totals.size - 300_000
    assert largest(filled, found, 20).others_bytes == 0  # a symlink is no file


def test_work_stops_where_the_report_says_so(filled: Repository) -> None:
    class Enough(Exception):
        pass

    def report(_: Done) -> None:
        raise Enough

    found = filled.resolve("r")
    with pytest.raises(Enough):
        space(filled, found, largest(filled, found, 9).entries, report)
    with pytest.raises(Enough):
        spread(filled, filled.resolve("r:new").entry, 100, report)


def test_over_how_many_frames_a_file_lies(filled: Repository) -> None:
    told = spread(filled, filled.resolve("r:new").entry, 1000)
    assert (told.chunks, told.plain_bytes, told.missing, told.whole) == (4, 200_000, 0, True)
    assert told.frames >= 1 and 100_000 < told.stored_bytes < 210_000
    assert told.classes == ("other",) and told.dictionaries == ()
    same = spread(filled, filled.resolve("r:other/x").entry, 1000)
    assert 0 < same.stored_bytes < same.plain_bytes
    assert spread(filled, filled.resolve("r:e").entry, 1000).chunks == 0


def test_of_a_long_file_only_the_beginning_is_looked_up(repository: Repository) -> None:
    holes = b"\0" * 65536
    make_version(repository, "long", {b"f": b"".join(b"%d" % at * 16384 + holes for at in range(4000, 4600))})
    entry = repository.resolve("long:f").entry
    told = spread(repository, entry, 500)
    assert not told.whole and 500 <= told.chunks < 2000 and told.hole_bytes > 0
    assert spread(repository, entry, 10**6).whole
