"""Lazy clones: trees at once, contents when they are read; what they do without their origin, and when it is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.actions.recompress import recompress
from spraydry.actions.transfer import clone_lazily, complete, transfer, update
from spraydry.actions.verify import verify
from spraydry.errors import ChunkCorrupt, CorruptData, StoreFull, StoreUnavailable, UsageError, ValueNotFound
from spraydry.format.frame import encode
from spraydry.repository.repository import Repository
from spraydry.stores.over.lazy import Lazy
from tests.small_versions import read_all, small_versions
from tests.transfer.reading import check_same, moved, place
from tests.versions import make_version

TREE = {b"a": b"text " * 3000, b"folder": {b"b": b"other " * 2000, b"link": "x"}}


@pytest.fixture(params=["sqlite", "dir", "segment"])
def clone_url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return place(tmp_path, request.param, "clone")


def fill(repository: Repository, rng: random.Random) -> None:
    make_version(repository, "r", TREE)
    make_version(repository, "r", TREE | {b"noise": rng.randbytes(300_000)})


def cloned(repository: Repository, url: str, *names: str) -> None:
    with Repository.open(url, create=True) as clone:
        clone_lazily(repository, clone, names)


@pytest.fixture
def away(repository: Repository, tmp_path: Path) -> Iterator[Path]:
    """Where the origin's file can be put."""
    yield tmp_path / "away.sqlite"


def go(repository: Repository, to: Path) -> None:
    repository.store.flush()
    Path(repository.url).rename(to)


def test_trees_come_at_once_and_contents_when_they_are_read(
    repository: Repository, clone_url: str, away: Path, rng: random.Random
) -> None:
    fill(repository, rng)
    cloned(repository, clone_url)
    with Repository.open(clone_url, read_only=True) as clone:
        assert clone.opened.origin is not None
        assert [one.path for one in clone.walk("r@v2")] == [one.path for one in repository.walk("r@v2")]
        few = sum(stored.size for stored in clone.store.list("frames"))
        assert few < 5000
        with clone.open_file(clone.resolve("r@v1:a")) as stream:
            assert stream.read() == TREE[b"a"]
        some = sum(stored.size for stored in clone.store.list("frames"))
    go(repository, away)
    with Repository.open(clone_url, read_only=True) as clone:  # what was read once is there without the origin
        with clone.open_file(clone.resolve("r@v2:a")) as stream:
            assert stream.read() == TREE[b"a"]
        assert few < sum(stored.size for stored in clone.store.list("frames")) == some
        with pytest.raises(StoreUnavailable, match=r"what is not here yet is at .*repository.sqlite, which does not"):
            clone.open_file(clone.resolve("r@v2:noise")).read()
    away.rename(repository.url)
    with Repository.open(clone_url) as clone:
        check_same(repository, clone)


def test_verify_looks_at_what_is_here(repository: Repository, clone_url: str, rng: random.Random) -> None:
    fill(repository, rng)
    cloned(repository, clone_url)
    with Repository.open(clone_url) as clone:
        before = {stored.name for stored in clone.store.list("frames")}
        found = verify(clone)
        assert found.sound and found.at_origin > 0 and found.frames == len(before)
        assert {stored.name for stored in clone.store.list("frames")} == before


def test_what_is_here_can_be_told(repository: Repository, clone_url: str, rng: random.Random) -> None:
    fill(repository, rng)
    cloned(repository, clone_url)
    with Repository.open(clone_url) as clone:
        here = {stored.name for stored in clone.store.list("frames")}
        name = next(stored.name for stored in repository.store.list("frames") if stored.name not in here)
        assert clone.store.info("frames", name) is None
        with clone.store.uncached():
            with pytest.raises(ValueNotFound):
                clone.store.get("frames", name)
            assert dict(clone.store.get_many("frames", [name, *here]))[name] is None
        assert {stored.name for stored in clone.store.list("frames")} == here
        found = dict(clone.store.get_many("frames", [name, *here]))
        assert found[name] == repository.store.get("frames", name) == clone.store.get("frames", name)
        assert clone.store.get("frames", name, 4, 10) == found[name][4:14]


def test_an_ingest_stores_what_is_only_at_the_origin(
    repository: Repository, clone_url: str, tmp_path: Path, rng: random.Random
) -> None:
    small_versions(repository, tmp_path / "source", rng, 3)
    cloned(repository, clone_url)
    moved_path = tmp_path / "elsewhere.sqlite"
    go(repository, moved_path)  # and does not ask for it
    with Repository.open(clone_url) as clone:
        (tmp_path / "source" / "more").write_bytes(b"more" * 100)
        ingest(clone, [str(tmp_path / "source")], root="small")
        state = read_all(clone)
        assert state["more"] == b"more" * 100 and len(state) > 10
    with Repository.open(clone_url) as again:
        assert verify(again).sound


def test_new_versions_and_then_everything(
    repository: Repository, clone_url: str, tmp_path: Path, rng: random.Random
) -> None:
    fill(repository, rng)
    cloned(repository, clone_url, "r@v1")
    make_version(repository, "s", {b"new": rng.randbytes(50_000)})
    with Repository.open(clone_url) as clone:
        done = update(repository, clone)
        assert done.versions == ["r@v2", "s@v1"] and done.sent_bytes < 3000
        with clone.open_file(clone.resolve("s:new")) as stream:
            assert len(stream.read()) == 50_000
        make_version(repository, "s", {b"newer": rng.randbytes(60_000)})
        told = complete(repository, clone, dry_run=True)
        done = complete(repository, clone)
        assert told.versions == done.versions == ["s@v2"]
        assert done.sent_bytes > 350_000
    repository.store.flush()
    Path(repository.url).unlink()
    with Repository.open(clone_url) as whole:
        assert whole.opened.origin is None
        found = verify(whole)
        assert found.sound and not found.at_origin
        assert len(read_all(whole, "s")) == 1 and len(read_all(whole, "r")) == 3


def test_only_some_is_completed(repository: Repository, clone_url: str, rng: random.Random) -> None:
    fill(repository, rng)
    make_version(repository, "s", {b"x": rng.randbytes(50_000)})
    cloned(repository, clone_url)
    with Repository.open(clone_url) as clone:
        complete(repository, clone, ["s"])
    with Repository.open(clone_url) as clone:
        assert clone.opened.origin is not None
        with clone.store.uncached():
            assert len(read_all(clone, "s")) == 1


def test_frames_that_the_origin_does_not_have_any_more(
    repository: Repository, clone_url: str, tmp_path: Path, rng: random.Random
) -> None:
    small_versions(repository, tmp_path / "source", rng, 20)
    cloned(repository, clone_url)
    assert recompress(repository).old_frames
    with Repository.open(clone_url) as clone:
        with pytest.raises(ChunkCorrupt, match=r"neither here nor at .*repository.sqlite any more.*pull --lazy"):
            read_all(clone)
        update(repository, clone)
        assert read_all(clone) == read_all(repository)


def test_an_origin_that_gives_wrong_bytes(repository: Repository, clone_url: str, rng: random.Random) -> None:
    fill(repository, rng)
    cloned(repository, clone_url)
    for stored in repository.store.list("frames"):
        repository.store.put("frames", stored.name, encode([rng.randbytes(1000)], "other").stored)
    with Repository.open(clone_url) as clone:
        before = {stored.name for stored in clone.store.list("frames")}
        with pytest.raises(CorruptData, match="damaged at"):
            clone.open_file(clone.resolve("r@v2:noise")).read()
        assert {stored.name for stored in clone.store.list("frames")} == before


def test_another_repository_in_the_place_of_the_origin(
    repository: Repository, tmp_path: Path, away: Path, rng: random.Random
) -> None:
    fill(repository, rng)
    url = str(tmp_path / "clone.sqlite")
    cloned(repository, url)
    go(repository, away)
    Repository.open(repository.url, create=True).close()
    with Repository.open(url) as clone, pytest.raises(StoreUnavailable, match="another repository there now"):
        clone.open_file(clone.resolve("r@v2:noise")).read()


def test_a_clone_that_cannot_keep_what_it_reads(
    repository: Repository, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(repository, rng)
    url = str(tmp_path / "clone.sqlite")
    cloned(repository, url)
    with Repository.open(url) as clone:
        lazy = clone.store
        assert isinstance(lazy, Lazy)

        def full(*_: object) -> None:
            raise StoreFull("no room is left")

        monkeypatch.setattr(lazy.inner, "put_many", full)
        check_same(repository, clone)


def test_lazy_clones_lie_on_this_machine_and_are_not_recompressed(
    repository: Repository, tmp_path: Path, rng: random.Random
) -> None:
    fill(repository, rng)
    with Repository.open("memory:", create=True) as far, pytest.raises(UsageError, match="on one store of this mach"):
        clone_lazily(repository, far)
    url = str(tmp_path / "clone.sqlite")
    cloned(repository, url)
    with Repository.open(url) as clone, pytest.raises(UsageError, match="spraydry pull"):
        recompress(clone)


def test_a_clone_of_a_clone_is_whole(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    fill(repository, rng)
    url = str(tmp_path / "clone.sqlite")
    cloned(repository, url)
    with Repository.open(url) as clone, Repository.open(str(tmp_path / "b.sqlite"), create=True, metered=True) as other:
        up, _ = moved(other, lambda: transfer(clone, other))
        assert up > 300_000
        check_same(repository, other)
        assert verify(other).sound
