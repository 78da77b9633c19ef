"""Throttle: latencies overlap, bandwidths are those asked for, and neither is there where it was not asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from spraydry.stores.base import Store, Traits
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over.throttle import Throttle


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.fixture
def below() -> MemoryStore:
    store = MemoryStore()
    store.put_many("frames", ((f"{number:02d}", bytes(100_000)) for number in range(64)))
    return store


NAMES = [f"{number:02d}" for number in range(64)]


def test_each_call_takes_longer(below: MemoryStore) -> None:
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
        assert 0.02 <= seconds(call) < 0.06


def test_latencies_overlap(below: MemoryStore) -> None:
    store = Throttle(below, latency_s=0.05)
    with ThreadPoolExecutor(64) as pool:
        assert 0.05 <= seconds(lambda: list(pool.map(lambda name: store.get("frames", name), NAMES))) < 0.8
    assert 0.2 <= seconds(lambda: list(store.get_many("frames", NAMES))) < 0.6  # 16 at a time
    assert 0.2 <= seconds(lambda: store.put_many("frames", [(name, b"") for name in NAMES])) < 0.6
    assert 0.2 <= seconds(lambda: store.delete("frames", NAMES)) < 0.6


def test_traits(below: MemoryStore) -> None:
    below.traits = Traits(1, 0.0)
    assert Throttle(below).traits == Traits(1, 0.0)
    assert Throttle(below, latency_s=0.02).traits == Traits(16, 0.02)
    below.traits = Traits(4, 0.01, atomic_create=False)
    assert Throttle(below, latency_s=0.02).traits == Traits(4, 0.03, False)


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_bandwidth(below: MemoryStore, threads: int, direction: str) -> None:
    """Within a fifth of what was asked, over a second and a half, however many share it."""
    rate = 4_000_000
    store: Store = Throttle(below, **{f"{direction}_bytes_s": rate})
    calls: dict[str, Callable[[str], object]] = {
        "down": lambda name: store.get("frames", name),
        "up": lambda name: store.put("index", name, bytes(100_000)),
    }
    with ThreadPoolExecutor(threads) as pool:
        spent = seconds(lambda: list(pool.map(calls[direction], NAMES)))
    assert 0.8 * rate < 6_400_000 / spent < 1.2 * rate
    calls["other way"] = calls["up" if direction == "down" else "down"]
    assert seconds(lambda: [calls["other way"](name) for name in NAMES]) < 0.5


def test_bulk_calls_share_the_bandwidth(below: MemoryStore) -> None:
    store = Throttle(below, up_bytes_s=8_000_000, down_bytes_s=8_000_000)
    assert 0.6 < seconds(lambda: list(store.get_many("frames", NAMES))) < 1.0
    assert 0.6 < seconds(lambda: store.put_many("index", ((name, bytes(100_000)) for name in NAMES))) < 1.0
    assert 0.05 < seconds(lambda: [store.create("log", name, bytes(100_000)) for name in NAMES[:10]]) < 0.3


def test_a_pause_saves_up_nothing_to_speak_of(below: MemoryStore) -> None:
    store = Throttle(below, down_bytes_s=1_000_000)
    store.get("frames", "00")
    time.sleep(0.3)
    assert seconds(lambda: [store.get("frames", "00") for _ in range(3)]) > 0.2
