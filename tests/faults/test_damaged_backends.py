"""Frames that are altered, cut short or gone on each backend, and listings that lack what is newest."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.repository import opening
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store, open_store
from tests.faults.conftest import NewMachine
from tests.faults.machines import check_sound
from tests.faulty_store import FaultyStore
from tests.ingest.trees import differences, taken, version_of

SIZE = 200_000


def damage(store: Store, names: list[str]) -> None:
    """A bit of the first is another, of the second a half is left, the third is gone."""
    altered = bytearray(store.get("frames", names[0]))
    altered[len(altered) // 2] ^= 1
    store.put("frames", names[0], bytes(altered))
    store.put("frames", names[1], store.get("frames", names[1])[: SIZE // 2])
    store.delete("frames", [names[2]])


def read(path: Path) -> bytes | None:
    """What a file holds; None where it answers EIO."""
    try:
        return path.read_bytes()
    except OSError as error:
        assert error.errno == errno.EIO, error
        return None


def test_damaged_frames(new_machine: NewMachine, tmp_path: Path, rng: random.Random) -> None:
    """What needs them is told by name, everywhere; everything else is read as it was."""
    source, here = tmp_path / "source", new_machine()
    source.mkdir()
    frames: dict[str, str] = {}  # the file that lies in a frame of its own
    for number in range(6):
        path = source / f"{number}.bin"
        path.write_bytes(rng.randbytes(SIZE))
        here.run("ingest", source)
        with here.opened() as repository:
            known = {info.name.hex() for _, info in repository.catalog.frames() if info.plain >= SIZE}
            (new,) = known - set(frames)
            frames[new] = path.name
    names = list(frames)[1:4]
    damaged = {frames[name] for name in names}
    with here.entered():
        store = open_store(here.url)
        damage(store, names)
        store.close()

    there = new_machine()
    found = there.told("verify", code=6)
    # One that is gone is told by what needs it, where nothing was deduplicated against it.
    assert set(names[:2]) <= {each["frame"] for each in found["damaged_frames"]} <= set(names)
    told = str(found["damage"])
    assert all((name in told) == (name in damaged) for name in frames.values())
    restoring = there.start("restore", "source", tmp_path / "restored")
    err = restoring.communicate()[1]
    assert restoring.returncode == 6 and all(name in err for name in damaged), err
    assert {path.name for path in (tmp_path / "restored").iterdir()} == set(frames.values()) - damaged
    for path in (tmp_path / "restored").iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()
    if os.access("/dev/fuse", os.R_OK | os.W_OK):
        point = tmp_path / "point"
        point.mkdir()
        there.run("mount", "source", point, "--engine", "fuse")
        try:
            for name in frames.values():
                assert read(point / name) == (None if name in damaged else (source / name).read_bytes())
        finally:
            there.run("umount", point)


# -- listings that come late


class Shared(FaultyStore):
    """One store for all that open it, which lists what was written since `rates["late"]` only when it settles."""

    def close(self) -> None:
        pass


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    bare = open_store(f"dir:{tmp_path}/late", create=True)
    shared = Shared(bare)
    monkeypatch.setattr(opening, "open_store", lambda url, **options: shared)
    yield shared
    bare.close()


def test_listings_that_lack_the_newest(
    late: FaultyStore, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines commit in turn and at worst say that something is not there yet; nothing is lost or wrong."""
    source = tmp_path / "source"
    source.mkdir()

    def ingest(home: str) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
        (source / f"{rng.getrandbits(40)}").write_bytes(rng.randbytes(50_000))
        with Repository.open("dir:late", create=True) as repository:
            version = version_of(taken(repository, source))
            assert differences(repository, version, source) == []

    ingest("here")
    late.rates["late"] = 1.0
    for home in ("here", "here", "there", "here", "there"):
        ingest(home)
    late.heal()
    ingest("there")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    with Repository.open("dir:late", read_only=True) as repository:
        assert [version.name for version in repository.versions("r")] == [f"v{number}" for number in range(1, 8)]
        assert differences(repository, repository.log.find("r"), source) == []
        check_sound(repository)
