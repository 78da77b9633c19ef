"""A store behind HTTP: that of `spraydry serve`, or for reading on any web server that serves files, by its listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from spraydry.errors import (
    CorruptData,
    NotARepository,
    NotListed,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
    ValueNotFound,
)
from spraydry.stores.base import Stat, Store, Stored, Traits, check_key, check_namespace, check_range, cut
from spraydry.stores.remote.servers import Servers
from spraydry.stores.remote.store import RemoteStore
from spraydry.stores.shared.exchange import Exchange, TooLong
from spraydry.stores.shared.listing import LISTED, MAX_BYTES, NAME, PACKS, Listing, decode
from spraydry.stores.shared.nesting import nested
from spraydry.stores.shared.web import Part, WebServer

MAX_UNLISTED_BYTES = 8 << 20  # frames have at most little more than half of that

T = TypeVar("T")


class HttpStore(Store):
    """Values by GET. Blocks; threads may share it. Frames cannot be listed, for web servers list nothing."""

    read_only = True
    traits = Traits(concurrency=8, round_trip_s=0.02, atomic_create=False)

    def __init__(self, server: WebServer) -> None:
        self._server = server
        self._closed = False
        self._listing = self._fetched()

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._usable()
        check_key(namespace, name)
        check_range(start, length)
        if not self._is_listed(namespace, name):
            return self._value(namespace, name, start, length, MAX_UNLISTED_BYTES).body
        for _ in range(2):
            size = self._listed(namespace, name)
            part = self._value(namespace, name, start, length, size)
            if part.size in (None, size):
                return part.body
            self._refresh()  # it may have been replaced since
        raise CorruptData(f"{self._server.url}/{namespace}/{name} has not the size that the listing says")

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        self._usable()
        check_namespace(namespace)
        if namespace.rstrip("~") not in LISTED:
            raise NotListed(f"{self._server.url}: a web server lists no {namespace}: do this where they are written")
        self._refresh()
        for name, size in self._listing.values.get(namespace, {}).items():
            if name > after:
                yield Stored(name, size)

    def info(self, namespace: str, name: str) -> Stored | None:
        self._usable()
        check_key(namespace, name)
        try:
            if self._is_listed(namespace, name):
                return Stored(name, self._listed(namespace, name))
            return Stored(name, self._at_any_depth(namespace, name, self._server.size))
        except ValueNotFound:
            return None

    def stat(self) -> Stat:
        """Of what is listed: without the frames."""
        self._usable()
        self._refresh()
        sizes = [size for values in self._listing.values.values() for size in values.values()]
        return Stat(len(sizes), sum(sizes))

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._refuse()

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._refuse()
        return False

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._refuse()

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._refuse()

    def destroy(self) -> None:
        self._refuse()

    def close(self) -> None:
        self._closed = True
        self._server.close()

    def _usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self._server.url} was closed")

    def _refuse(self) -> None:
        raise StoreReadOnly(f"{self._server.url} is read through a web server: write where it lies")

    # -- values

    def _value(self, namespace: str, name: str, start: int, length: int | None, most: int) -> Part:
        """A part of a value, and the size of all where the server says it."""
        whole = start == 0 and length is None
        stop = None if length is None or start < 0 else start + max(length, 1)

        def ask(path: str) -> Part | None:
            return self._server.get(path, most) if whole else self._server.get(path, most, start, stop)

        try:
            part = self._at_any_depth(namespace, name, ask)
        except TooLong:
            if namespace in LISTED:
                return Part(b"", -1)
            raise CorruptData(f"{self._server.url}/{namespace}/{name} has more than {most} bytes") from None
        body = part.body[:length] if part.partial else cut(part.body, start, length)
        return Part(body, part.size)

    def _at_any_depth(self, namespace: str, name: str, ask: Callable[[str], T | None]) -> T:
        depths = self._listing.depths_of(namespace)
        for folders in dict.fromkeys(nested(name, depth) for depth in depths):
            found = ask("/".join((namespace, *folders, name)))
            if found is not None:
                return found
        raise ValueNotFound(f"{namespace}/{name} is not at {self._server.url}")

    # -- the listing

    def _is_listed(self, namespace: str, name: str) -> bool:
        """Whether the listing has it if it is there: not a slot that a log pack holds, nor a pack itself, of which any
        may have been made anew."""
        if namespace == "log" and self._listing.values[PACKS]:
            slots = self._listing.values["log"]
            return name in slots or name > max(slots, default="")
        return namespace in LISTED and namespace != PACKS

    def _listed(self, namespace: str, name: str) -> int:
        """The size of a value; what is not known yet may have been added since."""
        for _ in range(2):
            size = self._listing.values[namespace].get(name)
            if size is not None:
                return size
            self._refresh()
        raise ValueNotFound(f"{namespace}/{name} is not at {self._server.url}")

    def _refresh(self) -> None:
        found = self._fetched()
        # The log only grows: what has less of it comes from a cache on the way.
        if max(found.values["log"], default="") >= max(self._listing.values["log"], default=""):
            self._listing = found

    def _fetched(self) -> Listing:
        url = self._server.url
        try:
            part = self._server.get(NAME, MAX_BYTES, headers={"Cache-Control": "no-cache"})
        except TooLong:
            raise NotARepository(f"{url} is not a spraydry repository: its listing has no end") from None
        if part is None:
            raise StoreNotFound(f"there is no repository at {url}: no file {NAME!r}, which every commit there writes")
        if not part.body.startswith(b"spraydry"):
            raise NotARepository(f"{url} is not a spraydry repository: its file {NAME!r} is something else")
        return decode(part.body)


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> Store:
    """The store at `scheme://rest`: that of a `spraydry serve`, or of several (`scheme://HOST,HOST/PATH`), or files.

    Raises UsageError for an address that is none, StoreNotFound also with `create`.
    """
    urls = addresses(scheme, rest)
    servers = Servers(urls)
    try:
        if (greeting := servers.open()) is not None:
            return RemoteStore(f"{scheme}://{rest}".rstrip("/"), servers, greeting, read_only)
    except BaseException:
        servers.close()
        raise
    servers.close()
    server = WebServer(Exchange(urls[0]))
    try:
        return HttpStore(server)
    except BaseException:
        server.close()
        raise


def addresses(scheme: str, rest: str) -> list[str]:
    """The address of each server, `http://a:1,b:2/PREFIX` having two."""
    hosts, slash, path = rest.partition("/")
    return list(dict.fromkeys(f"{scheme}://{host}{slash}{path}" for host in hosts.split(",")))
