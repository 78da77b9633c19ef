"""Any frames damaged in any way, by seed: what could be read before a repair can be read after it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spraydry.actions.ingest import ingest
from spraydry.actions.repair import repair
from spraydry.actions.verify import verify
from spraydry.repository.repository import Repository
from tests.repair.damaged import contents, damage, small_frames, still


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A repository of two roots, one with three versions, and a backup of the middle of its life."""
    folder = Path(tempfile.mkdtemp(prefix="spraydry-repair-"))
    rng = random.Random(3)
    with pytest.MonkeyPatch.context() as monkeypatch, Repository.open(f"{folder}/made", create=True) as repository:
        small_frames(monkeypatch)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        source = folder / "source"
        for turn in range(3):
            for number in range(6):
                place = source / f"d{number % 2}" / f"e{number % 3}"
                place.mkdir(parents=True, exist_ok=True)
                (place / f"f{turn}-{number}").write_bytes(rng.randbytes(rng.randrange(1, 900)))
            os.link(source / "d0/e0" / f"f{turn}-0", source / "d1" / f"link{turn}")
            (source / "large").write_bytes(rng.randbytes(120_000))
            still(source)
            ingest(repository, [str(source)], root="a")
            if turn == 1:
                ingest(repository, [str(source / "d0")], root="b")
                repository.store.flush()
                shutil.copyfile(folder / "made", folder / "backup")
    yield folder
    shutil.rmtree(folder)


VERSIONS = ("a@v1", "a@v2", "a@v3", "b@v1")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), share=st.sampled_from([0.03, 0.1, 0.4, 1.0]), backup=st.booleans())
def test_repair_makes_nothing_worse(made: Path, seed: int, share: float, backup: bool) -> None:
    rng = random.Random(seed)
    shutil.copyfile(made / "made", made / "damaged")
    with Repository.open(str(made / "damaged")) as repository:
        for _, info in list(repository.catalog.frames()):  # in the order they came: their names are new in each run
            if rng.random() < share:
                damage(repository, info.name.hex(), rng.choice(["flipped", "cut", "gone"]))
    with Repository.open(str(made / "damaged")) as repository:
        before = {version: contents(repository, version)[0] for version in VERSIONS}
        remotes = [str(made / "backup")] if backup else []
        plan = repair(repository, remotes=remotes)
    with Repository.open(str(made / "damaged")) as repository:
        done = repair(repository, write=True, remotes=remotes)
        assert (done.had, done.condemned, done.kept, done.lost_chunks, done.damage) == (
            plan.had,
            plan.condemned,
            plan.kept,
            plan.lost_chunks,
            plan.damage,
        )
    with Repository.open(str(made / "damaged")) as repository:
        for version in VERSIONS:
            now, _ = contents(repository, version)
            assert before[version].items() <= now.items()
        for root in ("a", "b"):
            newest = repository.log.newest(root)
            assert newest is not None
            found, unread = contents(repository, root)
            told = {path for without in done.without if without.of.root == root for path, _ in without.lacks}
            assert unread == [] or not any(without.entry for without in done.without if without.of.root == root)
            old = before[f"{root}@{'v3' if root == 'a' else 'v1'}"]
            for path, shown in old.items():
                assert found.get(path) == shown or path in told or path == b"", path
        left = {one.version for one in verify(repository).damage}
        assert not left & {str(without.made) for without in done.without}
        again = repair(repository, write=True)
        # A page of a new version may be one that an older one had lost: then more can be given up.
        assert not any(one.made for one in again.without)
        assert len(repository.log.condemned_since(0)) == done.condemned + again.condemned
        # What was kept may still be mended: a copy of all that turns up late brings back everything.
        late = repair(repository, write=True, remotes=[str(made / "made")])
        assert late.whole
    with Repository.open(str(made / "damaged")) as repository, Repository.open(str(made / "made")) as whole:
        for version in VERSIONS:
            assert contents(repository, version) == contents(whole, version)
