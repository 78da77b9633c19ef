"""Bundles: made whole or not at all, read as they are, taken in; relative ones; cut short and flipped ones."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.transfer import bundle, transfer
from spraydry.actions.verify import verify
from spraydry.errors import SprayDryError, StoreReadOnly, UsageError, VersionNotFound
from spraydry.repository.repository import Repository
from tests.transfer.reading import check_same, kept, shown
from tests.versions import make_version


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with Repository.open(str(tmp_path / "target.sqlite"), create=True) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "carried.bundle")


def fill(repository: Repository, rng: random.Random) -> None:
    tree = {b"a": rng.randbytes(30_000), b"big": rng.randbytes(150_000), b"d": {b"x": b"x" * 5000}}
    make_version(repository, "r", tree)
    make_version(repository, "r", tree | {b"new": rng.randbytes(10_000)})
    make_version(repository, "s", {b"y": rng.randbytes(20_000), b"a": tree[b"a"]})


def test_a_bundle_is_one_file_that_reads_alone(repository: Repository, path: str, rng: random.Random) -> None:
    fill(repository, rng)
    made = bundle(repository, path, ["r", "s@v1"])
    assert made.transferred.versions == ["r@v1", "r@v2", "s@v1"] and made.file_bytes == os.path.getsize(path)
    before = Path(path).read_bytes()
    for read_only in (True, False):
        with Repository.open(path, read_only=read_only) as carried:
            check_same(repository, carried)
            assert verify(carried).sound and carried.read_only
            with pytest.raises(StoreReadOnly, match="is a bundle"):
                make_version(carried, "other", {b"x": b"x"})
    assert os.listdir(os.path.dirname(path)).count("carried.bundle-wal") == 0
    assert Path(path).read_bytes() == before


def test_a_bundle_is_taken_in(repository: Repository, target: Repository, path: str, rng: random.Random) -> None:
    fill(repository, rng)
    bundle(repository, path, ["r"])
    with Repository.open(path) as carried:
        transfer(carried, target)
    check_same(repository, target, "r@v1", "r@v2")
    assert verify(target).sound


@pytest.mark.parametrize("how", ["since", "for"])
def test_a_relative_bundle_lacks_what_the_other_side_has(
    repository: Repository, target: Repository, path: str, rng: random.Random, how: str
) -> None:
    fill(repository, rng)
    transfer(repository, target, ["r@v1"])
    made = (
        bundle(repository, path, ["r@v2"], since=["r@v1"])
        if how == "since"
        else bundle(repository, path, ["r"], having=target)
    )
    assert made.prerequisites == ["r@v1"] and made.transferred.versions == ["r@v2"]
    assert 10_000 < made.transferred.sent_bytes < 11_000
    with Repository.open(path) as carried:
        assert verify(carried).sound
        with pytest.raises(SprayDryError):  # alone it lacks what it builds on
            shown(carried, "r@v2")
        transfer(carried, target)
        check_same(repository, target, "r@v1", "r@v2")
        with Repository.open(path + ".elsewhere", create=True) as elsewhere:
            with pytest.raises(VersionNotFound, match=r"builds on r@v1, which is not in .*elsewhere: bring that"):
                transfer(carried, elsewhere)
            assert elsewhere.log.head[0] == 0
    assert verify(target).sound


def test_what_cannot_be_bundled(
    repository: Repository, target: Repository, path: str, rng: random.Random, tmp_path: Path
) -> None:
    fill(repository, rng)
    transfer(repository, target)
    with pytest.raises(UsageError, match="name what is to be"):
        bundle(repository, path, [])
    with pytest.raises(UsageError, match="the other side has all"):
        bundle(repository, path, ["r"], having=target)
    with pytest.raises(VersionNotFound):
        bundle(repository, path, ["r@v7"])
    with pytest.raises(UsageError, match="there is no folder /proc/nowhere"):
        bundle(repository, "/proc/nowhere/x.bundle", ["r"])
    with pytest.raises(SprayDryError, match=r"cannot be made|No such file"):
        bundle(repository, "/proc/x.bundle", ["r"])
    assert bundle(repository, path, ["r"], dry_run=True).file_bytes is None
    assert not os.path.exists(path)
    Path(path).write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        bundle(repository, path, ["r"])
    assert Path(path).read_text() == "mine"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_a_failure_leaves_no_part(
    repository: Repository, path: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(repository, rng)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SprayDryError, match="No space left"):
        bundle(repository, path, ["r"])
    assert os.listdir(os.path.dirname(path)) == ["repository.sqlite"] or not [
        name for name in os.listdir(os.path.dirname(path)) if "bundle" in name
    ]


def test_a_bundle_cut_short_is_refused_and_loses_nothing(
    repository: Repository, path: str, rng: random.Random, tmp_path: Path
) -> None:
    fill(repository, rng)
    bundle(repository, path, ["r"])
    whole = Path(path).read_bytes()
    for number, size in enumerate([0, 100, 8192, len(whole) // 2, len(whole) // 16384 * 8192, len(whole) - 8192]):
        Path(path).write_bytes(whole[:size])
        with Repository.open(str(tmp_path / f"{number}.sqlite"), create=True) as target:
            with pytest.raises(SprayDryError), Repository.open(path) as carried:
                transfer(carried, target)
            Path(path).write_bytes(whole)
            with Repository.open(path) as carried:
                transfer(carried, target)
                check_same(carried, target)
            assert verify(target).sound


def test_a_bundle_with_flipped_bits_gives_right_bytes_or_an_error(
    repository: Repository, path: str, rng: random.Random, tmp_path: Path
) -> None:
    fill(repository, rng)
    bundle(repository, path, ["r"])
    whole = Path(path).read_bytes()
    versions = {str(version): version for version in repository.versions("r")}
    right = {name: shown(repository, name) for name in versions}
    refused = 0
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        Path(path).write_bytes(damaged)
        with Repository.open(str(tmp_path / f"{number}.sqlite"), create=True) as target:
            try:
                with Repository.open(path) as carried:
                    transfer(carried, target)
            except SprayDryError:
                refused += 1
            for version in target.versions("r") if target.roots() else []:
                assert kept(version) == kept(versions[str(version)])
                assert shown(target, str(version)) == right[str(version)]
    assert refused > 20


def test_another_file_with_values_taken_out_is_refused(
    repository: Repository, target: Repository, tmp_path: Path, rng: random.Random
) -> None:
    from spraydry.repository.bundles import write_bundle

    fill(repository, rng)
    write_bundle(repository.store, ())
    repository.store.delete("frames", [next(iter(repository.store.list("frames"))).name])
    with Repository.open(repository.url, read_only=True) as carried:
        with pytest.raises(SprayDryError, match="was cut short: carry it over again"):
            transfer(carried, target)
        assert "carry it over again" in verify(carried).other[0]
