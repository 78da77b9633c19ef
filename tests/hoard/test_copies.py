"""A hoard with a number of copies of its own, over several stores."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.repository.repository import Repository
from tests.repositories import caller


@pytest.fixture
def stores(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three stores, one copy of each frame, but three of those of the hoard `h`."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    monkeypatch.setenv("SPRAYDRY_REPO", f"dir:{folders[0]}")
    spraydry = caller(capsys)
    spraydry("init")
    for folder in folders[1:]:
        spraydry("store", "add", f"dir:{folder}")
    spraydry("store", "copies", "--of", "hoard-h=3")
    return folders


def lose(stores: list[Path]) -> None:
    """All frames of some stores are gone."""
    for store in stores:
        for folder, _, files in os.walk(store / "frames"):
            for file in files:
                os.unlink(os.path.join(folder, file))


def test_each_store_has_all_of_it(stores: list[Path], rng: random.Random) -> None:
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
