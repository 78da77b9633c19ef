"""A store in memory that is far away: it shows how many things it is asked for at a time, without a clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from spraydry.repository.local import open_catalog
from spraydry.repository.opening import Opened, read_config
from spraydry.repository.repository import Repository
from spraydry.stores.base import Traits
from spraydry.stores.memory import MemoryStore


class Far(MemoryStore):
    """Answers a `get` of `awaited` namespaces only when `together` of them are asked at the same time."""

    def __init__(self, concurrency: int) -> None:
        super().__init__()
        self.traits = Traits(concurrency, 0.02)
        self.awaited: set[str] = set()
        self.asked = 0  # in all
        self.most = self._asking = 0
        self._counting = threading.Lock()
        self._barrier = threading.Barrier(1)

    @contextmanager
    def answering(self, together: int, *namespaces: str) -> Iterator[None]:
        self.awaited, self._barrier, self.most = set(namespaces), threading.Barrier(together, timeout=120), 0
        self.asked = 0
        try:
            yield
        finally:
            self.awaited = set()

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        if namespace not in self.awaited:
            return super().get(namespace, name, start, length)
        with self._counting:
            self.asked += 1
            self._asking += 1
            self.most = max(self.most, self._asking)
        try:
            self._barrier.wait()
            return super().get(namespace, name, start, length)
        finally:
            with self._counting:
                self._asking -= 1

    def close(self) -> None:
        """It is there for whoever opens it next."""


def opened(store: MemoryStore, cache_bytes: int = 0) -> Repository:
    """What a machine that never saw the repository opens."""
    config = read_config(store, True)
    found = Opened(store, config, None)
    return Repository(found, open_catalog(found), "memory:", cache_bytes)
