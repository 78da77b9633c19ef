"""A store in a bucket: `s3://BUCKET/PREFIX`, and `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`."""

from __future__ import annotations

import builtins
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from spraydry.errors import CorruptData, StoreError, StoreNotFound, StoreReadOnly, UsageError, ValueNotFound
from spraydry.parallel import ordered_map
from spraydry.stores.base import (
    NAMESPACES,
    Stat,
    Store,
    Stored,
    Traits,
    check_key,
    check_namespace,
    check_range,
    cut,
    is_key,
)
from spraydry.stores.shared import listing
from spraydry.stores.shared.cloud_clients import KEYS, client
from spraydry.stores.shared.cloud_errors import failure, is_missing, is_range_beyond

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError
except ImportError:
    raise UsageError("s3:, gs: and az: need a library: pip install 'spraydry[s3]'") from None

P = ParamSpec("P")
T = TypeVar("T")

_CONCURRENCY = 16
_ALL = (*(namespace + "~" for namespace in NAMESPACES), *NAMESPACES)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_SEGMENT = re.compile(r"[A-Za-z0-9._=+@ -]{1,200}")
_PREFIX_BYTES = 700  # keys end at 1024 bytes
_MAX_VALUE_BYTES = 1 << 30  # more than any frame, listing or run; a server may claim anything
_PAGE = 1000
_DELETED_AT_A_TIME = 1000  # keys of one DeleteObjects call; the others have no such call that passes over what is gone
_CREATOR = "creator"
_PROBES = "probe"


class CloudStore(Store):
    """Values under PREFIX/NAMESPACE/NAME in a bucket. All methods block; threads may share it, up to 16 calls run at a
    time. It must not be carried over a fork once it was used: the client is made at the first call.

    A PUT of a whole value is atomic and durable when answered, so no value is ever half there. `create` sends
    `If-None-Match: *`, and each call sends a random creator's mark with the value, which the server keeps beside it as
    metadata. After a lost answer, or where the library sent a create twice, the mark says who wrote what is there, even
    when several write the same bytes: exactly one gets True. Where nothing can be learnt it is StoreUnavailable, and
    the value may be there or come later: whoever cares reads it, and must not take a second create's False for
    another's success. A server that ignores the condition is found out before the first repository is made there.

    `move` copies in the server and then deletes: a crash in between leaves both. Tests run against Ceph; gs: and az:
    share all code but the making of the client, and are not tested against their real servers.
    """

    traits = Traits(concurrency=_CONCURRENCY, round_trip_s=0.02, atomic_create=True)

    def __init__(self, scheme: str, bucket: str, prefix: str, read_only: bool = False) -> None:
        self.read_only = read_only
        self.place = f"{scheme}://{bucket}/{prefix}".rstrip("/")
        self._scheme = scheme
        self._bucket = bucket
        self._prefix = prefix and prefix + "/"
        self._made: Any = None
        self._calls: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._closed = False

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        if length == 0 or (start < 0 and self._scheme == "az"):  # no range is empty; Azure has none from the end
            size = self._size(namespace, name)
            start = max(start + size, 0) if start < 0 else start
            if length == 0:
                return b""
        path = self._path(namespace, name)
        if start < 0:
            return cut(self._read(path, {"suffix": -start}), 0, length)
        if length is None or length >= _MAX_VALUE_BYTES:
            return self._read(path, {"offset": start} if start else None)
        return self._read(path, (start, start + length))

    def _read(self, path: str, part: Any) -> bytes:
        try:
            answer = self._ask(obstore.get, self._client(), path, options={"range": part} if part else None)
            first, end = answer.range
            if end - first > _MAX_VALUE_BYTES:
                raise CorruptData(f"{self.place}: {path} has {end - first} bytes, more than any value")
            return bytes(self._ask(answer.bytes))
        except _RangeBeyondError:
            return b""

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        with suppress(ValueNotFound):
            return Stored(name, self._size(namespace, name))
        return None

    def _size(self, namespace: str, name: str) -> int:
        return int(self._ask(obstore.head, self._client(), self._path(namespace, name))["size"])

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        folder = self._path(namespace, "")
        offset = folder + after if is_key(namespace, after) else None
        pages = self._ask(obstore.list, self._client(), folder, offset=offset, chunk_size=_PAGE)
        before = ""
        while page := self._ask(next, pages, None):
            for meta in page:
                name = meta["path"].removeprefix(folder)
                if not is_key(namespace, name) or name <= after:
                    continue
                if name <= before:
                    raise StoreError(f"{self.place} lists in no order, as S3 Express does: it cannot hold a repository")
                before = name
                yield Stored(name, meta["size"])

    def stat(self) -> Stat:
        self._usable()
        values = held = 0
        for count, size in ordered_map(self._stat_of, _ALL, _CONCURRENCY):
            values, held = values + count, held + size
        return Stat(values, held)

    def _stat_of(self, namespace: str) -> tuple[int, int]:
        values = held = 0
        for stored in self.list(namespace):
            values, held = values + 1, held + stored.size
        return values, held

    def is_there(self) -> bool:
        """Whether there is any value, or a listing. Raises StoreNotFound where there is no bucket."""
        found = self._ask(obstore.list_with_delimiter, self._client(), self._prefix or None)
        ours = {self._prefix + namespace for namespace in _ALL}
        listed = {meta["path"] for meta in found["objects"]}
        return not ours.isdisjoint(found["common_prefixes"]) or self._prefix + listing.NAME in listed

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()

        def calls() -> Iterator[tuple[str, Callable[[], object]]]:
            for name, value in values:
                check_key(namespace, name)
                yield name, self._put_later(self._path(namespace, name), bytes(value))

        self._in_flight(calls())

    def _put_later(self, path: str, value: bytes) -> Callable[[], object]:
        return lambda: self._ask(obstore.put, self._client(), path, value, use_multipart=False)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        check_key(namespace, name)
        return self._create(self._path(namespace, name), bytes(value))

    def _create(self, path: str, value: bytes) -> bool:
        mark = secrets.token_hex(16)
        try:
            self._ask(obstore.put, self._client(), path, value, mode="create", attributes={_CREATOR: mark})
            return True
        except AlreadyExistsError:
            return self._creator(path) == mark  # the library may have sent it twice, the first time with success
        except StoreError as error:
            if not error.retryable:
                raise
            with suppress(StoreError):
                if self._creator(path) == mark:
                    return True
            raise type(error)(f"{error} (whether {path} was written is not known)") from None

    def _creator(self, path: str) -> str | None:
        """The mark of who created a value; None if it has none, or is not there."""
        try:
            answer = self._ask(obstore.get, self._client(), path, options={"head": True})
        except ValueNotFound:
            return None
        mark: str | None = answer.attributes.get(_CREATOR)
        return mark

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        at_a_time = _DELETED_AT_A_TIME if self._scheme == "s3" else 1

        def calls() -> Iterator[tuple[str, Callable[[], object]]]:
            paths: list[str] = []
            for name in names:
                check_key(namespace, name)
                paths.append(self._path(namespace, name))
                if len(paths) == at_a_time:
                    yield paths[0], self._delete_later(paths)
                    paths = []
            if paths:
                yield paths[0], self._delete_later(paths)

        self._in_flight(calls())

    def _delete_later(self, paths: builtins.list[str]) -> Callable[[], object]:
        def delete() -> None:
            with suppress(ValueNotFound):
                self._ask(obstore.delete, self._client(), paths)

        return delete

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._writable()
        check_key(namespace, name)
        check_key(to_namespace, to)
        if (namespace, name) == (to_namespace, to):
            self._size(namespace, name)
            return
        here = self._path(namespace, name)
        self._ask(obstore.copy, self._client(), here, self._path(to_namespace, to))
        self._ask(obstore.delete, self._client(), here)

    def flush(self) -> None:
        """Write the listing that web servers need."""
        if not self.read_only:
            listing.write_listing(self, lambda value: self._put_later(self._prefix + listing.NAME, value)())

    def destroy(self) -> None:
        """Remove what the repository put under its prefix; what else lies there, and the bucket, stay."""
        self._writable()
        self._delete_later([self._prefix + listing.NAME])()
        for namespace in _ALL:  # the config last: until then it can be opened and destroyed again
            self.delete(namespace, (stored.name for stored in self.list(namespace)))
        self.close()

    def probe(self) -> None:
        """Raises StoreError where of two that create the same value both would succeed."""
        path = f"{self._prefix}{_PROBES}/{secrets.token_hex(8)}"
        self._create(path, b"")
        both = self._create(path, b"")
        self._delete_later([path])()
        if both:
            raise StoreError(f"{self.place} does not know `If-None-Match: *`: two writers could lose each other's work")

    def close(self) -> None:
        self._closed = True
        with self._lock:
            calls, self._calls = self._calls, None
        if calls is not None:
            calls.shutdown(wait=True)

    # -- calls

    def _path(self, namespace: str, name: str) -> str:
        return f"{self._prefix}{namespace}/{name}"

    def _client(self) -> Any:
        self._usable()
        with self._lock:
            if self._made is None:
                self._made = self._ask(client, self._scheme, self._bucket)
            return self._made

    def _ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the library. Raises StoreErrors, and AlreadyExistsError."""
        try:
            return function(*args, **kwargs)
        except AlreadyExistsError:
            raise
        except (BaseError, OSError, ValueError) as error:
            if is_missing(error):
                path = next((argument for argument in args if isinstance(argument, str)), "a value")
                raise ValueNotFound(f"{self.place}: {path} is not in the store") from None
            if is_range_beyond(error):
                raise _RangeBeyondError from None
            raise failure(error, self.place, self._scheme, self._bucket) from None

    def _in_flight(self, calls: Iterable[tuple[str, Callable[[], object]]]) -> None:
        """Run them, 16 at a time, those of one name in order. After an error those not yet begun are left out; none
        runs any more when it returns."""
        with self._lock:
            if self._calls is None:
                self._calls = ThreadPoolExecutor(_CONCURRENCY, thread_name_prefix="spraydry-cloud")
            pool = self._calls
        flying: dict[str, Future[object]] = {}
        try:
            for name, call in calls:
                if name in flying:
                    flying.pop(name).result()
                elif len(flying) >= 2 * _CONCURRENCY:
                    flying.pop(next(iter(flying))).result()
                flying[name] = pool.submit(call)
            for future in flying.values():
                future.result()
        finally:
            for future in flying.values():
                future.cancel()
            wait(flying.values())

    def _usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.place} was closed")

    def _writable(self) -> None:
        self._usable()
        if self.read_only:
            raise StoreReadOnly(f"{self.place} was opened for reading only")


class _RangeBeyondError(StoreError):
    """A range that begins where the value has ended: no bytes."""


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> CloudStore:
    """The store under `BUCKET/PREFIX`. The bucket must be there; the prefix comes with the first value."""
    bucket, prefix = _parsed(rest, scheme)
    store = CloudStore(scheme, bucket, prefix, read_only)
    try:
        if not store.is_there():
            if not create:
                raise StoreNotFound(f"there is no repository at {store.place}")
            store.probe()
    except BaseException:
        store.close()
        raise
    return store


def _parsed(rest: str, scheme: str) -> tuple[str, str]:
    """Bucket and prefix. The URL is in no message: it may hold what is secret."""
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket or ":" in bucket or "?" in rest or "#" in rest:
        raise UsageError(f"write {scheme}://BUCKET/PREFIX and no more: keys come from {KEYS[scheme]}")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{bucket!r} cannot be a bucket: write {scheme}://BUCKET/PREFIX")
    segments = prefix.split("/") if prefix else []
    if len(prefix) > _PREFIX_BYTES or any(not _SEGMENT.fullmatch(one) or set(one) == {"."} for one in segments):
        raise UsageError(f"{prefix!r} cannot be a prefix: it may have letters, digits and ._=+@- between single /")
    if taken := set(_ALL).intersection(segments):  # a repository above would take what lies there for its own
        raise UsageError(f"{prefix!r} cannot be a prefix: {taken.pop()!r} is what a repository calls a part of itself")
    return bucket, prefix
