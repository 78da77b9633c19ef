"""The store behind `spraydry serve`, read and written over HTTP."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

from spraydry.errors import CorruptData, StoreError, StoreReadOnly, StoreUnavailable, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.parallel import ordered_map
from spraydry.stores.base import NAMESPACES, Stat, Store, Stored, Traits, check_key, check_namespace, check_range, cut
from spraydry.stores.remote import wire
from spraydry.stores.remote.many import Sizes, read_values, value_groups, without_repeats
from spraydry.stores.remote.patience import wanted_s
from spraydry.stores.remote.server import Server
from spraydry.stores.remote.servers import Servers
from spraydry.stores.remote.wire import Back, Fill, Greeting, Listing, Names, batch_path, listing_path, value_path
from spraydry.stores.shared.exchange import TooLong
from spraydry.stores.shared.web import Part

T = TypeVar("T")

MAX_VALUE_BYTES = 1 << 30  # more than any; a server may claim anything
_FRAME_BYTES = 8 << 20  # frames have at most little more than half of that
_MOST_AT_A_TIME = 32
_PUT_BYTES, _PUT_THREADS = 2 << 20, 4
_FIRST_PAGE = 1000
_BY_DIGEST = ("frames", "index", "dictionaries")
_WITH_DIGEST = ("log", "config")  # at their end
_CREATED = (200, 201, 204, 412)
_CREATE_TRIES, _CREATE_WAIT_S = 4, 0.1


class RemoteStore(Store):
    """Values that a server, or several of one repository, gives and takes. Blocks; threads may share it.

    A request that fails goes to the next server; all but `create` may be done twice, and when a create is repeated
    after an answer was lost, what is there then is compared: a record of the log is like no other, so the same bytes
    are this one's. Where another server may have it right, a value is compared with its digest.
    """

    served = True

    def __init__(self, url: str, servers: Servers, greeting: Greeting, read_only: bool) -> None:
        self.url = url
        self.read_only = read_only or greeting.read_only
        self.traits = Traits(min(greeting.concurrency, _MOST_AT_A_TIME), servers.round_trip_s, True, merges_runs=True)
        self._served_read_only = greeting.read_only
        self._servers = servers
        self._batch_bytes = min(_PUT_BYTES, greeting.batch_bytes)
        self._batch_names = greeting.batch_names
        self._complete = greeting.complete
        self._sizes = Sizes()
        self._uncached = 0
        self._lock = threading.Lock()
        self._closed = False

    def wait_for_it(self) -> None:
        self._servers.patience.away_s = wanted_s()

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._usable()
        check_key(namespace, name)
        check_range(start, length)
        if namespace not in NAMESPACES:
            raise StoreError(f"{self.url}: what was deleted softly can be brought back, but not be read")
        stop = None if length is None or start < 0 else start + max(length, 1)
        whole = start == 0 and length is None
        most = _FRAME_BYTES if namespace == "frames" else MAX_VALUE_BYTES
        path, headers = value_path(namespace, name), self._headers()

        def ask(server: Server) -> Part | None:
            return server.get(path, most, None if whole else start, stop, headers)

        try:
            part = self._servers.ask(ask, lambda part: part is None or not whole or _sound(namespace, name, part.body))
        except TooLong:
            raise CorruptData(f"{namespace}/{name} has more than {most} bytes at {self.url}") from None
        if part is None:
            raise ValueNotFound(f"{namespace}/{name} is not at {self.url}")
        return part.body[:length] if part.partial else cut(part.body, start, length)

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        self._usable()

        def groups() -> Iterator[list[str]]:
            rest = iter(names)
            while some := list(islice(rest, min(self._sizes.at_a_time(namespace), self._batch_names))):
                for name in some:
                    check_key(namespace, name)
                yield some

        for found in ordered_map(partial(self._get_group, namespace), groups(), self.traits.concurrency):
            yield from found

    def _get_group(self, namespace: str, names: list[str]) -> list[tuple[str, bytes | None]]:
        """Values that are asked for together; apart where they are too much."""
        if len(names) == 1:
            try:
                found: list[tuple[str, bytes | None]] = [(names[0], self.get(namespace, names[0]))]
            except ValueNotFound:
                found = [(names[0], None)]
        else:
            try:
                found = self._servers.ask(
                    partial(read_values, batch_path("get"), namespace, names, self._headers()),
                    lambda found: all(value is None or _sound(namespace, name, value) for name, value in found),
                )
            except TooLong:
                half = len(names) // 2
                return self._get_group(namespace, names[:half]) + self._get_group(namespace, names[half:])
        self._sizes.note(namespace, [len(value) for _, value in found if value is not None])
        return found

    def info(self, namespace: str, name: str) -> Stored | None:
        self._usable()
        check_key(namespace, name)
        if namespace not in NAMESPACES:
            return next((stored for stored in self.list(namespace, name[:-1]) if stored.name == name), None)
        size = self._servers.ask(lambda server: server.size(value_path(namespace, name)))
        return None if size is None else Stored(name, size)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self._usable()
        check_namespace(namespace)
        limit, more = _FIRST_PAGE, True
        while more:
            path = listing_path(namespace.rstrip("~"), after, limit, deleted=namespace not in NAMESPACES)
            page = self._told(path, Listing)
            self._complete = page.complete
            for name, size in page.values:
                if name <= after or size < 0:
                    raise CorruptData(f"{self.url} lists {namespace} in no order, or without end")
                after = name
                yield Stored(name, size)
            more, limit = page.more and bool(page.values), wire.MOST_LISTED

    def stat(self) -> Stat:
        self._usable()
        fill = self._told(f"{wire.ROOT}stat", Fill)
        return Stat(fill.values, fill.bytes, fill.free_bytes)

    @property
    def silent(self) -> Mapping[str, str]:
        """Not which: a server does not tell what lies behind it."""
        return {} if self._complete else {f"a store behind {self.url}": "the server cannot reach it"}

    @contextmanager
    def uncached(self) -> Iterator[object]:
        with self._lock:
            self._uncached += 1
        try:
            yield None
        finally:
            with self._lock:
                self._uncached -= 1

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        path = f"{batch_path('put')}?namespace={namespace}"

        def put(group: builtins.list[tuple[str, bytes]]) -> None:
            if len(group) == 1:
                self._done("PUT", value_path(namespace, group[0][0]), group[0][1])
            else:
                self._done("POST", path, b"".join(wire.encode_values(group)))

        groups = value_groups(namespace, values, self._batch_bytes, self._batch_names)
        for together in without_repeats(groups):
            for _ in ordered_map(put, together, _PUT_THREADS, _PUT_THREADS):
                pass

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """As every store's. Where it is not known whether this or another's is there: StoreUnavailable."""
        self._writable()
        check_key(namespace, name)
        value, unknown = bytes(value), False

        def attempt(server: Server) -> bool:
            nonlocal unknown
            try:
                answer = server.request(
                    "PUT", value_path(namespace, name), wire.JSON_BYTES, {"If-None-Match": "*"}, value, takes=_CREATED
                )
            except StoreUnavailable:
                unknown = True
                raise
            unknown = unknown or answer.repeated
            return answer.status != 412

        for tried in range(_CREATE_TRIES):
            try:
                if self._servers.ask(attempt):
                    return True
                break
            except StoreUnavailable:
                if tried + 1 == _CREATE_TRIES:
                    raise
                time.sleep(_CREATE_WAIT_S * 2**tried)
        if not unknown or self.get(namespace, name) != value:
            return False
        if namespace == "log":
            return True
        raise StoreUnavailable(f"{namespace}/{name} is at {self.url}, but an answer was lost: whose it is is not known")

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        if namespace not in NAMESPACES:
            self._of_names("purge", namespace.removesuffix("~"), names)
        else:
            self._of_names("delete", namespace, names)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        """To and from what was deleted softly a server moves by itself; else it is put and deleted."""
        self._writable()
        check_key(namespace, name)
        check_key(to_namespace, to)
        if name != to or namespace == to_namespace or namespace.rstrip("~") != to_namespace.rstrip("~"):
            super().move(namespace, name, to_namespace, to)
        elif self.info(namespace, name) is None:
            raise ValueNotFound(f"{namespace}/{name} is not at {self.url}")
        elif namespace in NAMESPACES:
            self.soft_delete(namespace, [name])
        else:
            self.undelete(to_namespace, [name])

    def soft_delete(self, namespace: str, names: Iterable[str]) -> None:
        self._of_names("soft-delete", _shown(namespace), names)

    def undelete(self, namespace: str, names: Iterable[str]) -> builtins.list[str]:
        return self._of_names("undelete", _shown(namespace), dict.fromkeys(names))

    def purge(self, namespace: str, names: Iterable[str]) -> None:
        self._of_names("purge", _shown(namespace), names)

    def _of_names(self, verb: str, namespace: str, names: Iterable[str]) -> builtins.list[str]:
        """Let a server do something with values, many at a time; the names it answers with."""
        self._writable()
        said: builtins.list[str] = []
        rest = iter(names)
        while some := list(islice(rest, self._batch_names)):
            for name in some:
                check_key(namespace, name)
            answer = self._done("POST", batch_path(verb), wire.encode(Names(namespace=namespace, names=tuple(some))))
            if verb == "undelete":
                said += self._read(answer, Back).names
        return said

    def destroy(self) -> None:
        self._writable()
        raise StoreReadOnly(f"{self.url} is served: a repository is removed where it lies")

    def close(self) -> None:
        self._closed = True
        self._servers.close()

    # -- requests

    def _headers(self) -> dict[str, str]:
        return {"Cache-Control": "no-cache"} if self._uncached else {}

    def _done(self, method: str, path: str, body: bytes) -> bytes:
        """Let the nearest server do what may be done twice; its answer."""
        try:
            return self._servers.ask(lambda server: server.request(method, path, wire.JSON_BYTES, {}, body)).body
        except TooLong:
            raise self._garbled() from None

    def _told(self, path: str, kind: type[T]) -> T:
        """What the nearest server says, as JSON."""
        try:
            answer = self._servers.ask(lambda server: server.request("GET", path, wire.JSON_BYTES, self._headers()))
        except TooLong:
            raise self._garbled() from None
        return self._read(answer.body, kind)

    def _read(self, body: bytes, kind: type[T]) -> T:
        try:
            return wire.decode(body, kind)
        except CorruptData:
            raise self._garbled() from None

    def _garbled(self) -> StoreError:
        return StoreUnavailable(f"{self.url} answers what cannot be read; try again")

    def _usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.url} was closed")

    def _writable(self) -> None:
        self._usable()
        if self._served_read_only:
            raise StoreReadOnly(f"{self.url} is served for reading only")
        if self.read_only:
            raise StoreReadOnly(f"{self.url} was opened for reading only")


def _sound(namespace: str, name: str, value: bytes) -> bool:
    """Whether that can be the value of that name."""
    if namespace in _BY_DIGEST and len(name) == 2 * DIGEST_BYTES:
        return digest(value).hex() == name
    return namespace not in _WITH_DIGEST or digest(value[:-DIGEST_BYTES]) == value[-DIGEST_BYTES:]


def _shown(namespace: str) -> str:
    if namespace not in NAMESPACES:
        raise ValueError(f"not a namespace: {namespace!r}")
    return namespace
