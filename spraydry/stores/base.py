"""The Store interface that every backend implements, and how a URL finds its backend."""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import NamedTuple

import spraydry.stores
from spraydry.errors import UsageError

NAMESPACES = ("frames", "index", "log", "dictionaries", "hoards", "leases", "config")
_NAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,199}")


class Stored(NamedTuple):
    """One value as a listing shows it."""

    name: str
    size: int


class Store(ABC):
    """A map (namespace, name) -> bytes. All methods block; threads may share a store.

    Namespaces are NAMESPACES, names lower-case ASCII (check_key). A value is there whole or not at all, and what a
    method wrote is durable when it returns (inside `batch()`: when that ends). Errors are StoreError and its subclasses
    and CorruptData only; nothing a backend's library raises gets out. ValueError is for a caller's mistake: a key or
    range that cannot be.
    """

    read_only: bool = False

    @abstractmethod
    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (default: all) from byte `start` of a value, fewer where it ends. Raises ValueNotFound."""

    @abstractmethod
    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        """Write values, replacing those of the same names. After an error any of them may be there, each whole."""

    @abstractmethod
    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """Write a value unless the name is taken; False if it is. Of racing callers exactly one gets True."""

    @abstractmethod
    def delete(self, namespace: str, names: Iterable[str]) -> None:
        """Remove values; names that are not there are passed over."""

    @abstractmethod
    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        """The values whose names sort behind `after`, in order of their names."""

    @abstractmethod
    def size(self, namespace: str, name: str) -> int | None:
        """A value's length in bytes; None if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; the store must not be used any more."""

    def put(self, namespace: str, name: str, value: bytes) -> None:
        """Write one value, replacing one of the same name."""
        self.put_many(namespace, [(name, value)])

    def batch(self) -> AbstractContextManager[object]:
        """What is written inside becomes durable at its end: at once where the store can (SQLite), else one by one."""
        return nullcontext()

    def settle(self) -> None:
        """Called after a commit: tidy what writing left behind (SQLite: fold the write-ahead log into the file)."""

    def location(self) -> str | None:
        """The local path where this store lies, so that an ingest can leave it out; None if it is elsewhere."""
        return None


def check_key(namespace: str, name: str) -> None:
    """Raises ValueError for a namespace or name no store takes."""
    if namespace not in NAMESPACES or not _NAME.fullmatch(name):
        raise ValueError(f"not a key: {namespace}/{name!r}")


def check_namespace(namespace: str) -> None:
    """Raises ValueError for a namespace no store has."""
    if namespace not in NAMESPACES:
        raise ValueError(f"not a namespace: {namespace!r}")


def check_range(start: int, length: int | None) -> None:
    """Raises ValueError for a range that does not go forwards from within or behind a value's start."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: {length} bytes from {start}")


def open_store(url: str, *, create: bool = False, read_only: bool = False) -> Store:
    """The store at `url`: a path (a SQLite file) or `scheme:rest` with one of the backends' schemes.

    With `create` an absent one is made; otherwise that is StoreNotFound. Raises UsageError for an unknown scheme.
    """
    scheme, rest = "sqlite", url
    if match := re.match(r"([A-Za-z][A-Za-z0-9+-]+):", url):
        scheme, rest = match[1].lower(), url[match.end() :].removeprefix("//")
    known = [module.name for module in pkgutil.iter_modules(spraydry.stores.__path__) if module.name != "base"]
    if scheme not in known:
        raise UsageError(f"no store is called {scheme!r} (there are: {', '.join(known)}; or write ./{url} for a path)")
    module: ModuleType = importlib.import_module(f"spraydry.stores.{scheme}")
    store: Store = module.open_store(rest, create=create, read_only=read_only)
    return store
