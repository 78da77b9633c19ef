"""A store that tries again, after growing waits, what failed only for now: busy, throttling, unreachable."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from spraydry.errors import StoreError, StoreUnavailable, ValueNotFound
from spraydry.stores.base import Stat, Store, Stored
from spraydry.stores.over.passing import Passing, batches, value_batches

T = TypeVar("T")


class Retry(Passing):
    """Repeats calls that failed with an error whose class says `retryable`. Blocks; threads may share it.

    A call is tried `tries` times, and not again later than `total_s` after it began. The wait before the second try is
    `first_wait_s`, and doubles up to `longest_wait_s`; a random part (of `seed`) of up to a half is left out of each,
    so that many who failed together do not come back together. Listings and `get_many` go on where they were, and
    count anew after each step forward. `destroy` and the end of a batch are not repeated.
    """

    def __init__(
        self,
        store: Store,
        tries: int = 5,
        total_s: float = 60.0,
        first_wait_s: float = 0.1,
        longest_wait_s: float = 10.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(store)
        self.tries = tries
        self.total_s = total_s
        self.first_wait_s = first_wait_s
        self.longest_wait_s = longest_wait_s
        self.random = random.Random(seed)

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self._repeat(lambda: self.inner.get(namespace, name, start, length))

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        rest = iter(names)
        waiting: deque[str] = deque()  # what the store below drew, as far ahead as it looks, and did not answer yet

        def drawn() -> Iterator[str]:
            yield from tuple(waiting)
            for name in rest:
                waiting.append(name)
                yield name

        patience = _Patience(self)
        while True:
            try:
                for name, value in self.inner.get_many(namespace, drawn()):
                    waiting.popleft()
                    patience.renew()
                    yield name, value
                return
            except StoreError as error:
                patience.wait(error)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        for some in value_batches(values):
            self._repeat(partial(self.inner.put_many, namespace, some))

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """As every store's. But an error leaves open whether the value was written, and if the same value is there
        afterwards, it may be ours or another writer's: StoreUnavailable says so, since only one may hear True."""
        value = bytes(value)
        patience = _Patience(self)
        unknown: StoreError | None = None
        while True:
            try:
                if self.inner.create(namespace, name, value):
                    return True
                if unknown is None:
                    return False
            except StoreError as error:
                unknown = error
            patience.wait(unknown)
            try:
                found = self.get(namespace, name)
            except ValueNotFound:
                continue
            if found != value:
                return False
            raise StoreUnavailable(
                f"{namespace}/{name} is there, but whether this process wrote it is unknown after an error"
                f" ({unknown}): run the command again"
            ) from unknown

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        for some in batches(names):
            self._repeat(partial(self.inner.delete, namespace, some))

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        patience = _Patience(self)
        while True:
            try:
                for stored in self.inner.list(namespace, after):
                    after = stored.name
                    patience.renew()
                    yield stored
                return
            except StoreError as error:
                patience.wait(error)

    def info(self, namespace: str, name: str) -> Stored | None:
        return self._repeat(lambda: self.inner.info(namespace, name))

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        """As every store's; a value that is gone after an error, while there is one at `to`, counts as moved."""
        patience = _Patience(self)
        while True:
            try:
                return self.inner.move(namespace, name, to_namespace, to)
            except ValueNotFound:
                if patience.tried == 0 or self.info(to_namespace, to) is None:
                    raise
                return
            except StoreError as error:
                patience.wait(error)

    def stat(self) -> Stat:
        return self._repeat(self.inner.stat)

    @contextmanager
    def batch(self) -> Iterator[object]:
        with ExitStack() as stack:
            yield self._repeat(lambda: stack.enter_context(self.inner.batch()))

    def flush(self) -> None:
        self._repeat(self.inner.flush)

    def _repeat(self, call: Callable[[], T]) -> T:
        patience = _Patience(self)
        while True:
            try:
                return call()
            except StoreError as error:
                patience.wait(error)


class _Patience:
    """How long one call may still be repeated. For one thread."""

    def __init__(self, bounds: Retry) -> None:
        self._bounds = bounds
        self.renew()

    def renew(self) -> None:
        """After a step forward: count from here."""
        self.tried = 0
        self._began = time.monotonic()

    def wait(self, error: StoreError) -> None:
        """Wait until the next try; raises the error if there is to be none."""
        if not error.retryable:
            raise error
        self.tried += 1
        bounds = self._bounds
        longest = min(bounds.longest_wait_s, bounds.first_wait_s * 2.0 ** min(self.tried - 1, 60))
        wait = longest * bounds.random.uniform(0.5, 1.0)
        spent = time.monotonic() - self._began
        if self.tried >= bounds.tries or spent + wait > bounds.total_s:
            raise type(error)(f"{error} (tried {self.tried} times in {spent:.1f} s)") from error
        time.sleep(wait)
