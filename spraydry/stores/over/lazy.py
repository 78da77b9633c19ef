"""A local store that lacks frames: those are fetched from where it was cloned from when they are read, and kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from spraydry.errors import CollectedThere, CorruptData, SprayDryError, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format.digest import digest
from spraydry.stores.base import Store, check_range, cut
from spraydry.stores.over.passing import Passing

FETCHED = ("frames", "dictionaries")  # values whose names are the digests of their bytes
_CONCURRENCY = 16  # the origin may be far away
_AGAIN_S = 5.0  # an origin that did not answer is not asked again for so long: reads must not wait one after another


class Lazy(Passing):
    """Gives values of FETCHED from `inner`, else from the origin, and keeps them. Blocks; threads may share it.

    What comes from the origin was compared with its name. Everything else is `inner`'s alone: what is listed, or looked
    at with `info` or inside `uncached`, is what is here. `open_origin` is called when something is missing; it raises
    StoreError or CorruptData where there is no answer. With `read_only` nothing else is written; where nothing can be
    kept, reads go on all the same.
    """

    def __init__(self, inner: Store, origin: str, open_origin: Callable[[], Store], read_only: bool) -> None:
        super().__init__(inner)
        self.read_only = self.read_only or read_only
        self.traits = inner.traits._replace(concurrency=max(inner.traits.concurrency, _CONCURRENCY))
        self.origin = origin
        self._open_origin = open_origin
        self._opened: Store | None = None
        self._keeps = not inner.read_only
        self._lock = threading.Lock()
        self._failed: tuple[float, str] | None = None
        self._here = 0  # how many want to know what is here

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        try:
            return self.inner.get(namespace, name, start, length)
        except ValueNotFound:
            if namespace not in FETCHED or self._here:
                raise
        value = dict(self._fetch(namespace, [name]))[name]
        if value is None:
            raise CollectedThere(
                f"{namespace}/{name} is neither here nor at {self.origin} any more: it was collected there"
                " (`spraydry pull --lazy` learns what took its place)"
            )
        return cut(value, start, length)

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        if namespace not in FETCHED:
            yield from self.inner.get_many(namespace, names)
            return
        names = iter(names)
        while some := list(islice(names, 2 * self.traits.concurrency)):
            found = dict(self.inner.get_many(namespace, some))
            missing = [name for name in some if found[name] is None]
            if missing and not self._here:
                found.update(self._fetch(namespace, missing))
            for name in some:
                yield name, found[name]

    @contextmanager
    def uncached(self) -> Iterator[object]:
        with self._lock:
            self._here += 1
        try:
            with self.inner.uncached():
                yield None
        finally:
            with self._lock:
                self._here -= 1

    def location(self) -> str | None:
        return None  # not all of it is here: reading may wait for the origin

    def _fetch(self, namespace: str, names: list[str]) -> Iterator[tuple[str, bytes | None]]:
        """Values from the origin, compared with their names, and kept. Raises StoreUnavailable, CorruptData."""
        found: list[tuple[str, bytes]] = []
        origin = self._origin()
        try:
            for name, value in origin.get_many(namespace, names):
                if value is not None and digest(value).hex() != name:
                    raise CorruptData(f"{namespace}/{name} is damaged at {self.origin}")
                if value is not None:
                    found.append((name, value))
                yield name, value
        except StoreError as error:
            with self._lock:
                self._failed = (time.monotonic(), str(error))
            raise self._unavailable(str(error)) from None
        finally:
            self._keep(namespace, found)

    def _keep(self, namespace: str, found: list[tuple[str, bytes]]) -> None:
        if found and self._keeps:
            try:
                self.inner.put_many(namespace, found)
            except StoreError as error:
                self._keeps = error.retryable  # a full or read-only disk: what is read is not kept

    def _origin(self) -> Store:
        with self._lock:
            if self._failed is not None and time.monotonic() - self._failed[0] < _AGAIN_S:
                raise self._unavailable(self._failed[1])
            self._failed = None
            if self._opened is None:
                try:
                    self._opened = self._open_origin()
                except SprayDryError as error:
                    self._failed = (time.monotonic(), str(error))
                    raise self._unavailable(str(error)) from None
            return self._opened

    def _unavailable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"what is not here yet is at {self.origin}, which does not answer: {why}")

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self.inner.close()
