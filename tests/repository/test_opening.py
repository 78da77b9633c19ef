"""Opening a repository where there is no catalog yet: what is far away is asked for many things at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from spraydry.errors import CorruptData, NotARepository, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Subtree
from spraydry.format.run import FrameInfo, Row, encode_run
from spraydry.format.version import VersionRecord
from spraydry.repository import index
from spraydry.repository.opening import CONFIG_FORMAT, Config, read_config, write_config
from spraydry.repository.repository import Repository
from spraydry.repository.slots import slot_name
from spraydry.stores.base import Stored
from spraydry.stores.memory import MemoryStore
from tests.far_store import Far, opened
from tests.format.samples import entry

ANOTHER = Config("spraydry", CONFIG_FORMAT, b"r" * 16, b"s" * 16, 1)


def run_of(rng: random.Random, frames: int) -> tuple[str, bytes, list[bytes]]:
    """An index run: its name, its bytes, and the chunks it says where to find."""
    infos = [FrameInfo(rng.randbytes(32), "other", 1, 3, None, 300, 100) for _ in range(frames)]
    rows = [Row(rng.randbytes(32), place, at, 100) for place in range(frames) for at in (0, 100, 200)]
    run = encode_run(infos, rows)
    return digest(run).hex(), run, [row.digest for row in rows]


def add_versions(repository: Repository, count: int) -> None:
    for _ in range(count):
        repository.log.append(
            lambda previous, now_ns: VersionRecord(
                format=1,
                previous=previous,
                made_ns=now_ns,
                made_by="test",
                root="r",
                name=repository.log.next_name("r"),
                entry=entry(b"", DIRECTORY, 0, Subtree(bytes(32), 0, 0, 0, 0)),
                links=None,
                spec="fixed:size=64K",
                users=(),
                groups=(),
                incomplete=False,
                new_bytes=0,
                stored_bytes=0,
            )
        )


def test_log_and_index_come_many_at_a_time(rng: random.Random) -> None:
    store = Far(8)
    with opened(store) as repository:
        add_versions(repository, 80)
        head = repository.log.head
    chunks = []
    for _ in range(40):
        name, run, named = run_of(rng, 3)
        store.put("index", name, run)
        chunks += named
    with store.answering(8, "log", "index"):
        repository = opened(store)
    assert store.most == 8
    assert repository.log.head == head and len(repository.versions("r")) == 80
    assert repository.catalog.frames_count() == 120 and all(repository.catalog.chunks.locate(chunk) for chunk in chunks)


def test_index_runs_are_fetched_in_bounded_groups(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Far(8)
    repository = opened(store)
    runs = {name: run for name, run, _ in (run_of(rng, 20) for _ in range(12))}
    store.put_many("index", runs.items())
    monkeypatch.setattr(index, "_TOGETHER_BYTES", 3 * max(map(len, runs.values())) + 100)
    with store.answering(3, "index"):
        repository.refresh()
    assert store.most == 3
    assert repository.catalog.frames_count() == 240 and repository.catalog.runs() == runs.keys()


def test_one_damaged_run_among_others(rng: random.Random) -> None:
    """Its rows are refused as a whole, though what is wrong stands in its last one."""
    store = Far(4)
    repository = opened(store)
    good = [run_of(rng, 5) for _ in range(6)]
    _, run, named = run_of(rng, 5)
    bad = run[:-4] + (1 << 20).to_bytes(4, "little")  # a chunk longer than its frame
    store.put_many("index", [(name, value) for name, value, _ in good])
    store.put("index", digest(bad).hex(), bad)
    repository.refresh()
    assert repository.damaged_runs.keys() == {digest(bad).hex()}
    assert repository.catalog.frames_count() == 30
    assert all(repository.catalog.chunks.locate(chunk) for _, _, chunks in good for chunk in chunks)
    assert not any(repository.catalog.chunks.locate(chunk) for chunk in named)


def test_the_same_frame_in_several_runs(rng: random.Random) -> None:
    """Of runs taken in together, as after a merge by another machine: each row once."""
    store = Far(4)
    repository = opened(store)
    info = FrameInfo(rng.randbytes(32), "other", 1, 3, None, 300, 100)
    others = [FrameInfo(rng.randbytes(32), "other", 1, 3, None, 300, 100) for _ in range(2)]
    rows = [Row(rng.randbytes(32), 0, at, 100) for at in (0, 100, 200)]
    first, second = encode_run([info], rows[:2]), encode_run([*others, info], [row._replace(frame=2) for row in rows])
    store.put_many("index", [(digest(run).hex(), run) for run in (first, second)])
    repository.refresh()
    assert repository.catalog.frames_count() == 3 and repository.catalog.chunks.rows_count() == 3
    assert all([place.frame for place in repository.catalog.chunks.locate(row.digest)] == [info.name] for row in rows)


def test_a_slot_that_is_missing_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Far(4)
    with opened(store) as repository:
        add_versions(repository, 12)
    value = store.get("log", slot_name(7))
    store.delete("log", [slot_name(7)])
    with pytest.raises(CorruptData, match="log slot 7 is missing, though 000000000012 is there"):
        opened(store)
    store.put("log", slot_name(7), value)
    get = Far.get

    def lacking(self: Far, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        if (namespace, name) == ("log", slot_name(9)):
            raise ValueNotFound("it is listed, and not there")
        return get(self, namespace, name, start, length)

    monkeypatch.setattr(Far, "get", lacking)
    with pytest.raises(CorruptData, match="log slot 9 is missing, though 000000000012 is there"):
        opened(store)


class _Begun(MemoryStore):
    """A store in which another machine begins a repository between the question for its config and the listing."""

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        write_config(self, ANOTHER)
        return super().list(namespace, after)


def test_two_machines_begin_a_repository_at_the_same_time() -> None:
    assert read_config(_Begun(), create=True) == ANOTHER
    store = MemoryStore()
    store.put("log", slot_name(1), b"of something else")
    with pytest.raises(NotARepository):
        read_config(store, create=True)
    assert [*store.list("config")] == []
