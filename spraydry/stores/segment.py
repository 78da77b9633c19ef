"""A store on segment files in one folder: `segment:PATH`, and behind it, or not, such as
`?max_file_size=256M&max_files=100&index_memory=16M`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from spraydry.errors import UsageError, ValueNotFound
from spraydry.format.chunker import parse_bytes
from spraydry.segments.reserve import room
from spraydry.segments.segments import Segments
from spraydry.stores.base import Stat, Store, Stored, check_key, check_namespace, check_range, is_key, split_options

_OPTIONS = ("max_file_size", "max_files", "index_memory")


class SegmentStore(Store):
    """Values in segments, all namespaces in one set. Blocks; threads may share it, processes may open the same."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.read_only = segments.read_only

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        value = self.segments.get(_key(namespace, name), start, length)
        if value is None:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        return value

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self.segments.put_many((_key(namespace, name), value) for name, value in values)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        return self.segments.create(_key(namespace, name), value)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self.segments.delete(_key(namespace, name) for name in names)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        prefix = namespace.encode() + b"\0"
        behind = len(prefix)
        for key, row in self.segments.rows(prefix, prefix + after.encode("ascii", "replace")):
            name = key[behind:].decode("ascii", "replace")
            if is_key(namespace, name):
                yield Stored(name, row.length)

    def info(self, namespace: str, name: str) -> Stored | None:
        row = self.segments.find(_key(namespace, name))
        return None if row is None else Stored(name, row.length)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        if not self.segments.move(_key(namespace, name), _key(to_namespace, to)):
            raise ValueNotFound(f"{namespace}/{name} is not in the store")

    def soft_delete(self, namespace: str, names: Iterable[str]) -> None:
        with self.batch():  # one fdatasync for all
            super().soft_delete(namespace, names)

    def stat(self) -> Stat:
        values, held = self.segments.totals()
        return Stat(values, held, room(self.segments.path))

    def destroy(self) -> None:
        self.segments.destroy()

    def batch(self) -> AbstractContextManager[object]:
        return self.segments.writing()

    def flush(self) -> None:
        if not self.read_only:
            self.segments.reclaim()

    def close(self) -> None:
        self.segments.close()

    def location(self) -> str | None:
        return self.segments.path


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> SegmentStore:
    """The store in the folder at `PATH[?NAME=VALUE&...]`. Raises UsageError for an option that is none."""
    path, told = split_options(rest)
    options: dict[str, int] = {}
    for word in told[1:].split("&") if told else ():
        name, _, value = word.partition("=")
        if name not in _OPTIONS:
            raise UsageError(
                f"{scheme}: has no option {word!r}: there are {', '.join(_OPTIONS)} (a path that ends in {told!r} is"
                " written with a / behind it)"
            )
        options[name] = parse_bytes(value)
    return SegmentStore(Segments(path, create=create, read_only=read_only, **options))


def _key(namespace: str, name: str) -> bytes:
    check_key(namespace, name)
    return f"{namespace}\0{name}".encode("ascii")
