"""Damage in what hoards hold: named down to the key, had from elsewhere, checkpoints made again from the log."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.actions.repair import repair
from spraydry.actions.verify import verify
from spraydry.errors import CorruptData, SprayDryError
from spraydry.repository.repository import Repository


def content(seed: int, size: int = 100_000) -> bytes:
    return random.Random(seed).randbytes(size)


KEYS = {"a": content(1), "b/c": content(2), "d": content(3, 600_000)}


def filled(path: str, folded: bool) -> None:
    with Repository.open(path, create=True) as repository:
        hoard = Hoard("h", repository=repository)
        for key, plain in KEYS.items():
            hoard[key] = plain
        if folded:
            hoard.put_many((f"z/{n}", b"") for n in range(1200))
            checkpoint(repository, "h")


def lose(repository: Repository, chunk: bytes) -> None:
    """Delete all frames that hold a chunk."""
    for place in repository.catalog.chunks.locate(chunk):
        repository.store.delete("frames", [place.frame.hex()])


def content_of(hoard: Hoard, key: str) -> bytes:
    found = hoard.find(key)
    assert found is not None
    content = found.entry.content
    return content if isinstance(content, bytes) else content.manifest  # type: ignore[union-attr]


@pytest.mark.parametrize("folded", [False, True], ids=["changes", "checkpoint"])
@pytest.mark.parametrize("key", ["a", "b/c", "d"])
def test_damage_is_named_and_mended(repository_path: str, tmp_path: Path, folded: bool, key: str) -> None:
    filled(repository_path, folded)
    copy = str(tmp_path / "copy.sqlite")
    shutil.copy(repository_path, copy)
    with Repository.open(repository_path) as repository:
        hoard = Hoard("h", repository=repository)
        lose(repository, content_of(hoard, key))
        found = verify(repository)
        assert not found.sound and found.hoards == 1
        assert {(one.where, one.is_key) for one in found.damage} == {(b"h/" + key.encode(), True)}
        with pytest.raises(SprayDryError):
            hoard[key].read()
        assert not repair(repository, write=True).whole
        done = repair(repository, write=True, remotes=[copy])
        assert done.whole and done.had
        assert {key: hoard[key].read() for key in KEYS} == KEYS and verify(repository).sound


def test_from_the_original_files(repository_path: str, tmp_path: Path) -> None:
    filled(repository_path, True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "moved").write_bytes(KEYS["d"])
    with Repository.open(repository_path) as repository:
        hoard = Hoard("h", repository=repository)
        lose(repository, content_of(hoard, "d"))
        assert repair(repository, write=True, sources=[str(tmp_path / "files")]).whole
        assert hoard["d"].read() == KEYS["d"] and verify(repository).sound


def test_a_checkpoint_is_made_again_from_the_log(repository_path: str) -> None:
    filled(repository_path, True)
    with Repository.open(repository_path) as repository:
        hoard = Hoard("h", repository=repository)
        hoard["later"] = b"x"
        base = repository.log.hoards.view("h").base
        assert base is not None
        pages = list(repository.tree(base.content).pages())  # type: ignore[arg-type]
        assert len(pages) > 2
        for page in pages:
            lose(repository, page)
    with Repository.open(repository_path) as repository:
        hoard = Hoard("h", repository=repository)
        with pytest.raises(SprayDryError):
            list(hoard)
        assert {one.version for one in verify(repository).damage} == {"h"}
        done = repair(repository, write=True)
        assert done.whole and "the log" in done.had
        assert len(list(hoard)) == 1204 and hoard["b/c"].read() == KEYS["b/c"]
        assert verify(repository).sound


def test_the_catalog_is_made_again(repository_path: str) -> None:
    filled(repository_path, True)
    with Repository.open(repository_path) as repository:
        repository.rebuild_catalog()
        hoard = Hoard("h", repository=repository)
        assert {key: hoard[key].read() for key in KEYS} == KEYS and len(hoard) == 1203


def test_a_flipped_record_ends_the_log_and_is_told(repository_path: str) -> None:
    filled(repository_path, False)
    with Repository.open(repository_path) as repository:
        value = bytearray(repository.store.get("log", f"{2:012}"))
        value[40] ^= 1
        repository.store.put("log", f"{2:012}", bytes(value))
    with pytest.raises(CorruptData, match="slot 2"):
        Repository.open(repository_path)
