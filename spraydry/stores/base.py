"""The Store interface that every backend implements, and how a URL finds its backend."""

from __future__ import annotations

import builtins
import heapq
import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import NamedTuple, TypeVar

import spraydry.stores
from spraydry.errors import UsageError, ValueNotFound
from spraydry.parallel import ordered_map

T = TypeVar("T")

NAMESPACES = ("frames", "index", "log", "dictionaries", "hoards", "leases", "config")
# Where what was deleted softly lies: the same names in a namespace beside. No caller names one.
_TRASH = {namespace: namespace + "~" for namespace in NAMESPACES}
_PLACES = {*NAMESPACES, *_TRASH.values()}
NAME_PATTERN = r"^[a-z0-9_][a-z0-9._-]{0,199}$"
_NAME = re.compile(NAME_PATTERN)
_OPTIONS = re.compile(r"\?(?=[^/?]*=)[^/?]*\Z")
# Schemes that share a backend: the file is called after the first of them.
_ALIASES = {"gs": "s3", "az": "s3", "https": "http", "postgres": "postgresql"}


class Stored(NamedTuple):
    """One value as a listing shows it; `deleted`: softly, so that it can be brought back."""

    name: str
    size: int
    deleted: bool = False


class Stat(NamedTuple):
    """What a store holds, all namespaces together, and how much more it may take (None: unknown)."""

    values: int
    bytes: int
    free_bytes: int | None = None


class Traits(NamedTuple):
    """What a store is like: how many calls at a time are worth having, how long one takes at least, whether of several
    that create one value at the same time exactly one succeeds, whether it keeps the number of its index runs small
    by itself, as a server does, and whether it reads all names of a namespace to list those behind one of them."""

    concurrency: int = 1
    round_trip_s: float = 0.0
    atomic_create: bool = True
    merges_runs: bool = False
    lists_all: bool = False


class Store(ABC):
    """A map (namespace, name) -> bytes. All methods block; threads may share a store.

    Namespaces are NAMESPACES, names lower-case ASCII (check_key). A value is there whole or not at all, and what a
    method wrote is durable when it returns (inside `batch()`: when that ends). Errors are StoreError and its subclasses
    and CorruptData only; nothing a backend's library raises gets out. ValueError is for a caller's mistake: a key or
    range that cannot be.
    """

    read_only: bool = False
    lasting: bool = True  # whether it is still there when this process has ended
    served: bool = False  # whether a server has it open, perhaps here: with a catalog of its own
    traits = Traits()

    def wait_for_it(self) -> None:
        """From now on wait in each call for whoever answers here to come back, if that can be: there is nowhere else to
        go. By itself a store fails at once. Raises UsageError."""

    @abstractmethod
    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (default: all) from byte `start` of a value, fewer where it ends; below 0, `start` counts from
        the end, as in a slice. Raises ValueNotFound."""

    @abstractmethod
    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        """Write values, replacing those of the same names. After an error any of them may be there, each whole."""

    @abstractmethod
    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """Write a value unless the name is taken; False if it is. Of racing callers exactly one gets True."""

    @abstractmethod
    def delete(self, namespace: str, names: Iterable[str]) -> None:
        """Remove values; names that are not there are passed over. What was deleted softly stays as it is."""

    @abstractmethod
    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        """The values whose names sort behind `after`, in order of their names, lazily."""

    @abstractmethod
    def info(self, namespace: str, name: str) -> Stored | None:
        """What a listing would show of one value; None if there is none."""

    @abstractmethod
    def stat(self) -> Stat:
        """How much it holds: may read a listing of everything."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove the store and everything in it, and close it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; the store must not be used any more."""

    def put(self, namespace: str, name: str, value: bytes) -> None:
        """Write one value, replacing one of the same name."""
        self.put_many(namespace, [(name, value)])

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Values in the order of `names`, None for what is not there, as many at a time as the store is good for."""

        def one(name: str) -> tuple[str, bytes | None]:
            try:
                return name, self.get(namespace, name)
            except ValueNotFound:
                return name, None

        return self._each(one, names)

    def _each(self, call: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """The results of a call for each name, in their order, as many at a time as the store is good for."""
        concurrency = self.traits.concurrency
        return ordered_map(call, names, concurrency) if concurrency > 1 else map(call, names)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        """Give a value another place, replacing what is there. Raises ValueNotFound.

        A crash in between leaves it in both places; stores that can rename do better.
        """
        value = self.get(namespace, name)
        if (namespace, name) != (to_namespace, to):
            self.put(to_namespace, to, value)
            self.delete(namespace, [name])

    def soft_delete(self, namespace: str, names: Iterable[str]) -> None:
        """Take values away so that `undelete` can bring them back; names that are not there are passed over."""
        trash = _trash(namespace)

        def away(name: str) -> None:
            try:
                self.move(namespace, name, trash, name)
            except ValueNotFound:
                pass

        for _ in self._each(away, names):
            pass

    def undelete(self, namespace: str, names: Iterable[str]) -> builtins.list[str]:
        """Bring back what was deleted softly; the names that came back: not those that are taken again."""
        trash = _trash(namespace)

        def back(name: str) -> str | None:
            try:
                if self.info(namespace, name) is None:
                    self.move(trash, name, namespace, name)
                    return name
            except ValueNotFound:
                pass
            return None

        return [name for name in self._each(back, dict.fromkeys(names)) if name is not None]

    def purge(self, namespace: str, names: Iterable[str]) -> None:
        """Remove for good what was deleted softly."""
        self.delete(_trash(namespace), names)

    def list_all(self, namespace: str, after: str = "") -> Iterator[Stored]:
        """As `list`, with what was deleted softly: a name may come twice, first as what is there."""
        gone = (stored._replace(deleted=True) for stored in self.list(_trash(namespace), after))
        return heapq.merge(self.list(namespace, after), gone, key=lambda stored: (stored.name, stored.deleted))

    def batch(self) -> AbstractContextManager[object]:
        """What is written inside becomes durable at its end: at once where the store can (SQLite), else one by one."""
        return nullcontext()

    def uncached(self) -> AbstractContextManager[object]:
        """Inside, reads say what the store itself holds, not what a cache in front of it has kept."""
        return nullcontext()

    def flush(self) -> None:
        """Called after a commit: tidy what writing left behind (SQLite: fold the write-ahead log into the file)."""

    def location(self) -> str | None:
        """The local path where this store lies; None if it is elsewhere, or not all of it is here."""
        return None

    def locations(self) -> builtins.list[str]:
        """All local paths where it lies, so that an ingest can leave them out."""
        location = self.location()
        return [] if location is None else [location]

    @property
    def silent(self) -> Mapping[str, str]:
        """The stores below this one that do not answer, and why: what is listed may lack what they hold."""
        return {}


def check_key(namespace: str, name: str) -> None:
    """Raises ValueError for a namespace or name no store takes."""
    if namespace not in _PLACES or not _NAME.fullmatch(name):
        raise ValueError(f"not a key: {namespace}/{name!r}")


def check_namespace(namespace: str) -> None:
    """Raises ValueError for a namespace no store has."""
    if namespace not in _PLACES:
        raise ValueError(f"not a namespace: {namespace!r}")


def is_key(namespace: str, name: str) -> bool:
    """Whether what a store lists can be a value of ours: other things may lie where it lies."""
    return namespace in _PLACES and _NAME.fullmatch(name) is not None


def _trash(namespace: str) -> str:
    if namespace not in _TRASH:
        raise ValueError(f"not a namespace: {namespace!r}")
    return _TRASH[namespace]


def check_range(start: int, length: int | None) -> None:
    """Raises ValueError for a range that does not go forwards."""
    if length is not None and length < 0:
        raise ValueError(f"not a range: {length} bytes from {start}")


def cut(value: bytes, start: int, length: int | None) -> bytes:
    """The part of a whole value that `Store.get` is to give."""
    start = max(start + len(value), 0) if start < 0 else start
    return value[start : None if length is None else start + length]


def split_options(rest: str) -> tuple[str, str]:
    """The path in a URL behind its scheme, and the options `?NAME=VALUE&...` at its end, with the `?` (or nothing). A
    path that ends like options itself is written with a slash behind it."""
    match = _OPTIONS.search(rest)
    return (rest[: match.start()], match[0]) if match else (rest, "")


def open_store(url: str, *, create: bool = False, read_only: bool = False) -> Store:
    """The store at `url`: a path (a SQLite file) or `scheme:rest` with one of the backends' schemes.

    With `create` an absent one is made; otherwise that is StoreNotFound. Raises UsageError for an unknown scheme.
    """
    scheme, rest = "sqlite", url
    if match := re.match(r"([A-Za-z][A-Za-z0-9+-]+):", url):
        scheme, rest = match[1].lower(), url[match.end() :].removeprefix("//")
    modules = pkgutil.iter_modules(spraydry.stores.__path__)
    known = {module.name for module in modules if module.name != "base" and not module.ispkg}
    known |= {alias for alias, name in _ALIASES.items() if name in known}
    if scheme not in known:
        there = ", ".join(sorted(known))
        raise UsageError(f"no store is called {scheme!r} (there are: {there}; or write ./{url} for a path)")
    module: ModuleType = importlib.import_module(f"spraydry.stores.{_ALIASES.get(scheme, scheme)}")
    store: Store = module.open_store(rest, scheme=scheme, create=create, read_only=read_only)
    return store
