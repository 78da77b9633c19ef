"""Cache: the right values stay, damage and loss of the cache harm nothing, and processes share it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from spraydry.errors import CorruptData, StoreFull, StoreUnavailable, UsageError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.stores.base import Store, Stored, open_store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over import limited
from spraydry.stores.over.ages import GUESS, Ages
from spraydry.stores.over.cache import Cache
from spraydry.stores.over.limited import CACHED
from spraydry.stores.over.meter import Meter
from tests.faulty_store import FaultyStore

SIZE = 1000


def value_of(number: int, size: int = SIZE) -> bytes:
    return random.Random(number).randbytes(size)


def name_of(number: int, size: int = SIZE) -> str:
    return digest(value_of(number, size)).hex()


def filled(count: int) -> FaultyStore:
    """A slow store with so many frames; its `calls` tell whether a cache was asked instead."""
    store = FaultyStore(MemoryStore(), seed=1)
    store.put_many("frames", ((name_of(number), value_of(number)) for number in range(count)))
    store.calls.clear()
    return store


def cached(local: Store) -> set[str]:
    return {stored.name for namespace in CACHED for stored in local.list(namespace)}


def held_bytes(local: Store) -> int:
    return sum(stored.size for namespace in CACHED for stored in local.list(namespace))


# -- what is cached


@pytest.mark.parametrize("namespace", CACHED)
@pytest.mark.parametrize("write_through", [True, False])
def test_read_and_written_values(namespace: str, write_through: bool) -> None:
    slow, local = FaultyStore(MemoryStore()), MemoryStore()
    store = Cache(slow, local, 1 << 20, write_through=write_through)
    store.put_many(namespace, ((name_of(number), value_of(number)) for number in range(3)))
    assert len(cached(local)) == (3 if write_through else 0)
    for _ in range(3):
        assert [store.get(namespace, name_of(number)) for number in range(3)] == [value_of(n) for n in range(3)]
        assert len(list(store.get_many(namespace, [name_of(n) for n in (2, 1, 0, 2)]))) == 4
    assert slow.calls["get"] == (0 if write_through else 3)
    store.delete(namespace, [name_of(0)])
    with pytest.raises(ValueNotFound):
        store.get(namespace, name_of(0))
    store.soft_delete(namespace, [name_of(1)])
    with pytest.raises(ValueNotFound):
        store.get(namespace, name_of(1))
    assert store.undelete(namespace, [name_of(1)]) == [name_of(1)]
    assert store.get(namespace, name_of(1)) == value_of(1)
    assert store.get(namespace, name_of(2)) == value_of(2)
    store.move(namespace, name_of(1), namespace, name_of(2))  # no name of it, but what was asked for
    assert store.get(namespace, name_of(2)) == value_of(1)


def test_what_changes_is_not_cached() -> None:
    slow, local = MemoryStore(), MemoryStore()
    store = Cache(slow, local, 1 << 20)
    for namespace in ("log", "config", "leases", "hoards"):
        store.put(namespace, name_of(1), value_of(1))
        assert store.get(namespace, name_of(1)) == value_of(1)
        slow.put(namespace, name_of(1), b"changed")
        assert store.get(namespace, name_of(1)) == b"changed"
        assert dict(store.get_many(namespace, [name_of(1)])) == {name_of(1): b"changed"}
    store.put("frames", "a", b"not a digest")
    assert store.get("frames", "a") == b"not a digest" and cached(local) == set()


def test_past_the_cache() -> None:
    slow, local = filled(3), MemoryStore()
    store = Cache(slow, local, 1 << 20)
    store.get("frames", name_of(0))
    slow.inner.put("frames", name_of(0), b"damaged")
    slow.inner.delete("frames", [name_of(1)])
    with store.uncached():
        with store.uncached():
            assert store.get("frames", name_of(0)) == b"damaged"
        assert dict(store.get_many("frames", [name_of(0), name_of(1), name_of(2)])) == {
            name_of(0): b"damaged",
            name_of(1): None,
            name_of(2): value_of(2),
        }
    assert cached(local) == {name_of(0)}  # what is only checked drives nothing out
    assert store.get("frames", name_of(0)) == value_of(0)


def test_ranges() -> None:
    slow, local = Meter(filled(2).inner), MemoryStore()
    store = Cache(slow, local, 1 << 20)
    assert store.get("frames", name_of(0), 10, 20) == value_of(0)[10:30]
    assert store.get("frames", name_of(0), -5) == value_of(0)[-5:]
    assert [found.down_bytes for found in slow.report()] == [25] and cached(local) == set()
    store.get("frames", name_of(0))
    for start, length in ((0, 10), (10, 20), (-5, None), (990, 100), (5000, 1), (-5000, 3)):
        part = value_of(0)[start:] if start > -SIZE else value_of(0)
        assert store.get("frames", name_of(0), start, length) == part[:length]
    assert [found.calls for found in slow.report()] == [3]
    with pytest.raises(ValueError, match="not a range"):
        store.get("frames", name_of(0), 0, -1)


def test_damaged_answers_are_not_cached() -> None:
    slow, local = filled(1), MemoryStore()
    store = Cache(slow, local, 1 << 20)
    for fault in ("truncate", "alter"):
        slow.next(fault)
        assert store.get("frames", name_of(0)) != value_of(0)
        assert cached(local) == set()
    assert store.get("frames", name_of(0)) == value_of(0) and cached(local) == {name_of(0)}


# -- what is evicted


def test_the_least_recently_used_go() -> None:
    slow, local = filled(200), MemoryStore()
    store = Cache(slow, local, 100 * SIZE)
    for number in range(50):
        store.get("frames", name_of(number))
    for number in range(50, 200):
        store.get("frames", name_of(number))
        for hot in range(number % 10, 20, 10):  # each of the first 20 once in ten
            store.get("frames", name_of(hot))
        assert held_bytes(local) <= 100 * SIZE
    kept = cached(local)
    assert kept >= {name_of(number) for number in range(20)}, "what is used again and again"
    assert kept >= {name_of(number) for number in range(140, 200)}, "what was used last"
    assert not kept & {name_of(number) for number in range(20, 100)}, "what was not used for long"
    assert slow.calls["get"] == 200


def test_order_survives_a_restart() -> None:
    slow, local = filled(140), MemoryStore()
    store = Cache(slow, local, 100 * SIZE)
    for number in (*range(80), *range(20)):
        store.get("frames", name_of(number))
    store.flush()
    again = Cache(slow, local, 100 * SIZE)
    for number in range(80, 140):
        again.get("frames", name_of(number))
        assert held_bytes(local) <= 100 * SIZE
    kept = cached(local)
    assert kept >= {name_of(number) for number in (*range(20), *range(80, 140))}
    assert not kept & {name_of(number) for number in range(20, 60)}


def test_a_large_cache_keeps_its_limit_and_what_is_hot() -> None:
    """More values than one sample holds, of many sizes, with threads."""
    rng = random.Random(1)
    sizes = [rng.choice((10, 100, 1000, 5000)) for _ in range(6000)]
    slow, local = FaultyStore(MemoryStore()), MemoryStore()
    for number, size in enumerate(sizes):
        slow.inner.put("frames", name_of(number, size), value_of(number, size))
    limit = sum(sizes) // 3
    store = Cache(slow, local, limit)
    hot = range(0, 6000, 60)

    def read(number: int) -> None:
        for wanted in (number, random.Random(number).choice(hot)):
            assert store.get("frames", name_of(wanted, sizes[wanted])) == value_of(wanted, sizes[wanted])
        if number % 100 == 0:
            assert held_bytes(local) <= limit * 1.02

    with ThreadPoolExecutor(4) as pool:  # they take the numbers in turn, so that none lags behind
        list(pool.map(read, range(6000)))
    kept = cached(local)
    assert sum(name_of(number, sizes[number]) in kept for number in hot) >= 95
    newest = [name_of(number, sizes[number]) in kept for number in range(4800, 6000)]
    oldest = [name_of(number, sizes[number]) in kept for number in range(2400) if number % 60]
    print(f"{sum(newest) / len(newest):.1%} of the newest, {sum(oldest) / len(oldest):.1%} of the oldest are there")
    assert sum(newest) > 0.9 * len(newest) and sum(oldest) < 0.1 * len(oldest)
    assert held_bytes(local) > 0.8 * limit


def test_two_that_share_a_cache_count_each_other_s() -> None:
    """As two processes do that begin at the same time: the limit is overstepped by what they do not know yet."""
    slow, local = filled(198), MemoryStore()
    stores = [Cache(slow, local, 100 * SIZE) for _ in range(2)]
    most = 0
    for number in range(198):
        stores[number % 2].get("frames", name_of(number))
        most = max(most, held_bytes(local))
    assert most <= 115 * SIZE
    assert len(cached(local) & {name_of(number) for number in range(138, 198)}) > 50


def test_killed_again_and_again_it_keeps_its_limit(rng: random.Random) -> None:
    """Without ever being closed: what was not counted is allowed for."""
    slow, local = filled(300), MemoryStore()
    for _ in range(300):
        store = Cache(slow, local, 100 * SIZE)
        for _ in range(rng.choice((rng.randrange(40), rng.randrange(300)))):
            store.get("frames", name_of(rng.randrange(300)))
            assert held_bytes(local) <= 100 * SIZE
    assert held_bytes(local) > 70 * SIZE


def test_a_listing_that_breaks_off_is_no_count() -> None:
    class BreaksOff(MemoryStore):
        after = 0  # values of the next listing

        def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
            for place, stored in enumerate(super().list(namespace, after)):
                if self.after and place == self.after:
                    self.after = 0
                    raise StoreUnavailable("gone")
                yield stored

    slow, local = filled(160), BreaksOff()
    store = Cache(slow, local, 100 * SIZE)
    for number in range(160):
        if number == 100:
            local.after = 20
        store.get("frames", name_of(number))
        store._no_writes_before = 0.0
        assert held_bytes(local) <= 100 * SIZE
    assert store.limited.trouble == "gone" and local.after == 0


def test_values_on_their_way_count() -> None:
    slow, local = filled(110), FaultyStore(MemoryStore())
    store = Cache(slow, local, 100 * SIZE)
    large = [(name_of(500 + number), value_of(500 + number)) for number in range(40)]
    local.next("hang")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.limited.keep, "frames", large)
        assert local.hanging.acquire(timeout=120)
        for number in range(70):
            store.get("frames", name_of(number))  # a round of the listing ends without those that are being written
        local.release()
        writing.result(120)
    for number in range(70, 100):
        store.get("frames", name_of(number))
        assert held_bytes(local) <= 100 * SIZE


def test_values_too_large_for_it() -> None:
    slow, local = filled(1), MemoryStore()
    store = Cache(slow, local, SIZE)
    assert store.get("frames", name_of(0)) == value_of(0) and cached(local) == set()
    store.put_many("frames", ((name_of(number), value_of(number)) for number in range(5)))
    assert cached(local) == set()


def test_memory_for_a_million_values() -> None:
    names = [digest(b"%d" % number).hex() for number in range(1_000_000)]
    tracemalloc.start()
    ages = Ages(1 << 40)
    for name in names[:1000]:
        ages.use(name)
    ages.advance(100)  # a copy of the table, for a moment
    assert tracemalloc.get_traced_memory()[1] < 9 << 20
    tracemalloc.stop()
    for place, name in enumerate(names):
        if place == 500_000:
            ages.advance(101)
        ages.use(name)
    assert all(ages.used(name) == 101 for name in names[500_000:])
    wrong = sum(ages.used(name) != 100 for name in names[:500_000]) / 500_000
    print(f"{wrong:.1%} seem newer than they are")
    assert wrong < 0.1


def test_ages_go_on_for_long_and_merge() -> None:
    ages, other = Ages(1 << 20), Ages(1 << 20)
    names = [name_of(number) for number in range(1000)]
    assert ages.used(names[0]) == ages.generation - GUESS
    for generation, name in enumerate(names, 40):
        ages.advance(generation)
        ages.use(name)
    used = [ages.used(name) for name in names]
    assert used[-120:] == list(range(used[-1] - 119, used[-1] + 1)) and used[0] == used[-1] - GUESS
    other.use(names[0])
    assert other.merge(ages.encode(123, 45)) == (123, 45) and other.generation == 1039
    assert [other.used(name) for name in names[-120:]] == used[-120:]
    ages.advance(1050)
    ages.use(names[5])
    other.use(names[6])
    ages.merge(other.encode(0, 0))
    assert ages.used(names[5]) > ages.used(names[6]) > ages.used(names[990])
    other.advance(1200)
    other.use(names[7])
    other.merge(ages.encode(0, 0))
    assert other.used(names[7]) - other.used(names[5]) == 1200 - 1050
    for bad in (b"", b"x" * 100, ages.encode(0, 0)[:-1], bytes(8) + ages.encode(0, 0)[8:]):
        with pytest.raises(CorruptData):
            ages.merge(bad)
    ages.merge(Ages(1 << 30).encode(0, 0))  # of another limit


# -- a cache that is damaged, lost, full, or broken


def test_damaged_entries_are_replaced(rng: random.Random) -> None:
    slow, local = filled(40), MemoryStore()
    store = Cache(slow, local, 1 << 20)
    names = [name_of(number) for number in range(40)]
    list(store.get_many("frames", names))
    slow.calls.clear()
    for place, name in enumerate(names):
        value = bytearray(local.get("frames", name))
        if place % 4 == 0:
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        elif place % 4 == 1:
            del value[rng.randrange(len(value)) :]
        elif place % 4 == 2:
            value = bytearray(value_of((place + 1) % 40))
        else:
            value += b"\0"
        local.put("frames", name, value)
    assert store.get("frames", names[4], 5, 7) == value_of(4)[5:12] and names[4] not in cached(local)
    for number, name in enumerate(names):
        assert store.get("frames", name, *((5, 7) if number % 8 > 3 else ())) == (
            value_of(number)[5:12] if number % 8 > 3 else value_of(number)
        )
    assert slow.calls["get"] == 41
    assert dict(store.get_many("frames", names)) == {name: value_of(number) for number, name in enumerate(names)}
    assert all(local.get("frames", name) == value_of(number) for number, name in enumerate(names))


def test_deleted_while_open(rng: random.Random) -> None:
    slow, local = filled(300), MemoryStore()
    store = Cache(slow, local, 100 * SIZE)
    for turn in range(900):
        number = rng.randrange(300)
        assert store.get("frames", name_of(number)) == value_of(number)
        if turn % 150 == 70:
            local.delete("frames", rng.sample(sorted(cached(local)), 50))
        elif turn % 150 == 140:
            for namespace in (*CACHED, "config"):
                local.delete(namespace, [stored.name for stored in local.list(namespace)])
        assert held_bytes(local) <= 100 * SIZE
    store.close()


def test_broken_from_the_start_and_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "_REST_S", 3600.0)
    slow, local = filled(50), FaultyStore(MemoryStore())
    local.rates["down"] = 1.0
    store = Cache(slow, local, 100 * SIZE)
    assert store.limited.trouble is not None and "cannot be reached" in store.limited.trouble

    def read() -> None:
        for number in range(50):
            assert store.get("frames", name_of(number)) == value_of(number)
        assert len(list(store.get_many("frames", [name_of(number) for number in range(50)]))) == 50
        store.put("frames", name_of(60), value_of(60))
        store.delete("frames", [name_of(60)])
        store.flush()

    read()
    assert local.calls.total() < 10  # it is left alone for a while
    store.limited._no_reads_before = store.limited._no_writes_before = 0.0
    local.heal()
    read()
    assert len(cached(local)) == 50
    for fault in ("down", "throttle", "disconnect", "truncate", "alter", "read_only", "lost_answer", "full"):
        local.rates = {fault: 0.5}
        store.limited._no_reads_before = store.limited._no_writes_before = 0.0
        read()
        assert local.faults[fault]
    slow.rates["down"] = 1.0
    with pytest.raises(StoreUnavailable):
        store.get("frames", name_of(99))
    store.close()


@pytest.mark.parametrize("noticed", ["frames", "config"])
def test_a_full_disk_makes_it_smaller(noticed: str) -> None:
    """Whether a value or the cache's own table is what does not fit."""

    class Small(MemoryStore):
        def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
            for name, value in values:
                if namespace == noticed and self.stat().bytes + len(value) > 40 * SIZE:
                    raise StoreFull("no room is left")
                super().put_many(namespace, [(name, value)])

    slow, local = filled(200), Small()
    store = Cache(slow, local, 100 * SIZE)
    for number in range(200):
        for wanted in (number, number % 10):
            assert store.get("frames", name_of(wanted)) == value_of(wanted)
    assert store.limited.trouble == "no room is left" and 25 * SIZE < store.limited.limit_bytes < 40 * SIZE
    assert 20 * SIZE < held_bytes(local) <= store.limited.limit_bytes
    assert cached(local) >= {name_of(number) for number in range(10)}
    assert slow.calls["get"] < 240


def test_a_cache_that_cannot_be_written() -> None:
    values: dict[tuple[str, str], bytes] = {("frames", name_of(0)): value_of(0), ("frames", name_of(1)): b"damaged"}
    slow = filled(3)
    store = Cache(slow, MemoryStore(values, read_only=True), 1 << 20)
    for _ in range(2):
        assert [store.get("frames", name_of(number)) for number in range(3)] == [value_of(n) for n in range(3)]
    assert slow.calls["get"] == 4 and store.limited.trouble is None
    store.close()


def test_a_repository_is_no_cache() -> None:
    local = MemoryStore()
    local.put("config", "config", b"x")
    with pytest.raises(UsageError, match="must not lie in a repository"):
        Cache(MemoryStore(), local, 1 << 20)


class Model(RuleBasedStateMachine):
    """A cached store and a dict that get the same calls, while the cache loses and alters what it has."""

    numbers = st.integers(0, 7)

    def __init__(self) -> None:
        super().__init__()
        self.local = FaultyStore(MemoryStore(), seed=1)
        self.local.rates = {"truncate": 0.05, "alter": 0.05}
        self.slow = MemoryStore()
        self.store = Cache(self.slow, self.local, 5000)
        self.model: dict[str, bytes] = {}

    @rule(numbers=st.lists(numbers, max_size=4), through=st.booleans())
    def put_many(self, numbers: list[int], through: bool) -> None:
        self.store._write_through = through
        self.store.put_many("frames", ((name_of(number), value_of(number)) for number in numbers))
        self.model |= {name_of(number): value_of(number) for number in numbers}

    @rule(number=numbers)
    def put_another(self, number: int) -> None:
        self.store.put("frames", name_of(number), b"no such content")
        self.model[name_of(number)] = b"no such content"

    @rule(gone=st.lists(numbers, max_size=4), soft=st.booleans())
    def delete(self, gone: list[int], soft: bool) -> None:
        names = [name_of(number) for number in gone]
        self.store.soft_delete("frames", names) if soft else self.store.delete("frames", names)
        for name in names:
            self.model.pop(name, None)

    @rule(number=numbers, to=numbers)
    def move(self, number: int, to: int) -> None:
        if name_of(number) in self.model:
            self.store.move("frames", name_of(number), "frames", name_of(to))
            self.model[name_of(to)] = self.model.pop(name_of(number))

    @rule(number=numbers, start=st.integers(-5, 5), length=st.none() | st.integers(0, 60))
    def get(self, number: int, start: int, length: int | None) -> None:
        value = self.model.get(name_of(number))
        if value is None:
            with pytest.raises(ValueNotFound):
                self.store.get("frames", name_of(number), start, length)
        else:
            assert self.store.get("frames", name_of(number), start, length) == value[start:][:length]

    @rule(numbers=st.lists(numbers, max_size=6))
    def get_many(self, numbers: list[int]) -> None:
        names = [name_of(number) for number in numbers]
        assert list(self.store.get_many("frames", iter(names))) == [(name, self.model.get(name)) for name in names]

    @rule(number=numbers)
    def lose(self, number: int) -> None:
        self.local.delete("frames", [name_of(number)])

    @rule()
    def reopen(self) -> None:
        self.store.flush()
        self.store = Cache(self.slow, self.local, 5000)

    @invariant()
    def small(self) -> None:
        assert held_bytes(self.local) <= 5000


def test_behaves_like_a_dict() -> None:
    run_state_machine_as_test(Model, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


# -- processes

WORKER = """
import random, sys
from spraydry.format.digest import digest
from spraydry.stores.base import open_store
from spraydry.stores.over.cache import Cache
slow, local, limit, seed, reads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
store = Cache(open_store(slow, read_only=True), open_store(local, create=True), limit)
names = [stored.name for stored in store.list("frames")]
rng = random.Random(seed)
print("ready", flush=True)
for _ in range(reads):
    name = rng.choice(names)
    assert digest(store.get("frames", name)).hex() == name
print("trouble:", store.limited.trouble)
store.close()
"""


@pytest.fixture(params=["sqlite", "dir", "segment"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of a slow store with 300 frames and of a cache not there yet."""
    slow = open_store(f"{tmp_path}/slow.sqlite", create=True)
    slow.put_many("frames", ((name_of(number), value_of(number)) for number in range(300)))
    slow.close()
    local = f"{request.param}:{tmp_path}/cache"
    try:
        open_store(local, create=True).close()
    except UsageError as error:
        pytest.skip(f"NOT TESTED: {error}")
    return f"{tmp_path}/slow.sqlite", local


def worker(places: tuple[str, str], seed: int, reads: int) -> subprocess.Popen[str]:
    arguments = [*places, str(100 * SIZE), str(seed), str(reads)]
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_processes_share_it(places: tuple[str, str]) -> None:
    workers = [worker(places, seed, 500) for seed in range(3)]
    for done in workers:
        assert done.communicate(timeout=600) == ("ready\ntrouble: None\n", "")
    local = open_store(places[1])
    assert 60 * SIZE < held_bytes(local) <= 125 * SIZE
    store = Cache(open_store(places[0]), local, 100 * SIZE)
    for number in range(300):
        assert store.get("frames", name_of(number)) == value_of(number)
    assert held_bytes(local) <= 100 * SIZE and store.limited.trouble is None
    store.close()


def test_killed_while_writing(places: tuple[str, str]) -> None:
    rng = random.Random(1)
    for turn in range(8):
        running = worker(places, turn, 1_000_000)
        assert running.stdout is not None and running.stderr is not None
        assert running.stdout.readline() == "ready\n", running.stderr.read()
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(rng.uniform(0.01, 0.3))
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
        local = open_store(places[1])
        store = Cache(open_store(places[0]), local, 100 * SIZE)
        before = cached(local)
        assert all(digest(local.get("frames", name)).hex() == name for name in before)
        for number in rng.sample(range(300), 20):
            assert store.get("frames", name_of(number)) == value_of(number)
        assert 0 < held_bytes(local) <= 100 * SIZE and store.limited.trouble is None
        store.close()
