"""Hoards from one repository to another: push, pull, bundles, lazy clones; what the other side has meanwhile."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.actions.transfer import bundle, clone_lazily, complete, transfer
from spraydry.actions.verify import verify
from spraydry.errors import Conflict, HoardNotFound, KeyExists
from spraydry.repository.repository import Repository
from tests.versions import make_version


def content(seed: int, size: int = 100_000) -> bytes:
    return random.Random(seed).randbytes(size)


KEYS = {"a": content(1), "b/c": content(2), "d": content(3, 600_000), "empty": b""}


@pytest.fixture
def hoard(repository: Repository) -> Hoard:
    hoard = Hoard("h", repository=repository)
    for key, plain in KEYS.items():
        hoard[key] = plain
    return hoard


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(f"dir:{tmp_path}/target", create=True) as opened:
        yield opened


def held(repository: Repository, name: str = "h") -> dict[str, bytes]:
    hoard = Hoard(name, repository=repository)
    return {key: hoard[key].read() for key in hoard}


@pytest.mark.parametrize("folded", [False, True], ids=["changes", "checkpoint"])
def test_everything_goes(hoard: Hoard, target: Repository, folded: bool) -> None:
    if folded:
        checkpoint(hoard.repository, "h")
    make_version(hoard.repository, "root", {b"f": content(1)})
    Hoard("other", repository=hoard.repository)["x"] = b"y"
    foretold = transfer(hoard.repository, target, dry_run=True)
    assert held(target) == {} and target.roots() == []
    done = transfer(hoard.repository, target)
    assert [(one.hoard, one.keys) for one in done.hoards] == [("h", 4), ("other", 1)]
    assert [(one.hoard, one.keys) for one in foretold.hoards] == [("h", 4), ("other", 1)]
    assert held(target) == KEYS and held(target, "other") == {"x": b"y"} and target.roots() == ["root"]
    before, after = hoard.find("a"), Hoard("h", repository=target).find("a")
    assert before == after
    again = transfer(hoard.repository, target)
    assert again.sent_bytes == 0 and [(one.keys, one.existing) for one in again.hoards] == [(0, 4), (0, 1)]
    assert verify(target).sound


def test_only_what_is_named_goes(hoard: Hoard, target: Repository) -> None:
    make_version(hoard.repository, "root", {b"f": b"x"})
    transfer(hoard.repository, target, ["root"])
    assert target.roots() == ["root"] and not target.log.hoards.names()
    transfer(hoard.repository, target, hoards=["h"])
    assert held(target) == KEYS
    with pytest.raises(HoardNotFound):
        transfer(hoard.repository, target, hoards=["nothing"])


def test_what_names_something_else_there(hoard: Hoard, target: Repository) -> None:
    transfer(hoard.repository, target)
    there = Hoard("h", repository=target)
    hoard["a"] = content(11)  # newer here: it goes
    there["b/c"] = content(12)  # newer there: it stays
    del hoard["empty"]  # only there: it stays
    there["only there"] = b"1"
    done = transfer(hoard.repository, target).hoards[0]
    assert (done.keys, done.updated, done.existing, done.newer) == (0, 1, 1, 1)
    expected = KEYS | {"a": content(11), "b/c": content(12), "only there": b"1"}
    assert held(target) == expected
    hoard["d"], there["d"], hoard["new"] = content(13), content(14), b"new"  # neither knows the other's
    with pytest.raises(KeyExists, match="h/d names something else there: nothing was"):
        transfer(hoard.repository, target)
    assert held(target) == expected | {"d": content(14)}
    transfer(hoard.repository, target, overwrite=True)
    assert held(target) == expected | {"b/c": KEYS["b/c"], "d": content(13), "new": b"new"}
    back = transfer(target, hoard.repository).hoards[0]
    assert (back.keys, back.updated) == (2, 0) and held(hoard.repository) == held(target)


def meanwhile(target: Repository, monkeypatch: pytest.MonkeyPatch, *changes: Callable[[Hoard], object]) -> None:
    """Let others make the first change just before a transfer first commits keys, the next just before the next."""
    committing, left = target.committing, list(changes)

    def late() -> object:
        if sys._getframe(1).f_code.co_name == "append_whole" and left:
            with Repository.open(target.url) as other, Hoard("h", repository=other) as hoard:
                left.pop(0)(hoard)
        return committing()

    monkeypatch.setattr(target, "committing", late)


def folded(hoard: Hoard) -> None:
    checkpoint(hoard.repository, "h")


@pytest.mark.parametrize(
    "change",
    [
        lambda there: there.update({"d": b"of others"}),
        lambda there: there.clear(),
        lambda there: (there.update({"d": b"of others"}), folded(there)),
    ],
    ids=["put", "cleared", "put and folded"],
)
@pytest.mark.parametrize("part", [2, 10], ids=["while those before it are sent", "while it is sent"])
def test_what_others_put_meanwhile_stays(
    hoard: Hoard,
    target: Repository,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Hoard], object],
    part: int,
) -> None:
    transfer(hoard.repository, target)
    for key in ("a", "b/c", "d"):
        hoard[key] = content(20)
    monkeypatch.setattr("spraydry.actions.transfer.hoards._TOGETHER", part)
    meanwhile(target, monkeypatch, change)
    with pytest.raises(Conflict, match="keys of 'h' were changed meanwhile: run it again"):
        transfer(hoard.repository, target)
    assert held(target).get("d") in (None, b"of others")


@pytest.mark.parametrize("part", [2, 10], ids=["while those before it are sent", "while it is sent"])
def test_another_push_of_the_same_meanwhile(
    hoard: Hoard, target: Repository, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr("spraydry.actions.transfer.hoards._TOGETHER", part)
    there = target.url
    with Repository.open(hoard.repository.url) as source:

        def pushed(hoard: Hoard) -> None:
            transfer(source, hoard.repository)
            folded(hoard)

        meanwhile(target, monkeypatch, pushed)
        transfer(hoard.repository, target)
    with Repository.open(there) as again:
        assert held(again) == KEYS and verify(again).sound


def test_bundles(hoard: Hoard, target: Repository, tmp_path: Path) -> None:
    bundle(hoard.repository, str(tmp_path / "b"), [], hoards=["h"])
    with Repository.open(str(tmp_path / "b")) as packed:
        assert held(packed) == KEYS
        transfer(packed, target)
    assert held(target) == KEYS


def test_lazy_clones(hoard: Hoard, tmp_path: Path) -> None:
    path = str(tmp_path / "lazy.sqlite")
    with Repository.open(path, create=True) as clone:
        clone_lazily(hoard.repository, clone)
    with Repository.open(path) as clone:
        assert Hoard("h", repository=clone)["a"].read() == KEYS["a"]
        complete(hoard.repository, clone)
    hoard.clear()
    with Repository.open(path) as clone:
        assert clone.opened.origin is None and held(clone) == KEYS and verify(clone).sound
