"""What client and server of `/v1/hoards/` send each other: paths, JSON, items of many files. Layout: FORMAT.md.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec

from spraydry.errors import CorruptData

MOST_KEYS = 1000  # in one page of a listing, or one question
MOST_EXPIRES_S = 400 * 86400
MOST_SPANS = 512  # in one answer
BATCH_BYTES = 64 << 20
BATCH_KEYS = 10_000
TRANSACTION = "Spraydry-Transaction"  # the header that says in which transaction a request is


Chunk = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Hoards(msgspec.Struct, frozen=True, kw_only=True):
    """The hoards whoever asks may list, sorted."""

    hoards: tuple[str, ...]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One hoard, and how many keys it has."""

    hoard: str
    keys: int


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A key and what it names: bytes, the BLAKE3 of these in hex (None where nobody knows it), and when it was put, ns
    since 1970."""

    key: str
    size: int
    digest: str | None
    put_ns: int


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys in order; `more`: ask again behind the last of them."""

    files: tuple[File, ...]
    more: bool


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a question about several keys."""

    keys: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_KEYS)]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What keys name, in the order in which they were asked for; None for those that name nothing."""

    found: tuple[File | None, ...]


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a key in a log slot: it came to name a file, or nothing (size and digest are None)."""

    slot: int
    made_ns: int
    made_by: str
    size: int | None
    digest: str | None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All that happened to a key, the oldest first."""

    events: tuple[Happened, ...]


class Spans(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the chunks and holes of a file of so many bytes and with that entity tag, in order: the length of each,
    and the digest of a chunk in hex, or None for a hole. The first begins at `offset`."""

    size: int
    tag: str
    offset: int
    spans: tuple[tuple[Annotated[int, msgspec.Meta(gt=0)], Chunk | None], ...]


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys a batch let name something."""

    keys: int


class Undelete(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request to let a key name what it did before: the digest of what it names `now` (None: nothing, or
    what has none), so that a request which comes twice changes nothing."""

    now: str | None = None
    dry_run: bool = False


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the answer that keeps a transaction open: its name, and after how many seconds it ends."""

    transaction: str
    expires_s: float


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a transaction: `prepared`, `committed` (in `slot`; None where nothing was changed), `aborted`."""

    state: str
    slot: int | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of a request for a link: good for how many seconds (None: as long as the server thinks fit)."""

    expires_s: Annotated[float, msgspec.Meta(ge=1, le=MOST_EXPIRES_S)] | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A path on this server, from its root on, that needs no token until `expires` (seconds since 1970; None: for
    ever)."""

    path: str
    expires: int | None


# -- paths, relative to the address of the repository


def hoard_path(hoard: str, *rest: str, **query: str) -> str:
    """Where something of a hoard is: its number of keys, or what `rest` names."""
    path = "/".join(["/v1/hoards", *(quote(part, safe="") for part in (hoard, *rest))])
    return path + (f"?{urlencode(query)}" if query else "")


def key_path(hoard: str, key: str, what: str = "keys") -> str:
    """Where the file of a key is; its `history`, or who makes a `url` for it."""
    return f"{hoard_path(hoard, what)}/{quote(key)}"


def public_path(hoard: str, key: str) -> str:
    """Where the file of a key is for programs that know nothing of spraydry."""
    return f"/hoards/{quote(hoard, safe='')}/{quote(key)}"


# -- many files in one body

_HEAD = struct.Struct("<HQ")  # bytes of the key, bytes of the file; both 0 at the end


def encode_files(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """A body of files under their keys, in parts."""
    for key, plain in files:
        name = key.encode()
        yield _HEAD.pack(len(name), len(plain)) + name
        yield plain
    yield _HEAD.pack(0, 0)


def file_bytes(key: str, size: int) -> int:
    """How much a file takes in such a body."""
    return _HEAD.size + len(key.encode()) + size


def decode_files(body: bytes) -> list[tuple[str, bytes]]:
    """The files of a whole body. Raises CorruptData for what is none."""
    found: list[tuple[str, bytes]] = []
    view, at = memoryview(body), 0
    while len(view) - at >= _HEAD.size:
        key_bytes, size = _HEAD.unpack_from(view, at)
        at += _HEAD.size
        if not key_bytes:
            if size or at != len(view):
                break
            return found
        if len(view) - at < key_bytes + size:
            break
        try:
            key = bytes(view[at : at + key_bytes]).decode()
        except UnicodeDecodeError:
            raise CorruptData("a body of files has a key that is not UTF-8") from None
        found.append((key, bytes(view[at + key_bytes : at + key_bytes + size])))
        at += key_bytes + size
    raise CorruptData("a body of files does not end as it should")
