"""Stores over other stores pass the conformance suite, each over memory, and all nested over one that fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spraydry.stores.base import Store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over.cache import Cache
from spraydry.stores.over.meter import Meter
from spraydry.stores.over.passing import Passing
from spraydry.stores.over.retry import Retry
from spraydry.stores.over.throttle import Throttle
from tests.faulty_store import FaultyStore
from tests.store_contract import Place, StoreContract


@dataclass(frozen=True)
class Over(Place):
    """A place whose store is opened with another around it."""

    around: Callable[[Store], Store] = lambda store: store

    def open(self, *, create: bool = False, read_only: bool = False) -> Store:
        return self.around(super().open(create=create, read_only=read_only))


class TestFaulty(StoreContract):
    """Without faults it is a store like any other."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=FaultyStore)


class TestRetry(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=Retry)


class TestThrottle(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(
            f"memory:{tmp_path}", around=lambda store: Throttle(store, 0.0001, up_bytes_s=1e9, down_bytes_s=1e9)
        )


class TestMeter(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=Meter)


class TestCache(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=lambda store: Cache(store, MemoryStore(), 1 << 20))


class TestOverSqlite(StoreContract):
    """Batches stay whole through all of them."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        def around(store: Store) -> Store:
            return Cache(Meter(Retry(store)), MemoryStore(), 1 << 20)

        return Over(f"{tmp_path}/store.sqlite", atomic_batches=True, around=around)


class Flaky(FaultyStore):
    """Fails now and then, save at `create`: there an error can leave open who won (test_store_over_retry.py)."""

    create = Passing.create

    def __init__(self, store: Store) -> None:
        super().__init__(store, seed=1)
        self.rates |= {"throttle": 0.05, "disconnect": 0.05}


class TestNested(StoreContract):
    """All of them, over a store that fails now and then."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        def around(store: Store) -> Store:
            slow = Retry(Throttle(Meter(Flaky(store)), latency_s=0.00001), tries=20, first_wait_s=0.0001, seed=1)
            return Meter(Cache(slow, Flaky(MemoryStore()), 1 << 20))

        return Over(f"memory:{tmp_path}", around=around)
