"""A local store in front of a slow one, of limited size; what was used least recently goes first."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from spraydry.stores.base import Store, check_range, cut
from spraydry.stores.over.limited import CACHED, Limited
from spraydry.stores.over.passing import Passing, batches, value_batches


class Cache(Passing):
    """Keeps values of CACHED in `local`, at most `limit_bytes` of them. Blocks; threads and processes may share it.

    Whatever comes out of the cache was compared with its name; all of it, or parts, can be deleted at any time. A
    value that another process removed from `slow`, that was damaged there, or that a failed batch took back, may still
    be given: its bytes are those its name says; inside `uncached` `slow` is asked. With `write_through` what is put is
    cached at once, otherwise only what is read whole. When `local` fails, `limited.trouble` says how, and reads go on
    without it for a while.
    """

    def __init__(self, slow: Store, local: Store, limit_bytes: int, write_through: bool = True) -> None:
        super().__init__(slow)
        self.limited = Limited(local, limit_bytes)
        self._write_through = write_through
        self._past = 0  # how many want to read past the cache
        self._lock = threading.Lock()

    @contextmanager
    def uncached(self) -> Iterator[object]:
        with self._lock:
            self._past += 1
        try:
            with self.inner.uncached():
                yield None
        finally:
            with self._lock:
                self._past -= 1

    def _cached(self, namespace: str, name: str) -> bytes | None:
        return None if self._past else self.limited.get(namespace, name)

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        if (value := self._cached(namespace, name)) is not None:
            return cut(value, start, length)
        value = self.inner.get(namespace, name, start, length)
        if start == 0 and length is None and not self._past:
            self.limited.keep(namespace, [(name, value)])
        return value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        if namespace not in CACHED:
            yield from self.inner.get_many(namespace, names)
            return
        names = iter(names)
        while some := list(islice(names, 2 * self.traits.concurrency)):
            found = {name: self._cached(namespace, name) for name in some}
            for name, value in self.inner.get_many(namespace, [name for name in found if found[name] is None]):
                found[name] = value
                if value is not None and not self._past:
                    self.limited.keep(namespace, [(name, value)])
            for name in some:
                yield name, found[name]

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        if namespace not in CACHED:
            self.inner.put_many(namespace, values)
            return
        for some in value_batches(values):
            self.inner.put_many(namespace, some)
            if self._write_through:
                self.limited.keep(namespace, some)
            else:
                self.limited.forget(namespace, [name for name, _ in some])

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        for some in batches(names):
            self.inner.delete(namespace, some)
            self.limited.forget(namespace, some)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self.inner.move(namespace, name, to_namespace, to)
        self.limited.forget(namespace, [name])
        self.limited.forget(to_namespace, [to])

    def locations(self) -> builtins.list[str]:
        return self.inner.locations() + self.limited.locations()

    def flush(self) -> None:
        self.inner.flush()
        self.limited.flush()

    def destroy(self) -> None:
        self.inner.destroy()
        self.limited.destroy()

    def close(self) -> None:
        self.limited.close()
        self.inner.close()
