"""What stores over one other store share: every call is passed on, and each of them overrides what it is about."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice

from spraydry.stores.base import Stat, Store, Stored

BATCH_BYTES = 32 << 20
BATCH_VALUES = 1000


class Passing(Store):
    """Passes on to `inner`, blocks as that does, and may be shared by threads as that may be.

    Soft deletion, `put` and `list_all` are made of the other calls, as in every store, and so need no passing on.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.read_only = inner.read_only
        self.lasting = inner.lasting
        self.traits = inner.traits

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(namespace, name, start, length)

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        return self.inner.get_many(namespace, names)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self.inner.put_many(namespace, values)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        return self.inner.create(namespace, name, value)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self.inner.delete(namespace, names)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        return self.inner.list(namespace, after)

    def info(self, namespace: str, name: str) -> Stored | None:
        return self.inner.info(namespace, name)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self.inner.move(namespace, name, to_namespace, to)

    def stat(self) -> Stat:
        return self.inner.stat()

    def batch(self) -> AbstractContextManager[object]:
        return self.inner.batch()

    def uncached(self) -> AbstractContextManager[object]:
        return self.inner.uncached()

    def flush(self) -> None:
        self.inner.flush()

    def location(self) -> str | None:
        return self.inner.location()

    def locations(self) -> builtins.list[str]:
        return self.inner.locations()

    @property
    def silent(self) -> Mapping[str, str]:
        return self.inner.silent

    def destroy(self) -> None:
        self.inner.destroy()

    def close(self) -> None:
        self.inner.close()


def value_batches(values: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """What `put_many` is given, in lists: for a store that must repeat a call, or look at its values after it.

    At most BATCH_VALUES are held at a time, and BATCH_BYTES and one more of them. They are copied where their buffer
    could be used again for the next.
    """
    some: list[tuple[str, bytes]] = []
    held = 0
    for name, value in values:
        some.append((name, bytes(value)))
        held += len(some[-1][1])
        if len(some) >= BATCH_VALUES or held >= BATCH_BYTES:
            yield some
            some, held = [], 0
    if some:
        yield some


def batches(names: Iterable[str]) -> Iterator[list[str]]:
    """Names in lists of at most BATCH_VALUES."""
    names = iter(names)
    while some := list(islice(names, BATCH_VALUES)):
        yield some
