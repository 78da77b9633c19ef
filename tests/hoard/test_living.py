"""What keys of hoards name lives like what versions name: collected when nothing names it, never before."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator

import pytest

from spraydry import Hoard
from spraydry.actions.collect import gc
from spraydry.actions.du import du
from spraydry.actions.hoard import checkpoint
from spraydry.actions.verify import verify
from spraydry.errors import ChunkNotFound
from spraydry.repository.repository import Repository
from tests.versions import make_version


@pytest.fixture
def hoard(repository: Repository) -> Hoard:
    return Hoard("h", repository=repository)


@pytest.fixture
def other(repository_path: str, hoard: Hoard) -> Iterator[Hoard]:
    """The same hoard, as another process would have it."""
    with Hoard("h", repository_path) as opened:
        yield opened


def content(seed: int, size: int = 100_000) -> bytes:
    return random.Random(seed).randbytes(size)


def held(hoard: Hoard) -> dict[str, bytes]:
    return {key: hoard[key].read() for key in hoard}


@pytest.mark.parametrize("folded", [False, True], ids=["changes", "checkpoint"])
def test_gc_keeps_what_keys_name_and_drops_the_rest(hoard: Hoard, other: Hoard, folded: bool) -> None:
    expected = {str(n): content(n) for n in range(8)}
    hoard.put_many(expected.items())
    if folded:
        checkpoint(hoard.repository, "h")
    gone = hoard.find("3")
    assert gone is not None
    for key in ("3", "4"):
        hoard[key] = expected[key] = content(int(key) + 100)
    for key in ("5", "6"):
        del hoard[key], expected[key]
    foretold = gc(hoard.repository, grace_ns=0, below=1.0, dry_run=True)
    assert 400_000 < foretold.dropped_bytes < 401_000 and foretold.hoards == 1
    assert held(hoard) == expected and hoard.open(gone).read() == content(3)
    done = gc(hoard.repository, grace_ns=0, below=1.0)
    assert (done.dropped_bytes, done.condemned_frames, done.deleted_bytes) == (
        foretold.dropped_bytes,
        foretold.condemned_frames,
        foretold.deleted_bytes,
    )
    for seen in (hoard, other):
        assert held(seen) == expected
    with Repository.open(hoard.repository.url) as again, pytest.raises(ChunkNotFound):
        Hoard("h", repository=again).open(gone).read()
    assert verify(hoard.repository).sound
    assert gc(hoard.repository, grace_ns=0, below=1.0).dropped_bytes == 0


def test_old_checkpoints_die(hoard: Hoard) -> None:
    hoard.put_many((f"{n:05}", b"x") for n in range(2000))
    for n in range(3):
        hoard["00000"] = str(n).encode()
        checkpoint(hoard.repository, "h")
    dead = gc(hoard.repository, grace_ns=0, below=1.0).dropped_bytes
    assert 60_000 < dead < 300_000 and len(hoard) == 2000


def test_a_hoard_of_which_all_is_deleted_holds_nothing(hoard: Hoard) -> None:
    hoard.put_many((str(n), content(n)) for n in range(4))
    checkpoint(hoard.repository, "h")
    hoard.clear()
    done = gc(hoard.repository, grace_ns=0, below=1.0)
    assert (done.living_bytes, done.hoards) == (0, 0) and done.dropped_bytes > 400_000
    hoard["again"] = content(2)
    assert held(hoard) == {"again": content(2)} and gc(hoard.repository, grace_ns=0).dropped_bytes == 0


def test_versions_and_hoards_share(hoard: Hoard) -> None:
    shared, own = content(1, 9000), content(2, 9000)
    make_version(hoard.repository, "root", {b"f": shared})
    hoard["a"], hoard["b"] = shared, own
    used = du(hoard.repository, [], hoards=["h"])
    assert (used.files, used.apparent_bytes, used.exclusive_bytes) == (2, 18_000, 9000)
    assert du(hoard.repository, ["root"]).exclusive_bytes < 1000
    del hoard["a"]
    assert gc(hoard.repository, grace_ns=0, below=1.0).dropped_bytes == 0
    assert hoard.repository.open_file("root:f").read() == shared


def test_what_is_staged_survives_a_gc(hoard: Hoard, other: Hoard) -> None:
    """Of a transaction that began before, whose lease nobody has seen yet: it is stored again."""
    hoard["a"] = content(1)
    change = hoard.transaction()
    change.put(io.BytesIO(content(2)), "b")
    change.put(io.BytesIO(content(1)), "c")
    change.prepare()
    del other["a"]
    done = gc(other.repository, grace_ns=0, below=1.0)
    assert done.deleted_frames or done.condemned_frames
    try:
        change.commit()
    except Exception as error:
        assert type(error).__name__ == "CollectedMeanwhile"  # what was deleted cannot be read to be stored again
        assert held(hoard) == {}
    else:
        assert held(hoard) == held(other) == {"b": content(2), "c": content(1)}
    assert verify(hoard.repository).sound


def test_gc_ends_while_others_put(hoard: Hoard, other: Hoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record of a collection is preceded by a put; it goes on, and what was put stays."""
    hoard["dead"], hoard["known"] = content(1), content(2)
    del hoard["dead"], hoard["known"]
    repository = hoard.repository
    committing, count = repository.committing, 0

    def busy() -> object:
        nonlocal count
        count += 1
        other[str(count)] = content(2) if count == 1 else content(count + 10)
        return committing()

    monkeypatch.setattr(repository, "committing", busy)
    done = gc(repository, grace_ns=0, below=1.0)
    assert 2 <= count < 20 and done.condemned_frames == 2  # its bytes, and its manifest
    assert held(other) == {str(n): content(2) if n == 1 else content(n + 10) for n in range(1, count + 1)}


def before_commit(repository: Repository, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """`act` is done once, just before the next record is appended."""
    committing, done = repository.committing, []

    def late() -> object:
        if not done:
            done.append(act())
        return committing()

    monkeypatch.setattr(repository, "committing", late)


def test_what_is_collected_under_a_small_put_is_stored_again(
    hoard: Hoard, other: Hoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hoard["a"] = content(1, 9000)
    del hoard["a"]
    before_commit(hoard.repository, monkeypatch, lambda: gc(other.repository, grace_ns=0, below=1.0))
    hoard["b"] = content(1, 9000)  # known when it was looked up
    assert held(other) == {"b": content(1, 9000)} and verify(other.repository).sound


def test_what_is_collected_under_a_large_put_is_stored_again(
    hoard: Hoard, other: Hoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hoard["a"] = content(1, 900_000)
    del hoard["a"]
    before_commit(hoard.repository, monkeypatch, lambda: gc(other.repository, below=1.0))
    hoard["b"] = content(1, 900_000)
    assert held(other) == {"b": content(1, 900_000)} and verify(other.repository).sound
    gc(other.repository, grace_ns=0, below=1.0)
    assert held(other) == {"b": content(1, 900_000)}


def test_what_is_put_while_a_checkpoint_is_made_stays(
    hoard: Hoard, other: Hoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hoard["a"], hoard["b"], hoard["c"] = b"1", b"2", b"3"
    with monkeypatch.context() as patched:
        before_commit(hoard.repository, patched, lambda: (other.put(b"new", "a"), other.delete("b"), other.clear()))
        assert checkpoint(hoard.repository, "h") is False  # what was there then is not what was cleared
    hoard["a"], hoard["b"] = b"1", b"2"
    with monkeypatch.context() as patched:
        before_commit(hoard.repository, patched, lambda: (other.put(b"new", "a"), other.delete("b")))
        assert checkpoint(hoard.repository, "h")
    for seen in (hoard, other, Hoard("h", hoard.repository.url)):
        assert held(seen) == {"a": b"new"} and len(seen) == 1
