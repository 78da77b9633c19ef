"""A store that counts what goes through it: calls, errors, bytes and times of each operation."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, TypeVar

from spraydry.errors import CorruptData, StoreError, ValueNotFound
from spraydry.stores.base import Stat, Store, Stored
from spraydry.stores.over.passing import Passing

T = TypeVar("T")


class Operation(NamedTuple):
    """All calls of one method. Times are what the store took, not what a caller did while drawing or giving values;
    threads' times add up. That a value is not there is an answer, no error."""

    name: str
    calls: int = 0
    errors: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


class Meter(Passing):
    """Counts. Blocks as the store below; threads may share it. A call costs one or two microseconds more.

    A batch counts as one call, which takes as long as its begin and its end.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._operations: dict[str, Operation] = {}
        self._lock = threading.Lock()

    def report(self) -> builtins.list[Operation]:
        """What was counted until now, one row for each method that was called, sorted by its name."""
        with self._lock:
            return sorted(self._operations.values())

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        with _Call(self, "get") as call:
            value = self.inner.get(namespace, name, start, length)
            call.down_bytes = len(value)
            return value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        with _Call(self, "get_many") as call:
            for name, value in self.inner.get_many(namespace, call.drawing(names)):
                call.down_bytes += len(value or b"")
                with call.aside:
                    yield name, value

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        with _Call(self, "put_many") as call:

            def counted() -> Iterator[tuple[str, bytes]]:
                for name, value in call.drawing(values):
                    call.up_bytes += len(value)
                    yield name, value

            self.inner.put_many(namespace, counted())

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        with _Call(self, "create") as call:
            call.up_bytes = len(value)
            return self.inner.create(namespace, name, value)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        with _Call(self, "delete") as call:
            self.inner.delete(namespace, call.drawing(names))

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        with _Call(self, "list") as call:
            for stored in self.inner.list(namespace, after):
                with call.aside:
                    yield stored

    def info(self, namespace: str, name: str) -> Stored | None:
        with _Call(self, "info"):
            return self.inner.info(namespace, name)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        with _Call(self, "move"):
            self.inner.move(namespace, name, to_namespace, to)

    def stat(self) -> Stat:
        with _Call(self, "stat"):
            return self.inner.stat()

    @contextmanager
    def batch(self) -> Iterator[object]:
        with _Call(self, "batch") as call, self.inner.batch() as inside, call.aside:
            yield inside

    def flush(self) -> None:
        with _Call(self, "flush"):
            self.inner.flush()

    def add(self, name: str, error: bool, up_bytes: int, down_bytes: int, spent_s: float) -> None:
        """Count one call."""
        with self._lock:
            had = self._operations.get(name) or Operation(name)
            self._operations[name] = Operation(
                name,
                had.calls + 1,
                had.errors + error,
                had.up_bytes + up_bytes,
                had.down_bytes + down_bytes,
                had.total_s + spent_s,
                max(had.longest_s, spent_s),
            )


class _Call:
    """One call while it lasts. `aside` goes around what is not the store's time."""

    __slots__ = ("_began", "_meter", "_name", "aside", "down_bytes", "up_bytes")

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self._name = name
        self.up_bytes = 0
        self.down_bytes = 0
        self.aside = _Aside()

    def __enter__(self) -> _Call:
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        spent = perf_counter() - self._began - self.aside.spent_s
        failed = isinstance(error, StoreError | CorruptData) and not isinstance(error, ValueNotFound)
        self._meter.add(self._name, failed, self.up_bytes, self.down_bytes, spent)

    def drawing(self, things: Iterable[T]) -> Iterator[T]:
        """The things, without the time it takes to come by them."""
        iterator = iter(things)
        while True:
            with self.aside:
                try:
                    thing = next(iterator)
                except StopIteration:
                    return
            yield thing


class _Aside:
    """A stopwatch that adds up."""

    __slots__ = ("_began", "spent_s")

    def __init__(self) -> None:
        self.spent_s = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        self.spent_s += perf_counter() - self._began
