"""Sources that lie, and sources that are damaged: the target never takes wrong bytes, and keeps what was whole."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from spraydry.actions.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.errors import CorruptData, NotFound, SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Subtree
from spraydry.format.run import Row
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from tests.transfer.reading import check_same
from tests.versions import make_version, plain_entry


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(str(tmp_path / "target.sqlite"), create=True) as opened:
        yield opened


def lie(repository: Repository, says: bytes, plain: bytes) -> None:
    """Let the index say that the chunk `says` is `plain`."""
    made = frames.encode([plain], "other")
    repository.store.put("frames", made.name.hex(), made.stored)
    info = frame_info(made.name, made.header, len(made.stored))
    repository.catalog.add_run(None, [info], [Row(says, 0, 0, len(plain))], verified=True)


def test_an_index_that_lies_gives_no_wrong_bytes(repository: Repository, target: Repository) -> None:
    good, bad = b"good" * 1000, b"evil" * 1000
    make_version(repository, "a", {b"x": good})
    lie(repository, digest(good), bad)
    transfer(repository, target)
    check_same(repository, target)
    assert verify(target).sound


def test_what_no_frame_has_ends_the_transfer(repository: Repository, target: Repository, rng: random.Random) -> None:
    make_version(repository, "a", {b"x": b"whole" * 100})
    lost = rng.randbytes(3000)
    make_version(repository, "a", {b"x": lost})
    for place in repository.catalog.chunks.locate(digest(lost)):
        repository.store.delete("frames", [place.frame.hex()])
    lie(repository, digest(lost), b"evil" * 750)
    with pytest.raises((CorruptData, NotFound)):
        transfer(repository, target)
    assert [version.name for version in target.versions("a")] == ["v1"]
    check_same(repository, target, "a@v1")
    assert verify(target).sound
    assert not target.catalog.chunks.known([digest(lost)])


@pytest.mark.parametrize("how", ["flip", "cut", "other", "gone"])
def test_damaged_frames(repository: Repository, target: Repository, rng: random.Random, how: str) -> None:
    plain = rng.randbytes(20_000)
    make_version(repository, "a", {b"x": b"text " * 100, b"y": plain})
    name = repository.catalog.chunks.locate(digest(plain))[0].frame.hex()
    value = repository.store.get("frames", name)
    if how == "gone":
        repository.store.delete("frames", [name])
    else:
        wrong = {
            "flip": value[:-9] + bytes([value[-9] ^ 4]) + value[-8:],
            "cut": value[:-5],
            "other": frames.encode([rng.randbytes(20_000)], "other").stored,
        }[how]
        repository.store.put("frames", name, wrong)
    with pytest.raises(SprayDryError):
        transfer(repository, target)
    assert target.log.head[0] == 0
    again = frames.encode([b"text " * 100, plain], "other")
    repository.store.put("frames", again.name.hex(), again.stored)  # another frame has it after all
    info = frame_info(again.name, again.header, len(again.stored))
    rows = [Row(digest(b"text " * 100), 0, 0, 500), Row(digest(plain), 0, 500, len(plain))]
    repository.catalog.add_run(None, [info], rows, verified=True)
    with Repository.open(repository.url) as fresh:
        transfer(fresh, target)
        check_same(fresh, target)
    assert verify(target).sound


def test_a_frame_under_a_name_that_is_not_its_own(repository: Repository, target: Repository) -> None:
    """Its chunks are right all the same."""
    make_version(repository, "a", {b"x": b"text " * 100})
    for stored in list(repository.store.list("frames")):
        repository.store.put("frames", stored.name, frames.salted(repository.store.get("frames", stored.name)).stored)
    transfer(repository, target)
    check_same(repository, target)
    assert verify(target).sound


def test_a_tree_that_names_itself_over_and_over_is_walked_once(repository: Repository, target: Repository) -> None:
    """Sixty levels, each with the one below twice: 2^60 paths."""
    version = make_version(repository, "seed", {b"f": b"content"})
    below = version.record.entry
    for _ in range(30):
        assert isinstance(below.content, Subtree)
        directory = plain_entry(b"d", DIRECTORY, below.content, 0, mode=0o755)
        below = make_version(repository, "deep", {b"a": directory, b"b": directory}).record.entry
    transfer(repository, target)
    assert target.log.find("deep").record.entry == below


def test_a_record_that_claims_other_totals_is_refused(repository: Repository, target: Repository) -> None:
    entry = make_version(repository, "a", {b"x": b"x" * 100}).record.entry
    assert isinstance(entry.content, Subtree)
    make_version(repository, "b", {}, content=msgspec.structs.replace(entry.content, size=5))
    with pytest.raises(CorruptData, match="totals"):
        transfer(repository, target)
    assert target.log.find("a").name == "v1" and target.log.roots() == ["a"]
