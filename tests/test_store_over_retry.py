"""Retry: what is repeated, how often, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spraydry.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable, ValueNotFound
from spraydry.stores.base import Store, Traits, open_store
from spraydry.stores.database import database
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over import retry
from spraydry.stores.over.passing import BATCH_VALUES
from spraydry.stores.over.retry import Retry
from tests.faulty_store import Fault, FaultyStore
from tests.virtual_time import VirtualTime

NAMES = [f"{number:05d}" for number in range(2500)]


def quick(store: Store, tries: int = 5) -> Retry:
    return Retry(store, tries=tries, first_wait_s=0.0005, seed=1)


@pytest.fixture
def below() -> FaultyStore:
    store = FaultyStore(MemoryStore(), seed=1)
    store.put("frames", "a", b"value")
    store.calls.clear()
    return store


CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("frames", "a", 1, 2) == b"al",
    "info": lambda store: store.info("frames", "a") is not None,
    "list": lambda store: len(list(store.list("frames"))) == 1,
    "put_many": lambda store: store.put("frames", "b", b"new") is None and store.inner.get("frames", "b") == b"new",  # type: ignore[attr-defined]
    "delete": lambda store: store.delete("frames", ["a"]) is None and not store.inner.inner.info("frames", "a"),  # type: ignore[attr-defined]
    "create": lambda store: store.create("frames", "c", b"new"),
}


@pytest.mark.parametrize("operation", CALLS)
def test_tried_again_until_it_works(below: FaultyStore, operation: str) -> None:
    below.next("throttle", 1 if operation == "create" else 4)
    assert CALLS[operation](quick(below))
    assert below.faults["throttle"] >= 1 and below.calls[operation] >= 2


@pytest.mark.parametrize("operation", CALLS)
def test_tries_end(below: FaultyStore, operation: str) -> None:
    below.rates["down"] = 1.0
    with pytest.raises(StoreUnavailable, match=r"connection refused \(tried \d+ times in ") as caught:
        CALLS[operation](quick(below, tries=3))
    assert "\n" not in str(caught.value) and str(caught.value).count("tried") == 1
    assert below.calls.total() == (4 if operation == "create" else 3)  # create looks whether its value is there


def test_waits_grow_and_are_seeded(below: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    below.rates["down"] = 1.0

    def waits(seed: int) -> list[float]:
        slept: list[float] = []
        monkeypatch.setattr(retry.time, "sleep", slept.append)
        with pytest.raises(StoreUnavailable):
            Retry(below, tries=8, first_wait_s=0.5, longest_wait_s=10.0, seed=seed).get("frames", "a")
        return slept

    found = waits(1)
    for wait, longest in zip(found, [0.5, 1, 2, 4, 8, 10, 10], strict=True):
        assert longest / 2 <= wait <= longest
    assert found == waits(1) != waits(2)


def test_total_time_ends(below: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    below.rates["down"] = 1.0
    clock = VirtualTime()
    monkeypatch.setattr(retry, "time", clock)
    store = Retry(below, tries=10_000, total_s=0.2, first_wait_s=0.01)

    def ask() -> None:
        with pytest.raises(StoreUnavailable):
            store.get("frames", "a")

    assert 0.05 < clock.spent(ask) <= 0.2
    assert 4 < below.calls["get"] < 100


@pytest.mark.parametrize(("fault", "kind"), [("full", StoreFull), ("read_only", StoreReadOnly)])
def test_what_cannot_help_is_not_repeated(below: FaultyStore, fault: Fault, kind: type[StoreError]) -> None:
    below.rates[fault] = 1.0
    for ask in (lambda s: s.put("frames", "b", b""), lambda s: s.create("frames", "b", b"")):
        with pytest.raises(kind):
            ask(quick(below))
    with pytest.raises(ValueNotFound):
        quick(below).get("frames", "missing")
    with pytest.raises(ValueError, match="not a key"):
        quick(below).get("frames", "../a")
    assert below.calls == {"put_many": 1, "create": 1, "get": 2}


# -- streams


@pytest.mark.parametrize("concurrency", [1, 8])
def test_listings_and_many_values_go_on_where_they_were(below: FaultyStore, concurrency: int) -> None:
    below.inner.put_many("index", ((name, name.encode()) for name in NAMES))
    below.traits = Traits(concurrency)
    below.rates = {"disconnect": 0.01, "throttle": 0.01}
    store = quick(below)
    assert [stored.name for stored in store.list("index", NAMES[9])] == NAMES[10:]
    asked = [*NAMES, "missing", *NAMES[:5]]
    assert list(store.get_many("index", iter(asked))) == [
        (name, None if name == "missing" else name.encode()) for name in asked
    ]
    assert below.faults["disconnect"] > 20 and below.calls["list"] > 5


def test_streams_end_too(below: FaultyStore) -> None:
    below.inner.put_many("index", ((name, b"") for name in NAMES))
    store = quick(below)
    listing, values = store.list("index"), store.get_many("index", NAMES)
    next(listing), next(values)
    below.rates = {"disconnect": 1.0, "throttle": 1.0}
    for stream in (listing, values):
        with pytest.raises(StoreUnavailable, match="tried 5 times"):
            list(stream)


def test_an_iterator_is_drawn_once(below: FaultyStore) -> None:
    drawn = []

    def values() -> Iterator[tuple[str, bytes]]:
        reused = bytearray(5)
        for name in NAMES:
            drawn.append(name)
            reused[:] = name.encode()
            yield name, reused

    for fault in ("disconnect", "lost_answer", "throttle"):
        below.next(fault)
    quick(below).put_many("index", values())
    assert drawn == NAMES and sum(below.faults.values()) == 3
    assert [(stored.name, below.inner.get("index", stored.name)) for stored in below.inner.list("index")] == [
        (name, name.encode()) for name in NAMES
    ]
    below.next("disconnect", 2)
    quick(below).delete("index", iter(NAMES[3:]))
    assert [stored.name for stored in below.inner.list("index")] == NAMES[:3]
    assert len(NAMES) > BATCH_VALUES


def test_errors_of_the_caller_are_not_ours(below: FaultyStore) -> None:
    """Values may come from another store, which fails in its own way."""

    def values() -> Iterator[tuple[str, bytes]]:
        yield "b", b""
        raise StoreUnavailable("the other store")

    with pytest.raises(StoreUnavailable, match=r"^the other store$"):
        quick(below).put_many("frames", values())
    with pytest.raises(StoreUnavailable, match=r"^the other store$"), quick(below).batch():
        raise StoreUnavailable("the other store")


# -- create and move: what is not the same twice


def test_create_where_nothing_was_written(below: FaultyStore) -> None:
    below.next("disconnect", 2)
    assert quick(below).create("log", "1", b"mine")
    assert not quick(below).create("log", "1", b"mine")
    below.next("throttle")
    assert not quick(below).create("log", "1", b"another")


def test_create_whose_answer_was_lost(below: FaultyStore) -> None:
    below.next("lost_answer")
    with pytest.raises(StoreUnavailable, match="log/1 is there, but whether this process wrote it is unknown"):
        quick(below).create("log", "1", b"mine")
    assert below.inner.get("log", "1") == b"mine"
    below.next("lost_answer")
    assert quick(below).create("log", "1", b"another") is False


def test_create_that_arrives_late(below: FaultyStore) -> None:
    """The first try's value comes to be only after it was looked for: the second try then is refused by our own."""

    class Late(FaultyStore):
        def create(self, namespace: str, name: str, value: bytes) -> bool:
            self.calls["create"] += 1
            if self.calls["create"] == 1:
                raise StoreUnavailable("no answer in time")
            self.inner.put(namespace, name, b"mine")
            return self.inner.create(namespace, name, value)

    with pytest.raises(StoreUnavailable, match="unknown"):
        quick(Late(MemoryStore())).create("log", "1", b"mine")
    assert quick(Late(MemoryStore())).create("log", "1", b"another") is False


@pytest.mark.parametrize("own", [True, False], ids=["own values", "the same value"])
def test_of_racing_creators_never_two_win(own: bool) -> None:
    below = FaultyStore(MemoryStore(), seed=3)
    below.rates = {"lost_answer": 0.2, "throttle": 0.2, "disconnect": 0.1}
    ready = threading.Barrier(8)

    def race(thread: int) -> tuple[set[int], set[int]]:
        store = Retry(below, tries=20, first_wait_s=0.0001, seed=thread)
        ready.wait()
        won, unknown = set(), set()
        for slot in range(30):
            try:
                if store.create("log", f"{slot:04d}", b"%d" % thread if own else b"same"):
                    won.add(slot)
            except StoreUnavailable:
                unknown.add(slot)
        return won, unknown

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(race, range(8)))
    winners = [slot for won, _ in results for slot in won]
    assert len(winners) == len(set(winners))
    assert set(winners).union(*(unknown for _, unknown in results)) == set(range(30))
    if own:
        for thread, (won, unknown) in enumerate(results):
            for slot in range(30):
                mine = below.inner.get("log", f"{slot:04d}") == b"%d" % thread
                assert mine == (slot in won or slot in unknown)
    assert below.faults["lost_answer"] > 3


def test_move(below: FaultyStore) -> None:
    class Renaming(FaultyStore):
        """Moves in one step, whose answer can be lost."""

        def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
            self._call("move")
            self.inner.move(namespace, name, to_namespace, to)
            self._answer()

    for kind in (FaultyStore, Renaming):
        store = kind(MemoryStore(), seed=1)
        store.put("frames", "a", b"value")
        store.next("lost_answer")
        quick(store).move("frames", "a", "frames", "b")
        assert [stored.name for stored in store.list("frames")] == ["b"]
        with pytest.raises(ValueNotFound):
            quick(store).move("frames", "a", "frames", "b")
        store.next("lost_answer")
        quick(store).soft_delete("frames", ["a", "b"])
        store.next("lost_answer")
        assert quick(store).undelete("frames", ["a", "b"]) == ["b"]
        assert store.inner.get("frames", "b") == b"value" and store.faults["lost_answer"] == 3
        store.next("throttle")
        with pytest.raises(ValueNotFound):
            quick(store).move("frames", "a", "frames", "c")


def test_a_batch_waits_for_a_lock(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real file: another connection writes longer than SQLite itself waits."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    other = open_store(f"{tmp_path}/store.sqlite", create=True)
    mine = open_store(f"{tmp_path}/store.sqlite")
    held, finish = threading.Event(), threading.Event()

    def write() -> None:
        with other.batch():
            other.put("frames", "a", b"x")
            held.set()
            finish.wait()

    writer = threading.Thread(target=write)
    writer.start()
    held.wait()
    with pytest.raises(StoreUnavailable), mine.batch():
        pass
    slept: list[float] = []

    def sleep(wait: float) -> None:
        slept.append(wait)
        finish.set()
        writer.join()

    monkeypatch.setattr(retry.time, "sleep", sleep)
    with Retry(mine).batch():
        mine.put("frames", "b", b"y")
    assert len(slept) == 1 and [stored.name for stored in mine.list("frames")] == ["a", "b"]
    mine.close()
    other.close()
