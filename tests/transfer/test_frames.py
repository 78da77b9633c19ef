"""What goes over: frames as they are, pieces of others, dictionaries; and never under a name that was condemned."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.recompress import recompress
from spraydry.actions.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.version import CondemnRecord, RevokeRecord
from spraydry.repository.dictionaries import adopt, keep, shipped
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer, Written
from spraydry.stores.base import Store
from spraydry.stores.over.throttle import Throttle
from tests.small_versions import small_versions
from tests.transfer.reading import check_same
from tests.versions import make_version


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(str(tmp_path / "target.sqlite"), create=True, metered=True) as opened:
        yield opened


def names(repository: Repository) -> set[str]:
    return {stored.name for stored in repository.store.list("frames")}


def condemn(repository: Repository, *condemned: str) -> int:
    slot, _ = repository.log.append(
        lambda previous, now: CondemnRecord(
            format=1,
            previous=previous,
            made_ns=now,
            made_by="test",
            frames=tuple(map(bytes.fromhex, sorted(condemned))),
        )
    )
    return slot


def test_frames_are_copied_as_they_are(
    repository: Repository, target: Repository, tmp_path: Path, rng: random.Random
) -> None:
    small_versions(repository, tmp_path / "source", rng, 6)
    transfer(repository, target)
    assert names(target) == names(repository)
    check_same(repository, target)


def test_of_frames_that_many_versions_share_only_what_one_needs_is_sent(
    repository: Repository, target: Repository, tmp_path: Path, rng: random.Random
) -> None:
    small_versions(repository, tmp_path / "source", rng, 20)
    transfer(repository, target, [f"small@v{number}" for number in range(1, 20)])
    assert recompress(repository).old_frames > 20
    whole = sum(usage.stored for usage in repository.catalog.usage())
    done = transfer(repository, target, ["small@v20"])
    stored = repository.log.find("small", "v20").record.stored_bytes
    assert done.sent_bytes <= stored * 1.1 < whole / 3
    assert not names(target) & names(repository) or done.frames
    check_same(repository, target)
    assert verify(target).sound


def test_all_versions_together_take_merged_frames_as_they_are(
    repository: Repository, target: Repository, tmp_path: Path, rng: random.Random
) -> None:
    small_versions(repository, tmp_path / "source", rng, 20)
    recompress(repository)
    done = transfer(repository, target)
    assert names(target) == names(repository)
    assert done.sent_bytes == sum(usage.stored for usage in repository.catalog.usage())


def test_a_dictionary_goes_before_the_frames_that_need_it(
    repository: Repository, target: Repository, tmp_path: Path, rng: random.Random
) -> None:
    dictionary = next(one for one in shipped() if one.frame_class == "json").load()
    keep(repository, dictionary)
    adopt(repository, {"json": dictionary.digest}, "test")
    small_versions(repository, tmp_path / "source", rng, 2)
    assert any(usage.dictionary for usage in repository.catalog.usage())
    transfer(repository, target)
    assert [stored.name for stored in target.store.list("dictionaries")] == [dictionary.digest.hex()]
    assert names(target) == names(repository)
    check_same(repository, target)


@pytest.mark.parametrize("revoked", [False, True])
def test_the_name_of_a_condemned_frame_never_comes_back(
    repository: Repository, target: Repository, rng: random.Random, revoked: bool
) -> None:
    make_version(repository, "a", {b"x": rng.randbytes(50_000), b"y": b"y" * 9000})
    condemned = sorted(names(repository))
    slot = condemn(target, *condemned[:-1])
    if revoked:
        target.log.append(
            lambda previous, now: RevokeRecord(format=1, previous=previous, made_ns=now, made_by="test", slot=slot)
        )
    transfer(repository, target)
    assert names(target) & names(repository) == {condemned[-1]}
    assert len(names(target)) == len(condemned)
    check_same(repository, target)
    assert verify(target).sound


def test_what_is_condemned_meanwhile_is_sent_again(
    repository: Repository, target: Repository, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(repository, "a", {b"x": rng.randbytes(50_000)})
    make_version(repository, "a", {b"x": rng.randbytes(50_000), b"z": b"z"})
    transfer(repository, target, ["a@v1"])
    finish = Writer.finish
    struck: list[str] = []

    def collected_just_then(writer: Writer) -> Written:
        written = finish(writer)
        if not struck:
            with Repository.open(target.url) as collector:
                struck.extend(sorted(names(collector)))
                condemn(collector, *struck)
                collector.store.delete("frames", struck)
        return written

    monkeypatch.setattr(Writer, "finish", collected_just_then)
    transfer(repository, target, ["a@v2"])
    assert len(struck) == 4 and not names(target) & set(struck)
    check_same(repository, target, "a@v2")


def test_a_limit_holds_the_other_side_back(repository: Repository, rng: random.Random) -> None:
    make_version(repository, "a", {b"x": rng.randbytes(100_000)})

    def over(store: Store) -> Store:
        return Throttle(store, 0.0, 200_000, 200_000)

    with Repository.open("memory:", create=True, over=over) as slow:
        began = time.monotonic()
        transfer(repository, slow)
        assert time.monotonic() - began > 0.4
        check_same(repository, slow)


def test_a_salted_frame_is_the_same_under_another_name() -> None:
    made = frames.encode([b"x" * 1000, b"abc"], "other", salt=bytes(16))
    anew = frames.salted(made.stored)
    assert anew.name == digest(anew.stored) != made.name
    assert frames.decode(anew.stored, lambda _: pytest.fail("no dictionary is needed")) == frames.decode(
        made.stored, lambda _: pytest.fail("no dictionary is needed")
    )
    assert frames.salted(made.stored, bytes(16)) == made
