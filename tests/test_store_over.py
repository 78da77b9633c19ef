"""Stores over other stores: each passes the conformance suite over memory, so does a nest of all, and stands faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spraydry.stores.base import Store
from spraydry.stores.memory import MemoryStore
from spraydry.stores.over.cache import Cache
from spraydry.stores.over.meter import Meter
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
            f"memory:{tmp_path}",
            around=lambda store: Throttle(store, latency_s=0.0001, up_bytes_s=1e9, down_bytes_s=1e9),
        )


class TestMeter(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=Meter)


class TestCache(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Over(f"memory:{tmp_path}", around=lambda store: Cache(store, MemoryStore(), 1 << 20))
