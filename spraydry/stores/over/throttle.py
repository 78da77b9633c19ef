"""A store that is slower than the one below: limits of bandwidth, and latency as of a store far away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

from spraydry.stores.base import Stat, Store, Stored, Traits
from spraydry.stores.over.passing import Passing, batches, value_batches

_BURST_S = 0.05  # so long after a pause, bytes go through at once: without it every sleep's delay would be lost
_FAR_CONCURRENCY = 16
_PAGE = 1000  # values a far store lists in one call


class Throttle(Passing):
    """Lets at most `up_bytes_s` bytes of values a second in and `down_bytes_s` out, and makes each call take
    `latency_s` longer. Blocks; threads may share it: they share the bandwidth, and their latencies overlap.

    A call for many values costs as many latencies as the store below would need calls, `traits.concurrency` at a
    time. A store that had nothing to gain from calls at the same time has with latency.
    """

    def __init__(
        self,
        store: Store,
        latency_s: float = 0.0,
        up_bytes_s: float | None = None,
        down_bytes_s: float | None = None,
    ) -> None:
        super().__init__(store)
        self.latency_s = latency_s
        self._up = _Bucket(up_bytes_s)
        self._down = _Bucket(down_bytes_s)
        if latency_s:
            concurrency = self.traits.concurrency if self.traits.concurrency > 1 else _FAR_CONCURRENCY
            self.traits = Traits(
                concurrency,
                self.traits.round_trip_s + latency_s,
                self.traits.atomic_create,
                lists_all=self.traits.lists_all,
            )

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._travel()
        value = self.inner.get(namespace, name, start, length)
        self._down.take(len(value))
        return value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        for name, value in self.inner.get_many(namespace, self._paced(names)):
            self._down.take(len(value or b""))
            yield name, value

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        for some in value_batches(values):
            self._travel(len(some))
            self._up.take(sum(len(value) for _, value in some))
            self.inner.put_many(namespace, some)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._travel()
        self._up.take(len(value))
        return self.inner.create(namespace, name, value)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        for some in batches(names):
            self._travel(len(some))
            self.inner.delete(namespace, some)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self._travel()
        for place, stored in enumerate(self.inner.list(namespace, after), 1):
            yield stored
            if place % _PAGE == 0:
                self._travel()

    def info(self, namespace: str, name: str) -> Stored | None:
        self._travel()
        return self.inner.info(namespace, name)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._travel()
        self.inner.move(namespace, name, to_namespace, to)

    def stat(self) -> Stat:
        self._travel()
        return self.inner.stat()

    def _travel(self, calls: int = 1) -> None:
        if self.latency_s:
            time.sleep(-(-calls // self.traits.concurrency) * self.latency_s)

    def _paced(self, names: Iterable[str]) -> Iterator[str]:
        for place, name in enumerate(names):
            if place % self.traits.concurrency == 0:
                self._travel()
            yield name


class _Bucket:
    """A token bucket: `take` waits until so many bytes are due. Threads share it; without a rate it never waits."""

    def __init__(self, bytes_s: float | None) -> None:
        self._bytes_s = bytes_s
        self._due_s = 0.0  # when all that was taken will have gone through
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        if self._bytes_s is None or not count:
            return
        with self._lock:
            now = time.monotonic()
            self._due_s = max(self._due_s, now - _BURST_S) + count / self._bytes_s
            wait = self._due_s - now
        if wait > 0:
            time.sleep(wait)
