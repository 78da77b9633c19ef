"""Collecting: what nothing names goes, in two steps, and nothing else does."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from spraydry.actions.collect import DEFAULT_GRACE_NS, Collected, gc
from spraydry.actions.remove import remove
from spraydry.actions.verify import verify
from spraydry.errors import CorruptData, VersionNotFound
from spraydry.format.digest import digest
from spraydry.format.version import CollectRecord, CondemnRecord
from spraydry.repository import writer as writers
from spraydry.repository.leases import hold
from spraydry.repository.repository import Repository
from tests.small_versions import read_all
from tests.versions import make_version

KB = 1000


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "FRAME_TARGET_BYTES", 4 * KB)
    level, _, *others = writers.Writer.__init__.__defaults__ or ()
    monkeypatch.setattr(writers.Writer.__init__, "__defaults__", (level, 4 * KB, *others))


def noise(seed: int, count: int, size: int = KB) -> dict[bytes, bytes]:
    rng = random.Random(seed)
    return {f"{seed}-{number:03}".encode(): rng.randbytes(size) for number in range(count)}


def stored(repository: Repository) -> set[str]:
    return {one.name for one in repository.store.list("frames")}


def whole(repository: Repository, address: str, files: Mapping[bytes, bytes]) -> None:
    assert read_all(repository, address) == {name.decode(): content for name, content in files.items()}


def sound(repository: Repository) -> None:
    found = verify(repository)
    assert found.sound, found


@pytest.fixture(params=["sqlite", "dir"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "r.sqlite") if request.param == "sqlite" else f"dir:{tmp_path}/r"


def test_what_is_named_stays_and_what_is_not_goes_after_the_grace_time(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.open(url, create=True) as repository:
        first, second = noise(1, 20), noise(2, 12)
        make_version(repository, "r", first)
        make_version(repository, "r", second)
        before = stored(repository)
        done = gc(repository)
        assert (done.versions, done.dropped_bytes, done.condemned_frames, done.deleted_frames) == (2, 0, 0, 0)
        remove(repository, ["r@v1"])
        foretold = gc(repository, dry_run=True)
        done = gc(repository)
        assert done == foretold or abs((done.waiting_until_ns or 0) - (foretold.waiting_until_ns or 0)) < 10**11
        assert (
            done.dropped_bytes > 20 * KB and done.deleted_frames == 0 and done.waiting_frames == done.condemned_frames
        )
        assert stored(repository) == before and done.condemned_frames >= 5
        again = gc(repository)
        assert (again.dropped_bytes, again.condemned_frames, again.deleted_frames) == (0, 0, 0)
        assert (again.waiting_frames, again.waiting_bytes) == (done.waiting_frames, done.waiting_bytes)
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now + DEFAULT_GRACE_NS + 10**9)
        last = gc(repository)
        assert (last.deleted_frames, last.deleted_bytes) == (done.condemned_frames, done.condemned_bytes)
        assert len(stored(repository)) == len(before) - done.condemned_frames
        whole(repository, "r@v2", second)
        sound(repository)
    with Repository.open(url) as repository:
        whole(repository, "r@v2", second)
        repository.reindex()
        whole(repository, "r@v2", second)
        kinds = [type(record) for record in repository.log.records]
        assert kinds[-2:] == [CondemnRecord, CollectRecord]


def test_without_a_grace_time_it_is_gone_at_once_and_the_file_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Repository.open(str(path), create=True) as repository:
        kept = noise(1, 4)
        make_version(repository, "r", {**kept, b"large": random.Random(3).randbytes(3_000_000)})
        make_version(repository, "r", kept)
        remove(repository, ["r@v1"])
        size = path.stat().st_size
        foretold = gc(repository, grace_ns=0, dry_run=True)
        assert path.stat().st_size == size
        done = gc(repository, grace_ns=0)
        assert done.deleted_bytes == done.condemned_bytes == foretold.deleted_bytes > 3_000_000
        assert path.stat().st_size < size - 2_900_000
        whole(repository, "r", kept)
        sound(repository)


def test_what_lives_in_frames_with_little_life_moves(url: str) -> None:
    with Repository.open(url, create=True) as repository:
        files = noise(1, 40)
        make_version(repository, "r", files)
        kept = {name: files[name] for name in sorted(files)[::4]}
        make_version(repository, "r", kept)
        remove(repository, ["r@v1"])
        foretold = gc(repository, grace_ns=0, below=0.6, dry_run=True)
        done = gc(repository, grace_ns=0, below=0.6)
        assert done.rewritten_frames == foretold.rewritten_frames > 5 and done.rewritten_bytes >= 10 * KB
        assert done.rewritten_bytes == foretold.rewritten_bytes and done.condemned_frames == foretold.condemned_frames
        assert done.staying_bytes == foretold.staying_bytes == 0
        whole(repository, "r", kept)
        sound(repository)
        again = gc(repository, grace_ns=0, below=1)
        assert (again.dropped_bytes, again.condemned_frames, again.rewritten_frames) == (0, 0, 0)


def test_frames_with_enough_life_stay_as_they_are(repository: Repository) -> None:
    files = noise(1, 40)
    make_version(repository, "r", files)
    make_version(repository, "r", {name: files[name] for name in sorted(files)[::4]})
    remove(repository, ["r@v1"])
    before = stored(repository)
    done = gc(repository, grace_ns=0, below=0)
    assert done.rewritten_frames == 0 and 25 * KB < done.staying_bytes < done.dropped_bytes
    assert done.staying_bytes == gc(repository, grace_ns=0, below=0, dry_run=True).dropped_bytes
    assert len(before - stored(repository)) == done.deleted_frames < 5


def test_removing_one_of_two_names_frees_nothing(repository: Repository) -> None:
    from spraydry.actions.tag import tag

    make_version(repository, "r", noise(1, 8))
    tag(repository, "r@v1", "kept")
    remove(repository, ["r@v1"])
    assert gc(repository, grace_ns=0).dropped_bytes == 0
    whole(repository, "r@kept", noise(1, 8))


def test_a_file_that_holds_the_bytes_of_a_tree_page_does_not_count_as_that_tree(repository: Repository) -> None:
    below = noise(1, 6)
    first = make_version(repository, "inner", below)
    page = bytes(repository.read_chunk(first.record.entry.content.digest))  # type: ignore[union-attr]
    # Walked first, by its slot: a file of these very bytes.
    make_version(repository, "a", {b"page": page})
    make_version(repository, "b", {b"folder": below})
    remove(repository, ["inner@v1"])
    gc(repository, grace_ns=0, below=1)
    assert read_all(repository, "b") == {f"folder/{name.decode()}": content for name, content in below.items()}
    assert read_all(repository, "a") == {"page": page}


def test_a_version_that_cannot_be_walked_stops_it(repository: Repository) -> None:
    version = make_version(repository, "r", noise(1, 8))
    make_version(repository, "gone", noise(2, 8))
    remove(repository, ["gone@v1"])
    top = version.record.entry.content.digest  # type: ignore[union-attr]
    (place,) = repository.catalog.chunks.locate(top)
    repository.store.put("frames", place.frame.hex(), b"damaged")
    with Repository.open(repository.url) as fresh, pytest.raises(CorruptData, match=r"r@v1 .*spraydry rm r@v1"):
        gc(fresh, grace_ns=0)
    assert not any(isinstance(record, CondemnRecord) for record in repository.log.records)


def test_what_a_lease_pins_stays_though_it_was_removed(url: str) -> None:
    with Repository.open(url, create=True) as repository, Repository.open(url) as other:
        files = noise(1, 20)
        version = make_version(repository, "r", files)
        make_version(repository, "r", noise(2, 3))
        found = list(repository.walk("r@v1"))
        with hold(other, "mount on /mnt", pins=[version.made_in]):
            remove(repository, ["r@v1"])
            done = gc(repository, grace_ns=0)
            assert done.leases == ["mount on /mnt"] and done.deleted_frames == 0
            for one in found:
                if one.path:
                    with repository.open_file(one) as stream:
                        assert stream.read() == files[one.path]
        with hold(other, "a mount of all, begun after it was removed", since=other.log.read()):
            done = gc(repository, grace_ns=0)
        assert done.deleted_frames >= 5
        with pytest.raises(VersionNotFound):
            repository.resolve("r@v1")


def test_frames_that_no_run_names_go_unless_somebody_writes(url: str) -> None:
    with Repository.open(url, create=True) as repository, Repository.open(url) as other:
        make_version(repository, "r", noise(1, 4))
        for seed in range(3):
            value = random.Random(seed).randbytes(500)
            repository.store.put("frames", digest(value).hex(), value)
        before = stored(repository)
        with hold(other, "writing", writing=True) as lease:
            lease._beat()
            assert gc(repository, grace_ns=0).condemned_frames == 0 and stored(repository) == before
        assert gc(repository, grace_ns=0).deleted_frames == 3
        whole(repository, "r", noise(1, 4))


def test_a_clock_that_is_behind_deletes_nothing_and_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.open(url, create=True) as repository:
        make_version(repository, "r", noise(1, 20))
        make_version(repository, "r", noise(2, 3))
        remove(repository, ["r@v1"])
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now - 30 * 86_400 * 10**9)
        done = gc(repository, grace_ns=10**9)
        assert done.condemned_frames and not done.deleted_frames
        monkeypatch.setattr(time, "time_ns", lambda: now - 20 * 86_400 * 10**9)
        done = gc(repository, grace_ns=10**9)
        assert done.clock_behind and not done.deleted_frames and done.waiting_frames
        monkeypatch.setattr(time, "time_ns", lambda: now + 86_400 * 10**9)
        done = gc(repository, grace_ns=10**9)
        assert not done.clock_behind and done.deleted_frames
        whole(repository, "r", noise(2, 3))


def test_an_empty_repository(repository: Repository) -> None:
    assert gc(repository, grace_ns=0) == Collected()
