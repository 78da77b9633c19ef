"""Transfers between two repositories: what arrives, what is sent, and under which names."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.remove import remove
from spraydry.actions.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.errors import RootNotFound, UsageError, VersionExists, VersionNotFound
from spraydry.format.version import TagRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from tests.transfer.reading import check_same, moved, place
from tests.versions import make_version

KINDS = ("sqlite", "dir", "segment")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(str(tmp_path / "target.sqlite"), create=True, metered=True) as opened:
        yield opened


def versions(repository: Repository, rng: random.Random) -> None:
    """photos@v1 to v3 and music@v1, and a tag."""
    tree = {
        b"a": rng.randbytes(3000),
        b"big": rng.randbytes(200_000) + bytes(200_000),
        b"deep": {b"er": {b"x": b"x" * 5000, b"link": "x"}},
    }
    make_version(repository, "photos", tree)
    make_version(repository, "photos", tree | {b"new": rng.randbytes(2000)})
    make_version(repository, "music", {b"song": rng.randbytes(100_000), b"cover": tree[b"a"]})
    tag(repository, "photos", "first", 1)
    make_version(repository, "photos", tree)


def tag(repository: Repository, root: str, name: str, slot: int) -> None:
    repository.log.append(
        lambda previous, now: TagRecord(
            format=RECORD_FORMAT, previous=previous, made_ns=now, made_by="test", root=root, name=name, slot=slot
        )
    )


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_every_version_reads_the_same_there(tmp_path: Path, rng: random.Random, here: str, there: str) -> None:
    with Repository.open(place(tmp_path, here, "here"), create=True) as source:
        versions(source, rng)
        with Repository.open(place(tmp_path, there, "there"), create=True) as target:
            done = transfer(source, target)
            assert done.versions == ["photos@v1", "photos@first", "photos@v2", "music@v1", "photos@v3"]
            assert done.sent_bytes == sum(usage.stored for usage in source.catalog.usage())
            check_same(source, target)
            assert target.log.find("photos").name == "v3"
            assert target.log.find("photos", "first").made_in == target.log.find("photos", "v1").made_in
        with Repository.open(place(tmp_path, there, "there")) as again:
            assert verify(again).sound
            check_same(source, again)


def test_what_is_there_is_not_sent_again(repository: Repository, target: Repository, rng: random.Random) -> None:
    versions(repository, rng)
    transfer(repository, target, ["photos@v1"])
    up, _ = moved(target, lambda: transfer(repository, target, ["photos"]))
    assert up < 2000 + 8000
    done = []
    up, _ = moved(target, lambda: done.append(transfer(repository, target)))
    assert done[0].versions == ["music@v1"]
    assert done[0].existing == ["photos@v1", "photos@first", "photos@v2", "photos@v3"]
    assert 100_000 < up < 104_000
    assert moved(target, lambda: transfer(repository, target))[0] == 0
    check_same(repository, target)


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(
    repository: Repository, target: Repository, rng: random.Random
) -> None:
    versions(repository, rng)
    transfer(repository, target, ["music"])
    told = []
    assert moved(target, lambda: told.append(transfer(repository, target, dry_run=True)))[0] == 0
    assert target.log.roots() == ["music"]
    done = transfer(repository, target)
    assert told[0].versions == done.versions
    assert done.sent_bytes * 0.9 < told[0].sent_bytes <= done.sent_bytes * 1.1


def test_names_taken_by_something_else_are_all_told_before_anything_is_sent(
    repository: Repository, target: Repository, rng: random.Random
) -> None:
    versions(repository, rng)
    make_version(target, "photos", {b"other": b"1" * 100}, name="v2")
    make_version(target, "photos", {b"other": b"2" * 100}, name="first")
    for dry_run in (True, False):
        with pytest.raises(
            VersionExists, match=r"photos@first, photos@v2 are there with other content.*--root"
        ) as told:
            transfer(repository, target, dry_run=dry_run)
        assert told.value.exit_code == 5
    assert target.log.head[0] == 2
    assert moved(target, lambda: transfer(repository, target, ["photos"], root="mine"))[0] > 200_000
    assert [version.name for version in target.log.versions("mine")] == ["v1", "first", "v2", "v3"]


def test_what_was_removed_there_stays_away(repository: Repository, target: Repository, rng: random.Random) -> None:
    versions(repository, rng)
    transfer(repository, target)
    remove(target, ["photos@v2"])
    make_version(repository, "photos", {b"newest": b"n" * 1000})
    done = transfer(repository, target)
    assert (done.versions, done.removed) == (["photos@v4"], ["photos@v2"])


def test_a_version_whose_first_name_is_gone_comes_under_its_other(
    repository: Repository, target: Repository, rng: random.Random
) -> None:
    versions(repository, rng)
    remove(repository, ["photos@v1"])
    assert transfer(repository, target, ["photos@first"]).versions == ["photos@first"]
    check_same(repository, target, "photos@first")
    assert transfer(repository, target, ["photos"]).versions == ["photos@v2", "photos@v3"]
    assert target.log.find("photos").name == "v3"


def test_a_further_name_is_a_tag_there_too(repository: Repository, target: Repository, rng: random.Random) -> None:
    versions(repository, rng)
    transfer(repository, target, ["photos@v1"])
    assert transfer(repository, target, ["photos@first"]).versions == ["photos@first"]
    assert isinstance(target.log.records[-1], TagRecord)
    check_same(repository, target, "photos@first")


@pytest.mark.parametrize(
    ("names", "root", "error"),
    [
        (["video"], None, RootNotFound),
        (["photos@v9"], None, VersionNotFound),
        (["photos:a"], None, UsageError),
        ([""], None, UsageError),
        (["photos", "music"], "both", UsageError),
        (["photos"], "no/name", UsageError),
    ],
)
def test_names_that_cannot_be_sent(
    repository: Repository,
    target: Repository,
    rng: random.Random,
    names: list[str],
    root: str | None,
    error: type[Exception],
) -> None:
    versions(repository, rng)
    with pytest.raises(error):
        transfer(repository, target, names, root=root)
    assert target.log.head[0] == 0
