"""gc killed or suspended anywhere, and on a full disk: no version loses a byte, and the next one finishes it."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from spraydry.actions.collect import deleting as deletions
from spraydry.actions.collect import gc
from spraydry.actions.ingest import ingest
from spraydry.actions.remove import bring_back, remove
from spraydry.errors import SprayDryError, StoreFull, VersionNotFound
from spraydry.repository import condemned
from spraydry.repository.repository import Repository
from spraydry.stores.dir import DirStore
from spraydry.stores.memory import MemoryStore
from spraydry.stores.sqlite import SqliteStore
from tests.collect.test_fence import complete, folder
from tests.collect.test_gc import noise, small_frames, stored, url, whole
from tests.faults.test_full_disk import resize, small_disk
from tests.small_versions import read_all
from tests.test_recompress import Stopped, StoppingStore, opened, values_of
from tests.versions import make_version

__all__ = ["small_disk", "small_frames", "url"]

FILES = noise(1, 40)
KEPT = {name: FILES[name] for name in sorted(FILES)[::3]} | noise(2, 6)


@pytest.fixture(autouse=True)
def in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few frames take several records and batches."""
    monkeypatch.setattr(condemned, "_DELETED_TOGETHER", 3)
    monkeypatch.setattr(condemned, "RECORD_FRAMES", 4)
    monkeypatch.setattr(sys.modules["spraydry.actions.collect.gc"], "RECORD_FRAMES", 4)


def half_dead(repository: Repository) -> None:
    make_version(repository, "r", FILES)
    make_version(repository, "r", KEPT)
    remove(repository, ["r@v1"])


def named(files: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {name.decode(): content for name, content in files.items()}


def clean(repository: Repository) -> None:
    """What lives is whole, and nothing else is left after another run."""
    whole(repository, "r@v2", KEPT)
    complete(repository)
    gc(repository, grace_ns=0, below=1)
    whole(repository, "r@v2", KEPT)
    complete(repository)
    assert stored(repository) == {info.name.hex() for _, info in repository.catalog.frames()}


@pytest.mark.parametrize("grace_ns", [0, 10**15])
def test_stopped_at_every_change_of_a_store(grace_ns: int) -> None:
    with opened_new() as repository:
        half_dead(repository)
        values = values_of(repository.store)
    for point in range(1, 1000):
        left = dict(values)
        finished = False
        with opened(StoppingStore(left, point, after=bool(point % 2))) as repository:
            try:
                gc(repository, grace_ns=grace_ns, below=1)
                finished = True
            except Stopped:
                pass
        if point % 3 == 0:  # the version that was removed comes back whole, or not at all
            with opened(MemoryStore(dict(left))) as repository:
                try:
                    bring_back(repository, ["r@v1"])
                    whole(repository, "r@v1", FILES)
                    complete(repository)
                except VersionNotFound:
                    assert grace_ns == 0
        with opened(MemoryStore(left)) as repository:
            clean(repository)
        if finished:
            break
    assert point > (6 if grace_ns else 15)


def opened_new() -> Repository:
    from tests.far_store import opened as far

    return far(MemoryStore())


def child(work: Callable[[], object]) -> int:
    """A process of its own that does it; its number."""
    number = os.fork()
    if number == 0:
        try:
            work()
        except SprayDryError:
            os._exit(3)
        finally:
            os._exit(0)
    return number


def test_killed_at_any_call_of_the_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.open(url, create=True) as repository:
        half_dead(repository)
    rng = random.Random(5)
    store = SqliteStore if url.endswith(".sqlite") else DirStore
    killed = 0
    for _ in range(12):
        point = rng.randrange(1, 12)

        def work(point: int = point) -> None:
            left = [point]

            def dying(real: Callable[..., object]) -> Callable[..., object]:
                def call(*arguments: object) -> object:
                    left[0] -= 1
                    if left[0] == 0 and point % 2:
                        os.kill(os.getpid(), signal.SIGKILL)
                    result = real(*arguments)
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return result

                return call

            with Repository.open(url) as repository:
                for name in ("create", "put_many", "delete"):
                    setattr(store, name, dying(getattr(store, name)))
                gc(repository, grace_ns=0, below=1)

        _, status = os.waitpid(child(work), 0)
        killed += os.WIFSIGNALED(status)
        with Repository.open(url) as repository:
            whole(repository, "r@v2", KEPT)
            complete(repository)
            if not os.WIFSIGNALED(status):  # then there was nothing to do any more
                make_version(repository, "s", noise(rng.randrange(1000), 20))
                remove(repository, [str(repository.log.newest("s"))])
    assert killed >= 4
    with Repository.open(url) as repository:
        clean(repository)


@pytest.mark.parametrize("before", ["collect", "delete_frames"])
@pytest.mark.parametrize("meanwhile", ["undelete", "ingest", "gc"])
def test_suspended_between_its_steps(url: str, before: str, meanwhile: str, tmp_path: Path) -> None:
    """It goes on days later with what it believed then."""
    with Repository.open(url, create=True) as repository:
        half_dead(repository)

    def work() -> None:
        real = getattr(deletions, before)

        def suspended(*arguments: object) -> object:
            setattr(deletions, before, real)
            os.kill(os.getpid(), signal.SIGSTOP)
            return real(*arguments)

        setattr(deletions, before, suspended)
        with Repository.open(url) as repository:
            gc(repository, grace_ns=0, below=1)

    number = child(work)
    _, status = os.waitpid(number, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    back = False
    with Repository.open(url) as repository:
        if meanwhile == "undelete":
            try:
                bring_back(repository, ["r@v1"])
                back = True
            except VersionNotFound:
                assert before == "delete_frames"
        elif meanwhile == "ingest":
            ingest(repository, [folder(tmp_path / "source", FILES)], root="again", threads=1)
        else:
            gc(repository, grace_ns=0, below=1)
    os.kill(number, signal.SIGCONT)
    _, status = os.waitpid(number, 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    with Repository.open(url) as repository:
        if back:
            whole(repository, "r@v1", FILES)
        if meanwhile == "ingest":
            assert read_all(repository, "again") == named(FILES)
        clean(repository)
    assert back or meanwhile != "undelete" or before == "delete_frames"


@pytest.mark.root
@pytest.mark.parametrize("scheme", ["sqlite", "dir", "segment"])
def test_where_an_ingest_filled_the_disk_room_is_made(small_disk: Path, tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}:{small_disk}/r"
    resize(small_disk, "30m")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "r", FILES | {b"large": random.Random(1).randbytes(6_000_000)})
        make_version(repository, "r", KEPT)
    source = folder(tmp_path / "source", {b"large": random.Random(2).randbytes(40_000_000)})
    with Repository.open(url) as repository, pytest.raises(StoreFull):
        ingest(repository, [source], root="s", threads=1)
    with Repository.open(url) as repository:
        remove(repository, ["r@v1"])
        done = gc(repository, grace_ns=0)
        assert done.deleted_bytes > 12_000_000, "the removed version, and what the ingest had stored"
        whole(repository, "r@v2", KEPT)
        complete(repository)
    room = os.statvfs(small_disk)
    assert room.f_bavail * room.f_frsize > 20_000_000, "a file shrinks, too"
    with Repository.open(url) as repository:
        ingest(repository, [folder(tmp_path / "source", {b"l": random.Random(2).randbytes(9_000_000)})], root="s")
        clean(repository)
