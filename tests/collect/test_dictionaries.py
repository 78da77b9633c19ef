"""Dictionaries that nothing uses go as frames do, and no version ever needs one that went."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from spraydry.actions.collect import DEFAULT_GRACE_NS, gc
from spraydry.actions.ingest import ingest
from spraydry.actions.recompress import recompress
from spraydry.actions.remove import bring_back, remove
from spraydry.actions.repair import cures
from spraydry.actions.train import train, undo
from spraydry.actions.transfer.transfer import transfer
from spraydry.actions.verify import verify
from spraydry.errors import CollectedMeanwhile, CorruptData, StoreUnavailable, VersionNotFound
from spraydry.format import dictionary as making
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.frame import Dictionary
from spraydry.format.version import CollectRecord, DropRecord, RevokeRecord
from spraydry.repository import condemned
from spraydry.repository import dictionaries as choosing
from spraydry.repository import storer as storers
from spraydry.repository.dictionaries import adopt, keep
from spraydry.repository.leases import hold
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.stores.dir import DirStore
from spraydry.stores.memory import MemoryStore
from spraydry.stores.sqlite import SqliteStore
from tests.collect.test_fence import Machines, complete, folder, machines
from tests.collect.test_gc import small_frames, sound, stored, url, whole
from tests.collect.test_killed import child, opened_new
from tests.small_versions import document, read_all, small_versions
from tests.test_recompress import Stopped, StoppingStore, opened, values_of

__all__ = ["machines", "small_frames", "url"]

LONG = 10**15


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "shipped", tuple)


@cache
def made() -> Dictionary:
    rng = random.Random(8)
    dictionary = making.train([document(rng) for _ in range(300)], 8 << 10)
    assert dictionary is not None
    return dictionary


def documents(seed: int, count: int = 12) -> dict[bytes, bytes]:
    rng = random.Random(seed)
    return {f"{seed}-{number:03}.json".encode(): document(rng) for number in range(count)}


def use(repository: Repository) -> None:
    keep(repository, made())
    adopt(repository, {"json": made().digest}, "test")


def give_back(repository: Repository) -> None:
    repository.refresh()
    adopt(repository, {"json": None}, "test")


def trained(repository: Repository, path: Path) -> None:
    """r@v1 (removed) with the dictionary, r@v2 without it."""
    use(repository)
    ingest(repository, [folder(path / "first", documents(1))], root="r", threads=1)
    assert repository.catalog.users([made().digest])
    give_back(repository)
    ingest(repository, [folder(path / "first", documents(2))], root="r", threads=1)
    remove(repository, ["r@v1"])


def has(repository: Repository) -> bool:
    return [one.name for one in repository.store.list("dictionaries")] == [made().digest.hex()]


@contextmanager
def before_frames_are_stored(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> Iterator[None]:
    """`act` is done once, when frames were encoded, and before the first of them is stored."""
    real, seen = storers.Storer._store, []

    def late(self: storers.Storer, batch: object, publish: bool) -> object:
        if batch and not seen:
            seen.append(1)
            act()
        return real(self, batch, publish)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(storers.Storer, "_store", late)
        yield
    assert seen


def test_it_goes_a_grace_time_after_the_last_frame_that_used_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.open(url, create=True) as repository:
        trained(repository, tmp_path)
        for _ in range(2):  # its frames are condemned, and may be pardoned
            done = gc(repository)
            assert done.condemned_dictionaries == done.deleted_dictionaries == 0 and has(repository)
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now + DEFAULT_GRACE_NS + 10**9)
        foretold, done = gc(repository, dry_run=True), gc(repository)
        assert done.deleted_frames and done.deleted_dictionaries == 0 and has(repository)
        assert (done.condemned_dictionaries, done.condemned_dictionary_bytes) == (1, len(made().plain))
        assert (done.waiting_dictionaries, done.waiting_dictionary_bytes) == (1, len(made().plain))
        assert foretold.condemned_dictionaries == foretold.waiting_dictionaries == 1 and done.waiting_until_ns
        assert gc(repository).condemned_dictionaries == 0 and has(repository)
        monkeypatch.setattr(time, "time_ns", lambda: now + 2 * DEFAULT_GRACE_NS + 2 * 10**9)
        foretold, done = gc(repository, dry_run=True), gc(repository)
        assert foretold == done and (done.deleted_dictionaries, done.deleted_dictionary_bytes) == (1, len(made().plain))
        assert not list(repository.store.list("dictionaries"))
        whole(repository, "r@v2", documents(2))
        sound(repository)
        assert [type(record) for record in repository.log.records[-2:]] == [DropRecord, CollectRecord]
    with Repository.open(url) as repository:
        repository.rebuild_catalog()
        whole(repository, "r@v2", documents(2))
        sound(repository)


def test_without_a_grace_time_it_goes_with_its_frames(url: str, tmp_path: Path) -> None:
    with Repository.open(url, create=True) as repository:
        trained(repository, tmp_path)
        foretold, done = gc(repository, grace_ns=0, dry_run=True), gc(repository, grace_ns=0)
        assert foretold.deleted_dictionaries == done.deleted_dictionaries == done.condemned_dictionaries == 1
        assert done.deleted_dictionary_bytes == foretold.deleted_dictionary_bytes == len(made().plain)
        assert not list(repository.store.list("dictionaries"))
        with pytest.raises(VersionNotFound):
            bring_back(repository, ["r@v1"])
        whole(repository, "r@v2", documents(2))
        sound(repository)


def test_what_new_frames_or_stored_ones_use_stays(url: str, tmp_path: Path) -> None:
    with Repository.open(url, create=True) as repository:
        use(repository)
        assert gc(repository, grace_ns=0, dry_run=True).condemned_dictionaries == 0
        assert gc(repository, grace_ns=0).condemned_dictionaries == 0 and has(repository)
        ingest(repository, [folder(tmp_path / "first", documents(1))], root="r", threads=1)
        give_back(repository)
        assert gc(repository, grace_ns=0, below=0).condemned_dictionaries == 0 and has(repository)
        whole(repository, "r", documents(1))


@pytest.mark.parametrize("what", ["writing", "orphan", "run", "placeholder"])
def test_where_nobody_knows_what_a_frame_uses_none_goes(repository: Repository, tmp_path: Path, what: str) -> None:
    use(repository)
    give_back(repository)
    ingest(repository, [folder(tmp_path / "first", documents(2))], root="r", threads=1)
    if what == "writing":
        with hold(repository, "writing", writing=True, at_once=True):
            assert gc(repository, grace_ns=0).condemned_dictionaries == 0
    elif what == "run":
        repository.store.put("index", "ab" * 32, b"damaged")
        assert gc(repository, grace_ns=0).condemned_dictionaries == 0
    else:
        value = b"a frame that is in no run"
        repository.store.put("frames", digest(value).hex(), value)
        # Condemned, it is known by its name alone.
        assert gc(repository, grace_ns=LONG, dry_run=what == "orphan").condemned_dictionaries == 0
        assert gc(repository, grace_ns=LONG, dry_run=what == "orphan").condemned_dictionaries == 0
    assert has(repository) and not repository.log.dropped


@pytest.mark.parametrize("grace_ns", [0, LONG])
def test_what_a_writer_stored_with_one_that_went_meanwhile_is_stored_again(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_ns: int
) -> None:
    writer, collector = machines("a"), machines("b")
    use(writer)
    files = documents(1)

    def act() -> None:
        give_back(collector)
        assert gc(collector, grace_ns=grace_ns).condemned_dictionaries == 1

    with before_frames_are_stored(monkeypatch, act):
        ingest(writer, [folder(tmp_path / "source", files)], root="r", threads=1)
    users = set(writer.catalog.users([made().digest]))
    assert users and all(map(writer.catalog.is_condemned, users))
    for repository in (writer, collector, machines("c")):
        repository.refresh()
        assert set(repository.catalog.users([made().digest])) == users
        whole(repository, "r", files)
        complete(repository)
    gc(collector, grace_ns=0)
    assert not stored(collector) & {name.hex() for name in users}
    assert not list(collector.store.list("dictionaries"))
    for repository in (writer, collector, machines("d")):
        repository.refresh()
        whole(repository, "r", files)
        complete(repository)


@pytest.mark.parametrize("grace_ns", [0, LONG])
def test_others_do_not_count_on_what_uses_one_that_went(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_ns: int
) -> None:
    """A writer publishes frames with it and makes no version; the same content comes on another machine."""
    writer, collector = machines("a"), machines("b")
    use(writer)
    files = documents(1)

    def act() -> None:
        give_back(collector)
        assert gc(collector, grace_ns=grace_ns).condemned_dictionaries == 1

    with before_frames_are_stored(monkeypatch, act), Writer(writer) as stores:
        for content in files.values():
            stores.add(digest(content), content, "json")
        stores.finish()
    other = machines("c")
    other.refresh()
    names = [digest(content) for content in files.values()]
    assert not other.catalog.chunks.known(names) and not other.vouch(names)
    assert not writer.vouch(names)
    ingest(other, [folder(tmp_path / "source", files)], root="r", threads=1)
    for repository in (other, writer):
        repository.refresh()
        assert not repository.catalog.users([made().digest]).keys() - repository.condemned()
        whole(repository, "r", files)
        complete(repository)
    other.reindex()
    assert all(map(other.catalog.is_condemned, other.catalog.users([made().digest])))
    complete(other)
    gc(other, grace_ns=0)
    assert not list(other.store.list("dictionaries"))
    complete(other)


def test_a_version_that_only_frames_with_a_dropped_one_hold_comes_back(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, collector = machines("a"), machines("b")
    use(writer)
    files = documents(1)

    def act() -> None:
        give_back(collector)
        gc(collector, grace_ns=LONG)

    with before_frames_are_stored(monkeypatch, act):
        ingest(writer, [folder(tmp_path / "source", files)], root="r", threads=1)
    remove(writer, ["r@v1"])
    gc(writer, grace_ns=LONG)
    users = {name.hex() for name in writer.catalog.users([made().digest])}
    again = {
        place.frame.hex()
        for content in files.values()
        for place in writer.catalog.chunks.locate(digest(content))
        if place.frame.hex() not in users
    }
    assert again
    writer.store.delete("frames", sorted(again))  # lost
    bring_back(writer, ["r@v1"])
    assert not writer.log.dropped and isinstance(writer.log.records[-1], RevokeRecord)
    for repository in (writer, collector, machines("c")):
        repository.refresh()
        whole(repository, "r@v1", files)
        assert not any(repository.catalog.is_condemned(bytes.fromhex(name)) for name in users)
    collector.catalog.forget_frames(bytes.fromhex(name) for name in again)
    assert gc(collector, grace_ns=0).condemned_dictionaries == 0
    whole(collector, "r@v1", files)


def test_a_version_comes_back_from_frames_that_need_no_dropped_one(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(repository)
    files = documents(1)

    def act() -> None:
        with Repository.open(repository.url) as collector:
            give_back(collector)
            gc(collector, grace_ns=LONG)

    with before_frames_are_stored(monkeypatch, act):
        ingest(repository, [folder(tmp_path / "source", files)], root="r", threads=1)
    remove(repository, ["r@v1"])
    gc(repository, grace_ns=LONG)
    ((slot, _, _),) = repository.log.drops()
    assert condemned.collect(repository, slot, "test")
    users = repository.catalog.users([made().digest])
    others = {place.frame for content in files.values() for place in repository.catalog.chunks.locate(digest(content))}
    repository.catalog.forget_frames(others - users.keys())  # when they are heard of again, the others come first
    repository.catalog.forget_runs()
    repository.refresh()
    assert repository.catalog.chunks.locate(digest(files[b"1-000.json"]))[0].frame in users
    bring_back(repository, ["r@v1"])
    gc(repository, grace_ns=0)
    whole(repository, "r@v1", files)
    complete(repository)


def test_what_is_verified_while_its_dictionary_goes_does_not_count(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, collector, other = machines("a"), machines("b"), machines("c")
    use(writer)
    files = documents(1)
    with Writer(writer) as stores:
        for content in files.values():
            stores.add(digest(content), content, "json")
        stores.finish()
    give_back(writer)
    other.reindex()
    names = [digest(content) for content in files.values()]
    real = other.decode_frame

    def late(name: bytes) -> object:
        found = real(name)
        collector.refresh()
        if not collector.log.dropped:
            condemned.drop(collector, [made().digest], "test", lambda: None)
        other.refresh()
        return found

    monkeypatch.setattr(other, "decode_frame", late)
    assert other.catalog.claimed(names)
    assert not other.vouch(names) and not other.catalog.chunks.known(names)


def test_a_frame_left_over_that_uses_one_that_is_gone_is_no_damage(repository: Repository, tmp_path: Path) -> None:
    trained(repository, tmp_path)
    gc(repository, grace_ns=0)
    encoded = frames.encode(list(documents(7).values()), "json", dictionary=made())
    assert encoded.header.dictionary == made().digest
    repository.store.put("frames", encoded.name.hex(), encoded.stored)
    with Repository.open(repository.url) as fresh:
        sound(fresh)
        assert gc(fresh, grace_ns=0).deleted_frames == 1
        sound(fresh)


def test_one_that_was_dropped_is_not_taken_into_use_again(repository: Repository, tmp_path: Path) -> None:
    trained(repository, tmp_path)
    gc(repository, grace_ns=0)
    with pytest.raises(CollectedMeanwhile):
        adopt(repository, {"json": made().digest}, "test")
    assert undo(repository)[1] == {} and not repository.log.dictionaries
    with Writer(repository, dictionaries={"json": made().digest}) as writer:
        repository.lend_dictionary(made())
        for content in documents(5).values():
            writer.add(digest(content), content, "json")
        writer.finish()
    assert not repository.catalog.users([made().digest])


def test_training_makes_another_one(repository: Repository, tmp_path: Path) -> None:
    small_versions(repository, tmp_path / "small", random.Random(1), 30)
    train(repository, size_bytes=16 << 10)
    first = repository.log.dictionaries["json"]
    undo(repository)
    assert gc(repository, grace_ns=0).deleted_dictionaries >= 1 and first in repository.log.dropped
    train(repository, size_bytes=16 << 10)
    second = repository.log.dictionaries["json"]
    assert second != first and len(repository.dictionary(second).plain) > 4096
    (tmp_path / "small" / "later.json").write_bytes(content := document(random.Random(4)))
    ingest(repository, [str(tmp_path / "small")], root="small")
    assert repository.catalog.users([second])
    with Repository.open(repository.url, read_only=True) as again:
        assert read_all(again)["later.json"] == content
    sound(repository)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("grace_ns", [0, LONG])
def test_a_push_does_not_bring_it_back(
    url: str, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, grace_ns: int
) -> None:
    files = documents(1, 30)
    use(repository)
    ingest(repository, [folder(tmp_path / "source", files)], root="r", threads=1)
    with Repository.open(url, create=True) as target, Repository.open(url) as collector:
        keep(target, made())

        def act() -> None:
            collector.refresh()
            assert gc(collector, grace_ns=grace_ns).condemned_dictionaries == 1

        if when == "before":
            act()
            transfer(repository, target)
        else:
            with before_frames_are_stored(monkeypatch, act):
                transfer(repository, target)
        whole(target, "r", files)
        complete(target)
        gc(target, grace_ns=0)
        assert not list(target.store.list("dictionaries"))
        assert not target.catalog.users([made().digest])
        whole(target, "r", files)
        complete(target)


def test_recompressing_with_one_that_goes_meanwhile_loses_nothing(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, collector = machines("a"), machines("b")
    files = documents(1, 30)
    ingest(writer, [folder(tmp_path / "source", files)], root="r", threads=1)
    use(writer)
    module = sys.modules["spraydry.actions.recompress.recompress"]
    real = module._replace

    def late(*arguments: object) -> object:
        give_back(collector)
        assert gc(collector, grace_ns=0).deleted_dictionaries == 1
        return real(*arguments)

    monkeypatch.setattr(module, "_replace", late)
    with pytest.raises(StoreUnavailable, match="meanwhile"):
        recompress(writer)
    monkeypatch.setattr(module, "_replace", real)
    for repository in (writer, collector):
        repository.refresh()
        whole(repository, "r", files)
        complete(repository)
    recompress(writer)
    gc(writer, grace_ns=0)
    whole(writer, "r", files)
    complete(writer)


def test_repair_does_not_bring_it_back(url: str, repository: Repository, tmp_path: Path) -> None:
    keep(repository, made())
    with Repository.open(url, create=True) as target:
        trained(target, tmp_path)
        gc(target, grace_ns=0)
        with cures.Remotes(target, [repository.url]) as remotes:
            assert cures.mend_dictionaries(target, remotes, write=True) == ({}, {})
        assert not list(target.store.list("dictionaries"))


def clean(repository: Repository) -> None:
    whole(repository, "r@v2", documents(2))
    complete(repository)
    gc(repository, grace_ns=0)
    whole(repository, "r@v2", documents(2))
    complete(repository)
    assert not list(repository.store.list("dictionaries"))
    assert stored(repository) == {info.name.hex() for _, info in repository.catalog.frames()}


@pytest.mark.parametrize("grace_ns", [0, LONG])
def test_stopped_at_every_change_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace_ns: int) -> None:
    with opened_new() as repository:
        trained(repository, tmp_path)
        if grace_ns:  # the last frames that used it are gone already
            with monkeypatch.context() as patched:
                patched.setattr(sys.modules["spraydry.actions.collect.gc"], "drop_unused", lambda *_: {})
                gc(repository, grace_ns=0)
        values = values_of(repository.store)
    for point in range(1, 200):
        left = dict(values)
        finished = False
        with opened(StoppingStore(left, point, after=bool(point % 2))) as repository:
            try:
                finished = gc(repository, grace_ns=grace_ns).condemned_dictionaries == 1
            except Stopped:
                pass
        with opened(MemoryStore(left)) as repository:
            clean(repository)
        if finished:
            break
    assert finished and point > (1 if grace_ns else 6)


def test_killed_at_every_call_of_the_store(url: str, tmp_path: Path) -> None:
    store = SqliteStore if url.endswith(".sqlite") else DirStore
    with Repository.open(url, create=True) as repository:
        trained(repository, tmp_path)
    killed = 0
    for point in range(1, 60):

        def work(point: int = point) -> None:
            left = [(point + 1) // 2]

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
                gc(repository, grace_ns=0)

        _, status = os.waitpid(child(work), 0)
        killed += os.WIFSIGNALED(status)
        with Repository.open(url) as repository:
            whole(repository, "r@v2", documents(2))
            complete(repository)
            if not os.WIFSIGNALED(status):
                clean(repository)
                break
    assert killed >= 3


def test_the_log_refuses_what_cannot_be(repository: Repository) -> None:
    def record(previous: bytes, now_ns: int) -> DropRecord:
        return DropRecord(format=1, previous=previous, made_ns=now_ns, made_by="test", dictionaries=(made().digest,))

    use(repository)
    with pytest.raises(CorruptData, match="in use"):
        repository.log.append(record)
    give_back(repository)
    repository.log.append(record)
    assert repository.log.dropped == {made().digest}
    assert verify(repository).sound
