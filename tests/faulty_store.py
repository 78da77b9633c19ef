"""A store over another one that fails as real ones do: by switches, a number of times, or by a seeded plan.

    store = FaultyStore(MemoryStore(), seed=1)
    store.rates["down"] = 1.0               # a switch: until it is set to 0 every call fails
    store.next("lost_answer", 2)            # the next two calls it can happen to
    store.rates |= {"throttle": 0.1, "disconnect": 0.02}   # a plan: so many of all calls, as the seed draws them

What happened is counted in `store.faults`, what was asked for in `store.calls`.
"""

from __future__ import annotations

import builtins
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from spraydry.errors import StoreFull, StoreReadOnly, StoreUnavailable
from spraydry.stores.base import Store, Stored
from spraydry.stores.over.passing import Passing

Fault = Literal[
    "slow",  # any call: takes `delay_s` longer
    "hang",  # any call: waits for `release()`, then goes on as if nothing had been
    "down",  # any call: unreachable, nothing is done
    "throttle",  # any call: 429 or 503, nothing is done
    "disconnect",  # put_many, delete: some are done, then an error; create: nothing is; get, list: an error on the way
    "lost_answer",  # put_many, create, delete: all is done, then an error
    "full",  # put_many, create: no room; of put_many some are there
    "read_only",  # put_many, create, delete: refused
    "truncate",  # get: the end is missing
    "alter",  # get: one bit is another
    "late",  # put_many, create: the value is there, but not listed before `settle()`
]


class FaultyStore(Passing):
    """Blocks as the store below does, and longer; threads may share it, and then the plan's draws vary with them.

    `get_many` and `move` are made of single calls, so that a fault can strike between them.
    """

    get_many = Store.get_many
    move = Store.move

    def __init__(self, inner: Store, *, seed: int = 0, delay_s: float = 0.05) -> None:
        super().__init__(inner)
        self.delay_s = delay_s
        self.rates: dict[Fault, float] = {}
        self.faults: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.hanging = threading.Semaphore(0)  # released by each call that begins to hang: acquire it to wait for one
        self._random = random.Random(seed)
        self._next: Counter[str] = Counter()
        self._released = threading.Event()
        self._late: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def next(self, fault: Fault, times: int = 1) -> None:
        """Let `fault` happen to the next calls it can happen to."""
        with self._lock:
            self._next[fault] += times

    def heal(self) -> None:
        """No more faults: switches off, plans forgotten, what hangs goes on, what is late is listed."""
        with self._lock:
            self.rates.clear()
            self._next.clear()
        self.release()
        self.settle()

    def release(self) -> None:
        """Let what hangs go on, and nothing hang any more."""
        with self._lock:
            self.rates.pop("hang", None)
            self._next.pop("hang", None)
            self._released.set()
            self._released = threading.Event()

    def settle(self) -> None:
        """List what is late."""
        with self._lock:
            self._late.clear()

    # -- the store

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._call("get")
        value = self.inner.get(namespace, name, start, length)
        if self._strikes("disconnect"):
            raise _cut_off()
        if value and self._strikes("truncate"):
            return value[: self._below(len(value))]
        if value and self._strikes("alter"):
            altered = bytearray(value)
            altered[self._below(len(value))] ^= 1 << self._below(8)
            return bytes(altered)
        return value

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._call("put_many", writes=True)
        values = list(values)
        cut, full = self._strikes("disconnect"), self._strikes("full")
        self._put(namespace, values[: self._below(len(values) or 1)] if cut or full else values)
        if cut:
            raise _cut_off()
        if full:
            raise _full()
        self._answer()

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._call("create", writes=True)
        if self._strikes("disconnect"):
            raise _cut_off()
        if self._strikes("full"):
            raise _full()
        created = self.inner.create(namespace, name, value)
        if created and self._strikes("late"):
            self._late.add((namespace, name))
        self._answer()
        return created

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._call("delete", writes=True)
        names = list(names)
        if self._strikes("disconnect"):
            self.inner.delete(namespace, names[: self._below(len(names) or 1)])
            raise _cut_off()
        self.inner.delete(namespace, names)
        self._answer()

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self._call("list")
        for stored in self.inner.list(namespace, after):
            if (namespace, stored.name) not in self._late:
                yield stored
                if self._strikes("disconnect"):
                    raise _cut_off()

    def info(self, namespace: str, name: str) -> Stored | None:
        self._call("info")
        return self.inner.info(namespace, name)

    # -- the faults

    def _call(self, operation: str, writes: bool = False) -> None:
        with self._lock:
            self.calls[operation] += 1
            released = self._released
        if self._strikes("slow"):
            time.sleep(self.delay_s)
        if self._strikes("hang"):
            self.hanging.release()
            released.wait()
        if self._strikes("down"):
            raise StoreUnavailable("the store cannot be reached: connection refused")
        if self._strikes("throttle"):
            raise StoreUnavailable(f"the store asks for fewer requests (HTTP {(429, 503)[self._below(2)]})")
        if writes and self._strikes("read_only"):
            raise StoreReadOnly("the store cannot be written: read-only file system")

    def _put(self, namespace: str, values: builtins.list[tuple[str, bytes]]) -> None:
        late = {(namespace, name) for name, _ in values if self._strikes("late")}
        self.inner.put_many(namespace, values)
        with self._lock:
            self._late |= late

    def _answer(self) -> None:
        if self._strikes("lost_answer"):
            raise StoreUnavailable("the connection was lost before the store answered")

    def _strikes(self, fault: Fault) -> bool:
        with self._lock:
            if self._next[fault] > 0:
                self._next[fault] -= 1
            elif not self._random.random() < self.rates.get(fault, 0.0):
                return False
            self.faults[fault] += 1
            return True

    def _below(self, limit: int) -> int:
        with self._lock:
            return self._random.randrange(limit)


def _cut_off() -> StoreUnavailable:
    return StoreUnavailable("the connection was lost in the middle of a call")


def _full() -> StoreFull:
    return StoreFull("no room is left: free some space")
