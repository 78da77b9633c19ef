"""A store in memory, for tests and scratch repositories. `memory:NAME` names one that lives as long as the process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from spraydry.errors import StoreNotFound, StoreReadOnly, ValueNotFound
from spraydry.stores.base import Store, Stored, check_key

_named: dict[str, dict[tuple[str, str], bytes]] = {}
_lock = threading.Lock()


class MemoryStore(Store):
    """Values in a dict. Never blocks for long; threads may share it."""

    def __init__(self, values: dict[tuple[str, str], bytes] | None = None, read_only: bool = False) -> None:
        self._values = {} if values is None else values
        self.read_only = read_only

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        try:
            value = self._values[namespace, name]
        except KeyError:
            raise ValueNotFound(f"{namespace}/{name} is not in the store") from None
        return value[start : None if length is None else start + length]

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        for name, value in values:
            check_key(namespace, name)
            self._values[namespace, name] = bytes(value)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        check_key(namespace, name)
        value = bytes(value)
        return self._values.setdefault((namespace, name), value) is value

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        for name in names:
            self._values.pop((namespace, name), None)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        for key in sorted(key for key in tuple(self._values) if key[0] == namespace and key[1] > after):
            value = self._values.get(key)
            if value is not None:
                yield Stored(key[1], len(value))

    def size(self, namespace: str, name: str) -> int | None:
        value = self._values.get((namespace, name))
        return None if value is None else len(value)

    def close(self) -> None:
        pass

    def _writable(self) -> None:
        if self.read_only:
            raise StoreReadOnly("the repository was opened for reading only")


def open_store(rest: str, *, create: bool, read_only: bool) -> MemoryStore:
    """The process-wide store of that name, or a new one where the name is empty."""
    if not rest:
        return MemoryStore(read_only=read_only)
    with _lock:
        if rest not in _named and not create:
            raise StoreNotFound(f"there is no repository at memory:{rest}")
        return MemoryStore(_named.setdefault(rest, {}), read_only)
