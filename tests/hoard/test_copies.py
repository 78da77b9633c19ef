"""A hoard with a number of copies of its own, over several stores."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.repository.repository import Repository
from tests.repositories import Run, caller


@pytest.fixture
def stores(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three stores, one copy of each frame."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{folders[0]}")
    spraydry = caller(capsys)
    spraydry("init")
    for folder in folders[1:]:
        spraydry("store", "add", f"dir:{folder}")
    return folders


@pytest.fixture
def spraydry(capsys: pytest.CaptureFixture[str], stores: list[Path]) -> Run:
    return caller(capsys)


def lose(stores: list[Path]) -> None:
    """All frames of some stores are gone."""
    for store in stores:
        for folder, _, files in os.walk(store / "frames"):
            for file in files:
                os.unlink(os.path.join(folder, file))


def test_each_store_has_all_of_it(stores: list[Path], rng: random.Random, spraydry: Run) -> None:
    spraydry("store", "copies", "--of", "hoard-h=3")
    held = {"small": rng.randbytes(3000), "large": rng.randbytes(900_000), "shared": rng.randbytes(3000)}
    with Repository.open(f"dir:{stores[0]}") as repository:
        others = Hoard("others", repository=repository)
        others["x"] = held["shared"]  # known already, but with fewer copies
        hoard = Hoard("h", repository=repository)
        for key, plain in held.items():
            hoard[key] = plain
        with hoard.transaction() as change, open(__file__, "rb") as file:
            change.put(file, "source")
        held["source"] = Path(__file__).read_bytes()
        hoard.put_many([("many", b"many")])
        held["many"] = b"many"
        checkpoint(repository, "h")
    lose(stores[:2])
    with Repository.open(f"dir:{stores[0]}") as repository:
        hoard = Hoard("h", repository=repository)
        assert {key: hoard[key].read() for key in hoard} == held


@pytest.mark.parametrize("verb", ["heal", "rebalance"])
def test_what_was_put_before_follows(stores: list[Path], rng: random.Random, spraydry: Run, verb: str) -> None:
    """In frames of other classes, and shared with what has fewer copies."""
    held = {f"{number}": rng.randbytes(5000) for number in range(50)} | {"long": rng.randbytes(3 << 20), "empty": b""}
    with Repository.open(f"dir:{stores[0]}") as repository:
        hoard, others = Hoard("h", repository=repository), Hoard("others", repository=repository)
        hoard.put_many(held.items())
        hoard["gone"] = rng.randbytes(1 << 20)
        others.put_many((name, rng.randbytes(300_000)) for name in ("a", "b", "c"))
        checkpoint(repository, "h")
        hoard["after"] = held["after"] = b"the checkpoint"
        del hoard["gone"]
    spraydry("store", "copies", "--of", "hoard-h=3")
    command = [verb] if verb == "heal" else ["store", verb]
    planned, done, again = (
        json.loads(spraydry(*command, *more, "--json")[1]) for more in (["--dry-run"], [], ["--dry-run"])
    )
    assert planned["copied"] == done["copied"] > 4 and again["copied"] == again["removed"] == 0
    lose(stores[:2])
    with Repository.open(f"dir:{stores[0]}") as repository:
        assert {key: hoard_key.read() for key, hoard_key in Hoard("h", repository=repository).items()} == held


def test_a_hoard_that_cannot_be_read_is_told_of(stores: list[Path], spraydry: Run) -> None:
    with Repository.open(f"dir:{stores[0]}") as repository:
        Hoard("h", repository=repository)["a"] = random.randbytes(3 << 20)
    spraydry("store", "copies", "--of", "hoard-h=3")
    lose(stores)
    _, out, _ = spraydry("heal", "--json", code=7)
    assert "what the hoard h needs cannot be told" in out
