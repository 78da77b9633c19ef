"""Pushes and pulls while gc runs on either side, again and again: nothing that was committed is lost."""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.collect import gc
from spraydry.actions.remove import remove
from spraydry.actions.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.errors import SprayDryError, UsageError
from spraydry.repository.repository import Repository
from tests.transfer.reading import check_same, place
from tests.versions import make_version


def fill(url: str, rng: random.Random) -> None:
    with Repository.open(url, create=True) as source:
        shared = {b"%d" % number: rng.randbytes(4000) for number in range(6)}
        for _ in range(8):
            make_version(source, "r", {**shared, b"own": rng.randbytes(9000), b"same": b"same" * 900})


def test_a_push_right_after_everything_was_collected(tmp_path: Path, rng: random.Random) -> None:
    """The frames had their names once: they come back under others."""
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "dir", "there")
    fill(here, rng)
    with Repository.open(here) as source, Repository.open(there, create=True) as target:
        transfer(source, target, ["r@v1"])
        before = {stored.name for stored in target.store.list("frames")}
        remove(target, ["r@v1"])
        assert gc(target, grace_ns=0).deleted_frames == len(before)
        transfer(source, target, ["r"], root="again")
        after = {stored.name for stored in target.store.list("frames")}
        assert not before & after
        for number in range(1, 9):
            assert (
                target.log.find("again", f"v{number}").record.entry == source.log.find("r", f"v{number}").record.entry
            )
    with Repository.open(there) as target:
        assert verify(target).sound


def test_a_push_of_what_is_condemned_and_waits(tmp_path: Path, rng: random.Random) -> None:
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "dir", "there")
    fill(here, rng)
    with Repository.open(here) as source, Repository.open(there, create=True) as target:
        transfer(source, target, ["r@v1"])
        remove(target, ["r@v1"])
        assert gc(target).condemned_frames
        transfer(source, target, ["r"], root="again")
        gc(target, grace_ns=0)
    with Repository.open(here) as source, Repository.open(there) as target:
        assert verify(target).sound
        assert len(target.versions("again")) == 8


def collected_before_each_commit(
    target: Repository, collector: Repository, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """How many frames each collection deleted, which comes just before each commit."""
    committing, collected = target.committing, []

    def late() -> object:
        if sys._getframe(1).f_code.co_name == "append_whole":
            collector.refresh()
            collected.append(gc(collector, grace_ns=0).deleted_frames)
        return committing()

    monkeypatch.setattr(target, "committing", late)
    return collected


def test_a_push_under_which_all_is_collected_before_each_commit(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends again is listed from the first, so that it does not go on like that."""
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "dir", "there")
    fill(here, rng)
    with (
        Repository.open(here) as source,
        Repository.open(there, create=True) as target,
        Repository.open(there) as collector,
    ):
        collected = collected_before_each_commit(target, collector, monkeypatch)
        transfer(source, target)
        assert collected[0] > 0, "the control"
        check_same(source, target)
        assert verify(target).sound


@pytest.mark.parametrize("known", [False, True], ids=["all of it is sent", "some of it is known there"])
def test_a_push_of_keys_under_which_all_is_collected_before_each_commit(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Keys are sent again as versions are: also what was there, and was taken for known, until it was deleted."""
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "dir", "there")
    keys = {f"k{number}": rng.randbytes(9000) for number in range(6)}
    monkeypatch.setattr("spraydry.actions.transfer.hoards._TOGETHER", 4)
    with (
        Repository.open(here, create=True) as source,
        Repository.open(there, create=True) as target,
        Repository.open(there) as collector,
    ):
        with Hoard("h", repository=source) as hoard, hoard.transaction() as change:
            for key, plain in keys.items():
                change.put(plain, key)
        if known:
            make_version(target, "r", {b"f": keys["k1"]})
            remove(target, ["r@v1"])
        collected = collected_before_each_commit(target, collector, monkeypatch)
        (done,) = transfer(source, target, hoards=["h"]).hoards
        assert collected[0] > 0 and len(collected) > 2, "the control"
        assert (done.keys, done.existing) == (6, 0)
        with Hoard("h", repository=target) as hoard:
            assert {key: hoard[key].read() for key in hoard} == keys
        assert verify(target).sound


@pytest.mark.parametrize("kind", ["sqlite", "dir", "segment"])
def test_pushes_while_the_target_is_collected(tmp_path: Path, rng: random.Random, kind: str) -> None:
    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, kind, "there")
    fill(here, rng)
    ended = threading.Event()
    troubles: list[str] = []

    def collects() -> None:
        while not ended.is_set():
            try:
                with Repository.open(there) as target:
                    gc(target, grace_ns=0, below=1.0)
            except SprayDryError as error:
                if not error.retryable:
                    troubles.append(str(error))

    with Repository.open(there, create=True):
        pass
    collecting = threading.Thread(target=collects)
    collecting.start()
    try:
        with Repository.open(here) as source:
            for number in range(1, 9):
                with Repository.open(there) as target:
                    transfer(source, target, [f"r@v{number}"])
                    if number % 3 == 2:
                        remove(target, [f"r@v{number}"])
    finally:
        ended.set()
        collecting.join()
    assert not troubles
    with Repository.open(here) as source, Repository.open(there) as target:
        check_same(source, target, *(f"r@v{number}" for number in range(1, 9) if number % 3 != 2))
        gc(target, grace_ns=0)
        assert verify(target).sound


def test_a_source_that_is_collected_after_a_removal(tmp_path: Path, rng: random.Random) -> None:
    """The lease of the transfer keeps what it reads, though its version is removed meanwhile."""
    here, there = place(tmp_path, "dir", "here"), place(tmp_path, "sqlite", "there")
    fill(here, rng)
    struck: list[int] = []

    def collected(_: object) -> None:
        if not struck:
            with Repository.open(here) as other:
                remove(other, ["r@v8"])
                struck.append(gc(other, grace_ns=0).deleted_frames)

    with Repository.open(here) as source, Repository.open(there, create=True) as target:
        transfer(source, target, ["r@v8"], report=collected)
        assert struck == [0]
        assert target.log.find("r", "v8").record.entry == source.log.named_in(8).record.entry
    with Repository.open(there) as target:
        assert verify(target).sound


def test_a_lazy_clone_is_not_collected(tmp_path: Path, rng: random.Random) -> None:
    from spraydry.actions.transfer import clone_lazily, complete

    here, there = place(tmp_path, "sqlite", "here"), place(tmp_path, "sqlite", "there")
    fill(here, rng)
    with Repository.open(here) as source, Repository.open(there, create=True) as target:
        clone_lazily(source, target)
    with Repository.open(here) as source, Repository.open(there) as clone:
        with pytest.raises(UsageError, match="spraydry pull"):
            gc(clone)
        complete(source, clone)
    with Repository.open(here) as source, Repository.open(there) as whole:
        remove(whole, [f"r@v{number}" for number in range(1, 8)])
        gc(whole, grace_ns=0)
        check_same(source, whole, "r@v8")
        assert verify(whole).sound
