"""Throttle: latencies overlap, bandwidths are those asked for, and neither is there where it was not asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from spraydry.stores.base import Store, Traits
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over import throttle
from spraydry.stores.over.throttle import Throttle
from tests.virtual_time import VirtualTime


@pytest.fixture
def below() -> MemoryStore:
    store = MemoryStore()
    store.put_many("frames", ((f"{number:02d}", bytes(100_000)) for number in range(64)))
    return store


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    virtual = VirtualTime()
    monkeypatch.setattr(throttle, "time", virtual)
    return virtual


NAMES = [f"{number:02d}" for number in range(64)]


def test_each_call_takes_longer(below: MemoryStore, clock: VirtualTime) -> None:
    store = Throttle(below, latency_s=0.02)
    calls: list[Callable[[], object]] = [
        lambda: store.get("frames", "00"),
        lambda: store.put("frames", "a", b""),
        lambda: store.create("log", "1", b""),
        lambda: store.info("frames", "00"),
        lambda: list(store.list("frames")),
        lambda: store.delete("frames", ["a"]),
        lambda: store.move("frames", "01", "frames", "02"),
        store.stat,
    ]
    for call in calls:
        assert clock.spent(call) == pytest.approx(0.02)


def test_time_really_passes(below: MemoryStore) -> None:
    began_s = time.monotonic()
    Throttle(below, latency_s=0.02).get("frames", "00")
    Throttle(below, down_bytes_s=1_000_000).get("frames", "00")
    assert time.monotonic() - began_s >= 0.06


def test_latencies_overlap(below: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(64, timeout=120)
    slept: list[float] = []

    class Together(VirtualTime):
        def sleep(self, seconds: float) -> None:
            slept.append(seconds)
            together.wait()  # for 64 that sleep at the same time

    monkeypatch.setattr(throttle, "time", Together())
    store = Throttle(below, latency_s=0.05)
    with ThreadPoolExecutor(64) as pool:
        assert len(list(pool.map(lambda name: store.get("frames", name), NAMES))) == 64
    assert slept == [0.05] * 64


def test_calls_for_many_values_take_some_at_a_time(below: MemoryStore, clock: VirtualTime) -> None:
    store = Throttle(below, latency_s=0.05)
    calls: list[Callable[[], object]] = [
        lambda: list(store.get_many("frames", NAMES)),
        lambda: store.put_many("frames", [(name, b"") for name in NAMES]),
        lambda: store.delete("frames", NAMES),
    ]
    for call in calls:
        assert clock.spent(call) == pytest.approx(0.2), "16 at a time"


def test_traits(below: MemoryStore) -> None:
    below.traits = Traits(1, 0.0)
    assert Throttle(below).traits == Traits(1, 0.0)
    assert Throttle(below, latency_s=0.02).traits == Traits(16, 0.02)
    below.traits = Traits(4, 0.01, atomic_create=False)
    assert Throttle(below, latency_s=0.02).traits == Traits(4, 0.03, False)


class TimeOfEach(threading.local):
    """As VirtualTime, but each thread has its own, and all begin at once; what came is noted in `reached_s`."""

    def __init__(self, reached_s: list[float]) -> None:
        self.now_s = 0.0
        self.reached_s = reached_s

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.reached_s.append(self.now_s)


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_bandwidth(below: MemoryStore, threads: int, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """About what was asked, over a second and a half, however many share it."""
    rate, reached_s = 4_000_000, [0.0]
    monkeypatch.setattr(throttle, "time", TimeOfEach(reached_s))
    store: Store = Throttle(below, **{f"{direction}_bytes_s": rate})
    calls: dict[str, Callable[[str], object]] = {
        "down": lambda name: store.get("frames", name),
        "up": lambda name: store.put("index", name, bytes(100_000)),
    }
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(calls[direction], NAMES))
    assert 1.0 * rate < 6_400_000 / max(reached_s) < 1.1 * rate
    before = len(reached_s)
    for name in NAMES:
        calls["up" if direction == "down" else "down"](name)
    assert len(reached_s) == before, "the other way nothing waits"


def test_bulk_calls_share_the_bandwidth(below: MemoryStore, clock: VirtualTime) -> None:
    store = Throttle(below, up_bytes_s=8_000_000, down_bytes_s=8_000_000)
    assert 0.7 < clock.spent(lambda: list(store.get_many("frames", NAMES))) < 0.9
    clock.sleep(1)
    assert 0.7 < clock.spent(lambda: store.put_many("index", ((name, bytes(100_000)) for name in NAMES))) < 0.9
    clock.sleep(1)
    assert 0.05 < clock.spent(lambda: [store.create("log", name, bytes(100_000)) for name in NAMES[:10]]) < 0.15


def test_a_pause_saves_up_nothing_to_speak_of(below: MemoryStore, clock: VirtualTime) -> None:
    store = Throttle(below, down_bytes_s=1_000_000)
    store.get("frames", "00")
    clock.sleep(0.3)
    assert clock.spent(lambda: [store.get("frames", "00") for _ in range(3)]) > 0.2
