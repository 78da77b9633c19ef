"""What client and server of `/v1/` send each other: paths, JSON answers, streams of values, errors. Layout: FORMAT.md.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Annotated, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Meta

from spraydry import errors
from spraydry.errors import CorruptData, SprayDryError, StoreError, StoreUnavailable
from spraydry.stores.base import NAME_PATTERN, NAMESPACES, is_key

VERSION = 1
ROOT = "/v1/"
# In these a value never changes: it may be kept by whoever got it, for ever.
IMMUTABLE = ("frames", "index", "dictionaries", "log")
JSON_BYTES = 8 << 20  # no JSON of either side is longer
MOST_LISTED = 10_000  # names in a page of a listing
MOST_NAMES = 1000  # in one request
VALUES_TYPE = "application/x-spraydry-values"

T = TypeVar("T")


# -- JSON


Namespace = Annotated[str, Meta(pattern=f"^({'|'.join(NAMESPACES)})$")]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/` answers. `repository` is its id in hex; `concurrency` says how many requests at a time are worth
    having, `batch_bytes` how long the body of a request with many values may be, `body_bytes` one value, `batch_names`
    how many names one request may have. `complete`: every store behind it answers, so listings lack nothing. After each
    commit the server merges index runs and flushes its store: clients do neither (`Traits.merges_runs`)."""

    spraydry: int
    repository: str
    read_only: bool
    concurrency: int
    batch_bytes: int
    body_bytes: int
    batch_names: int = MOST_NAMES
    complete: bool = True


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A page of names with sizes in order; `more`: ask again behind the last of them. `complete` as in Greeting."""

    values: tuple[tuple[str, int], ...]
    more: bool
    complete: bool = True


class Names(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of batch requests: values of one namespace, by name."""

    namespace: Namespace
    names: Annotated[tuple[Name, ...], Meta(max_length=MOST_NAMES)]


class Chunks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for chunks, by digests in hex."""

    names: Annotated[tuple[Digest, ...], Meta(max_length=MOST_NAMES)]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of the values that were asked about, in the same order; None for what is not there."""

    sizes: tuple[int | None, ...]


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """The names that an undelete brought back, in the order they were given."""

    names: tuple[str, ...]


class Fill(msgspec.Struct, frozen=True, kw_only=True):
    """How much a store holds, and how much more it may take (None: unknown)."""

    values: int
    bytes: int
    free_bytes: int | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What every refusal carries: one line, and the name of the class of errors.py it was."""

    error: str
    kind: str = ""


def encode(message: msgspec.Struct) -> bytes:
    """A message as JSON."""
    return msgspec.json.encode(message)


def decode(body: bytes, kind: type[T]) -> T:
    """A message. Raises CorruptData for what is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptData(f"not a {kind.__name__}: {error}") from None


def greeting_of(body: bytes) -> Greeting | None:
    """The greeting of a server; None where something else answers. Raises FormatTooNew."""
    try:
        found = decode(body, Greeting)
    except CorruptData:
        return None
    if found.spraydry > VERSION:
        raise errors.FormatTooNew("the server speaks a newer protocol: install a current spraydry")
    if (
        found.spraydry != VERSION
        or not re.fullmatch("[0-9a-f]{32}", found.repository)
        or min(found.concurrency, found.batch_bytes, found.body_bytes, found.batch_names) < 1
    ):
        return None
    return found


# -- paths, relative to the address of the repository


def value_path(namespace: str, name: str) -> str:
    """Where one value is."""
    return f"{ROOT}values/{quote(namespace, safe='')}/{quote(name, safe='')}"


def listing_path(namespace: str, after: str = "", limit: int = 1000, deleted: bool = False) -> str:
    """Where a page of names is: those behind `after`, at most `limit`; of what was deleted softly if `deleted`."""
    asked = {"after": after, "limit": str(limit)} | ({"deleted": "true"} if deleted else {})
    return f"{ROOT}values/{quote(namespace, safe='')}?{urlencode(asked)}"


def batch_path(verb: str) -> str:
    """Where many are asked for at once: get, has, delete, soft-delete, undelete, purge (by Names), chunks (Chunks)."""
    return f"{ROOT}batch/{verb}"


def put_path(namespace: str) -> str:
    """Where a stream of values is put."""
    return f"{ROOT}batch/put?{urlencode({'namespace': namespace})}"


# -- streams of values


class Kind(IntEnum):
    """What an item of a stream is. A stream that ends without END or FAILED was cut off."""

    END = 0
    VALUE = 1
    ABSENT = 2
    FAILED = 3  # the stream ends with this; the value is a Failure as JSON


class Item(NamedTuple):
    """One value of a stream, under its name."""

    kind: Kind
    name: str
    value: bytes


_HEAD = struct.Struct("<BBQ")  # kind, bytes of the name, bytes of the value


def head_of(kind: Kind, name: str = "", value_bytes: int = 0) -> bytes:
    """What comes before the bytes of a value in a stream."""
    encoded = name.encode("ascii")
    return _HEAD.pack(kind, len(encoded), value_bytes) + encoded


def value_item(name: str, value: bytes) -> bytes:
    """A value in a stream."""
    return head_of(Kind.VALUE, name, len(value)) + value


def absent_item(name: str) -> bytes:
    """What a stream has in the place of a value that is not there."""
    return head_of(Kind.ABSENT, name)


def failed_item(failure: Failure) -> bytes:
    """The end of a stream that could not be finished."""
    text = encode(failure)
    return head_of(Kind.FAILED, "", len(text)) + text


END_ITEM = head_of(Kind.END)


def encode_values(values: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A whole stream, in parts: values, then the end."""
    for name, value in values:
        yield head_of(Kind.VALUE, name, len(value))
        yield value
    yield END_ITEM


def item_bytes(name: str, value_bytes: int) -> int:
    """How much a value takes in a stream."""
    return _HEAD.size + len(name) + value_bytes


class Items:
    """Takes a stream apart as it comes. Not thread-safe.

    Holds at most one value, of at most `most` bytes; its space is not set aside before it came. Raises CorruptData
    for what is no stream, or has a value longer than that.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = bytearray()
        self._wanted = _HEAD.size
        self._head: tuple[Kind, int, int] | None = None
        self.ended = False  # END or FAILED came

    def feed(self, part: bytes | bytearray | memoryview) -> list[Item]:
        """The items that are whole with this part, but for END, which sets `ended`."""
        found: list[Item] = []
        if self.ended and len(part):
            raise CorruptData("a stream of values goes on behind its end")
        self._held += part
        at = 0
        while not self.ended:
            if self._head is None:
                if len(self._held) - at < _HEAD.size:
                    break
                self._head = self._checked(*_HEAD.unpack_from(self._held, at))
            kind, name_bytes, value_bytes = self._head
            whole = _HEAD.size + name_bytes + value_bytes
            if len(self._held) - at < whole:
                break
            name = bytes(self._held[at + _HEAD.size : at + _HEAD.size + name_bytes])
            value = bytes(self._held[at + _HEAD.size + name_bytes : at + whole])
            at, self._head = at + whole, None
            self.ended = kind in (Kind.END, Kind.FAILED)
            if kind != Kind.END:
                found.append(Item(kind, _name(name, kind), value))
        del self._held[:at]
        if self.ended and self._held:
            raise CorruptData("a stream of values goes on behind its end")
        return found

    def _checked(self, kind: int, name_bytes: int, value_bytes: int) -> tuple[Kind, int, int]:
        if kind not in Kind.__members__.values():
            raise CorruptData(f"a stream of values has an item of kind {kind}")
        found = Kind(kind)
        if (
            (found in (Kind.VALUE, Kind.ABSENT)) != (name_bytes > 0)
            or (found in (Kind.END, Kind.ABSENT) and value_bytes)
            or value_bytes > (JSON_BYTES if found == Kind.FAILED else self._most)
        ):
            raise CorruptData(f"a stream of values has an item that cannot be ({value_bytes} bytes)")
        return found, name_bytes, value_bytes


def _name(name: bytes, kind: Kind) -> str:
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if kind in (Kind.VALUE, Kind.ABSENT) and not is_key(NAMESPACES[0], text):
        raise CorruptData(f"a stream of values has a name that cannot be: {name[:80]!r}")
    return text


# -- errors


def error_of(status: int, body: bytes, where: str) -> SprayDryError:
    """The error that a refusal stands for: that of its kind where it names one which a server may raise, else one of
    the store by its status. `where` begins its line."""
    try:
        failure = decode(body, Failure)
    except CorruptData:
        failure = Failure(error=f"the server answers with status {status}")
    text = f"{where}: {failure.error}"
    kind = getattr(errors, failure.kind, None) if failure.kind.isidentifier() else None
    if isinstance(kind, type) and issubclass(kind, SprayDryError) and kind not in _NOT_TOLD:
        return kind(text)
    if status in (401, 403):
        return errors.StoreReadOnly(text) if status == 403 else StoreError(text)
    if status in (408, 425, 429, 500, 502, 503, 504):
        return StoreUnavailable(text)
    if status == 507:
        return errors.StoreFull(text)
    return StoreError(text)


# Those that are made of more than a text, or speak of the client's own doing.
_NOT_TOLD: Sequence[type[SprayDryError]] = (errors.ExpressionError, SprayDryError)
