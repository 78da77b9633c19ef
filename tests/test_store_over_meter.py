"""Meter: what it counts is what happened, and counting costs little."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spraydry.errors import StoreUnavailable, ValueNotFound
from spraydry.stores.base import Store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over import meter as meter_module
from spraydry.stores.over.meter import Meter, Operation
from tests import faulty_store
from tests.faulty_store import FaultyStore
from tests.virtual_time import VirtualTime


def counts(meter: Meter) -> dict[str, tuple[int, int, int, int]]:
    return {found.name: found[1:5] for found in meter.report()}


def operation(meter: Meter, name: str) -> Operation:
    return next(found for found in meter.report() if found.name == name)


def test_calls_and_bytes() -> None:
    meter = Meter(MemoryStore())
    assert meter.report() == []
    meter.put_many("frames", ((name, name.encode() * 10) for name in ("a", "bb", "ccc")))
    meter.put("frames", "d", memoryview(b"12345"))
    assert meter.get("frames", "bb") + meter.get("frames", "bb", 2, 5) == b"b" * 25
    with pytest.raises(ValueNotFound):
        meter.get("frames", "missing")
    assert len(dict(meter.get_many("frames", ["a", "missing", "ccc"]))) == 3
    assert meter.create("log", "1", b"123") and not meter.create("log", "1", b"1234")
    assert len(list(meter.list("frames"))) == 4 and meter.info("frames", "a")
    with meter.batch():
        meter.delete("frames", ["a"])
    meter.move("frames", "bb", "frames", "b")
    meter.stat(), meter.flush()
    assert counts(meter) == {
        "put_many": (2, 0, 65, 0),
        "get": (3, 0, 0, 25),
        "get_many": (1, 0, 0, 40),
        "create": (2, 0, 7, 0),
        "delete": (1, 0, 0, 0),
        "list": (1, 0, 0, 0),
        "info": (1, 0, 0, 0),
        "move": (1, 0, 0, 0),
        "stat": (1, 0, 0, 0),
        "batch": (1, 0, 0, 0),
        "flush": (1, 0, 0, 0),
    }
    assert [found.name for found in meter.report()] == sorted(counts(meter))


def test_errors() -> None:
    below = FaultyStore(MemoryStore())
    meter = Meter(below)
    meter.put("frames", "a", b"x")
    below.rates["down"] = 1.0
    for ask in (
        lambda: meter.get("frames", "a"),
        lambda: meter.put("frames", "b", b"12"),
        lambda: list(meter.list("frames")),
    ):
        with pytest.raises(StoreUnavailable):
            ask()
    below.heal()
    with pytest.raises(ZeroDivisionError):
        meter.put_many("frames", ((f"{1 // 0}", b"") for _ in "x"))
    below.next("disconnect")
    with pytest.raises(StoreUnavailable):
        list(meter.list("frames"))
    assert {name: found[:2] for name, found in counts(meter).items()} == {
        "get": (1, 1),
        "put_many": (3, 1),
        "list": (2, 2),
    }


def test_times_are_the_store_s(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualTime()
    monkeypatch.setattr(faulty_store, "time", clock)
    monkeypatch.setattr(meter_module, "perf_counter", clock.perf_counter)
    below = FaultyStore(MemoryStore(), delay_s=0.03)
    meter = Meter(below)
    below.next("slow")
    meter.put("frames", "a", b"x")
    meter.put("frames", "b", b"x")
    found = operation(meter, "put_many")
    assert found.longest_s == found.total_s == pytest.approx(0.03)

    def values() -> Iterator[tuple[str, bytes]]:
        clock.sleep(0.2)
        yield "c", b"x"

    meter.put_many("frames", values())
    assert operation(meter, "put_many").total_s == pytest.approx(0.03)
    for stream in (meter.list("frames"), meter.get_many("frames", ["a", "b", "c"])):
        for _ in stream:
            clock.sleep(0.05)
    abandoned = meter.list("frames")
    next(abandoned)
    clock.sleep(0.1)
    abandoned.close()  # type: ignore[attr-defined]
    with meter.batch():
        clock.sleep(0.1)
    for name in ("list", "get_many", "batch"):
        assert operation(meter, name).total_s == pytest.approx(0)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*fields: Any) -> Operation:
        time.sleep(0)  # lets another thread run between reading a count and writing it
        return Operation(*fields)

    monkeypatch.setattr(meter_module, "Operation", slow)
    meter = Meter(MemoryStore())

    def work(thread: int) -> None:
        for number in range(500):
            meter.put("frames", f"{thread}.{number}", b"12")
            meter.get("frames", f"{thread}.{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert counts(meter) == {"put_many": (4000, 0, 8000, 0), "get": (4000, 0, 0, 8000)}


def test_counting_is_cheap() -> None:
    below = MemoryStore()
    below.put("frames", "a", b"x")
    meter = Meter(below)

    def once(store: Store) -> float:
        began = time.perf_counter()
        for _ in range(2000):
            store.get("frames", "a")
        return (time.perf_counter() - began) / 2000

    with_it = without = math.inf
    for _ in range(100):  # until nothing else was in the way
        with_it, without = min(with_it, once(meter)), min(without, once(below))
        if with_it - without < 20e-6:
            return
    pytest.fail(f"{(with_it - without) * 1e6:.1f} us a call")
