"""A store in memory, for tests and scratch repositories. `memory:NAME` names one that lives as long as the process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from spraydry.errors import StoreError, StoreNotFound, StoreReadOnly, ValueNotFound
from spraydry.stores.base import Stat, Store, Stored, check_key, check_namespace, check_range, cut

_named: dict[str, dict[tuple[str, str], bytes]] = {}
_lock = threading.Lock()


class MemoryStore(Store):
    """Values in a dict. Never blocks for long; threads may share it."""

    lasting = False

    def __init__(self, values: dict[tuple[str, str], bytes] | None = None, read_only: bool = False) -> None:
        self._values = {} if values is None else values
        self.read_only = read_only
        self._closed = False

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._usable()
        check_key(namespace, name)
        check_range(start, length)
        try:
            value = self._values[namespace, name]
        except KeyError:
            raise ValueNotFound(f"{namespace}/{name} is not in the store") from None
        return cut(value, start, length)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        for name, value in values:
            check_key(namespace, name)
            self._values[namespace, name] = bytes(value)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        check_key(namespace, name)
        with _lock:
            if (namespace, name) in self._values:
                return False
            self._values[namespace, name] = bytes(value)
            return True

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        for name in names:
            check_key(namespace, name)
            self._values.pop((namespace, name), None)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self._usable()
        check_namespace(namespace)
        for key in sorted(key for key in tuple(self._values) if key[0] == namespace and key[1] > after):
            value = self._values.get(key)
            if value is not None:
                yield Stored(key[1], len(value))

    def info(self, namespace: str, name: str) -> Stored | None:
        self._usable()
        check_key(namespace, name)
        value = self._values.get((namespace, name))
        return None if value is None else Stored(name, len(value))

    def stat(self) -> Stat:
        self._usable()
        values = tuple(self._values.values())
        return Stat(len(values), sum(map(len, values)))

    def destroy(self) -> None:
        self._writable()
        self._values.clear()
        with _lock:
            for name in [name for name, values in _named.items() if values is self._values]:
                del _named[name]
        self.close()

    def close(self) -> None:
        self._closed = True

    def _usable(self) -> None:
        if self._closed:
            raise StoreError("the repository in memory was closed")

    def _writable(self) -> None:
        self._usable()
        if self.read_only:
            raise StoreReadOnly("the repository was opened for reading only")


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> MemoryStore:
    """The process-wide store of that name, or a new one where the name is empty."""
    if not rest:
        return MemoryStore(read_only=read_only)
    with _lock:
        if rest not in _named and not create:
            raise StoreNotFound(f"there is no repository at memory:{rest}")
        return MemoryStore(_named.setdefault(rest, {}), read_only)
