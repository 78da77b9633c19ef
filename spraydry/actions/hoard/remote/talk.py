"""What a client asks the servers of a hoard: one method for each request, none of which needs a catalog."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit

import msgspec

from spraydry.errors import Conflict, CorruptData, KeyExists, KeyNotFound, StoreError, StoreUnavailable
from spraydry.format.chunker import MAX_CHUNK_BYTES
from spraydry.format.digest import digest
from spraydry.format.manifest import Span
from spraydry.stores.remote import hoards as wire
from spraydry.stores.remote.server import Server
from spraydry.stores.remote.servers import Servers
from spraydry.stores.remote.wire import ROOT
from spraydry.stores.shared.exchange import Answer, Body, TooLong

T = TypeVar("T")
M = TypeVar("M", bound=msgspec.Struct)

SMALL_BYTES = 1 << 20  # what can be sent again to another server without reading it anew
_PIECE_BYTES = 256 << 10
_JSON_BYTES = 16 << 20
_NEWEST = {"Cache-Control": "no-cache"}


class SourceFailed(Exception):
    """What was to be put cannot be read; the cause says why."""


class Talk:
    """Asks about one hoard, within a transaction of one of the servers where `within` says so. Blocks; threads may
    share it. Each request goes to the nearest server that answers; but that of a transaction stays with it."""

    def __init__(self, servers: Servers, hoard: str, within: tuple[Server, str] | None = None) -> None:
        self._servers = servers
        self.hoard = hoard
        self._within = within
        self._headers = {} if within is None else {wire.TRANSACTION: within[1]}

    # -- reading

    def find(self, key: str) -> wire.File | None:
        """What a key names, at this moment; None where it names nothing. Raises StoreErrors."""
        if self._within is None:
            body = msgspec.json.encode(wire.Keys(keys=(key,)))
            path = wire.hoard_path(self.hoard, "has")
            (found,) = self._message("POST", path, wire.Found, body, _NEWEST).found or (None,)
            return found
        page = self._message("GET", wire.hoard_path(self.hoard, "keys", prefix=key, limit="1"), wire.Files)
        return next((file for file in page.files if file.key == key), None)

    def read(self, key: str, start: int, length: int, tag: str | None) -> tuple[bytes, int, str]:
        """Some bytes of the file under a key, its size and its tag: that one if there is one. Raises KeyNotFound,
        StoreUnavailable where it is another file by now, StoreErrors."""
        headers = {**self._headers, **_NEWEST, "Range": f"bytes={start}-{start + length - 1}"}
        if tag is not None:
            headers["If-Match"] = tag

        def ask(server: Server) -> tuple[bytes, int, str]:
            path = wire.key_path(self.hoard, key)
            answer = server.request("GET", path, length, headers, takes=(200, 206, 412, 416))
            found = answer.headers.get("ETag", "")
            if answer.status == 412 or (tag is not None and found != tag):
                raise self._overwritten(key)
            if answer.status == 206:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if not (size.isascii() and size.isdecimal() and len(size) < 20):
                    raise StoreError(f"{server.url} does not say how long {self.hoard}/{key} is")
                return answer.body, int(size), found
            return (b"" if answer.status == 416 else answer.body[start : start + length]), len(answer.body), found

        return self._ask(ask)

    def spans(self, key: str, start: int, size: int, tag: str) -> list[Span]:
        """Some of the chunks and holes of the file under a key, in order, from the one on that holds byte `start`.
        Raises KeyNotFound where it is another file than that of this size and tag by now, CorruptData, StoreErrors."""
        path = wire.key_path(self.hoard, key, "spans")
        told = self._message("GET", f"{path}?start={start}", wire.Spans, None, _NEWEST)
        if (told.size, told.tag) != (size, tag):
            raise self._overwritten(key)
        found, offset = [], told.offset
        for length, chunk in told.spans:
            found.append(Span(offset, length, None if chunk is None else bytes.fromhex(chunk)))
            offset += length
            if chunk is not None and length > MAX_CHUNK_BYTES:
                raise CorruptData(f"{self.hoard}/{key}: the server tells of a chunk of {length} bytes")
        if offset > size:
            raise CorruptData(f"{self.hoard}/{key}: the server tells of more chunks than it has bytes")
        return found

    def page(self, prefix: str, after: str) -> wire.Files:
        """A page of keys. Raises StoreErrors."""
        path = wire.hoard_path(self.hoard, "keys", prefix=prefix, after=after)
        return self._message("GET", path, wire.Files, None, _NEWEST)

    def count(self) -> int:
        """How many keys there are. Raises HoardNotFound, StoreErrors."""
        return self._message("GET", wire.hoard_path(self.hoard), wire.Counted, None, _NEWEST).keys

    def ping(self) -> None:
        """Raises StoreUnavailable where no server answers, StoreErrors."""
        self._ask(lambda server: server.request("GET", ROOT, _JSON_BYTES))

    def history(self, key: str) -> Sequence[wire.Happened]:
        """What happened to a key. Raises KeyNotFound, HoardNotFound, StoreErrors."""
        return self._message("GET", wire.key_path(self.hoard, key, "history"), wire.History).events

    def link(self, key: str, expires_s: float | None) -> str:
        """An address of the file that needs no token. Raises KeyNotFound, StoreErrors."""
        body = msgspec.json.encode(wire.Wanted(expires_s=expires_s))

        def ask(server: Server) -> str:
            path = wire.key_path(self.hoard, key, "url")
            found = _message(server.request("POST", path, _JSON_BYTES, {}, body), wire.Link)
            parts = urlsplit(server.url)
            return f"{parts.scheme}://{parts.netloc}{found.path}"

        return self._ask(ask)

    # -- changing

    def put_unnamed(self, source: BinaryIO) -> wire.File:
        """Keep what a stream gives under its digest. Raises SourceFailed, StoreErrors."""
        return self._put("/v1/files", source, {})

    def put(self, key: str, source: BinaryIO, new: bool) -> wire.File:
        """Let a key name what a stream gives. Raises KeyExists, SourceFailed, StoreErrors."""
        return self._put(wire.key_path(self.hoard, key), source, {"If-None-Match": "*"} if new else {}, key)

    def _put(self, path: str, source: BinaryIO, condition: dict[str, str], key: str = "") -> wire.File:
        front = _read(source, SMALL_BYTES)
        rest = _read(source, 1) if len(front) == SMALL_BYTES else b""
        headers = {**self._headers, **condition}
        if rest:
            return self._put_long(path, source, front + rest, headers)
        tries = 0

        def ask(server: Server) -> wire.File:
            nonlocal tries
            tries += 1
            try:
                answer = server.request("PUT", path, _JSON_BYTES, headers, front)
                tries += answer.repeated
                return _message(answer, wire.File)
            except KeyExists:
                if tries == 1:
                    raise
                # It may be that the answer was lost, not the request.
                found = self.find(key)
                if found is None or found.digest != digest(front).hex():
                    raise
                return found

        return self._ask(ask)

    def _put_long(self, path: str, source: BinaryIO, front: bytes, headers: dict[str, str]) -> wire.File:
        """As `put`, of what does not fit into memory: sent once, or again where the stream can go back."""
        sent = False
        begin = _position(source, len(front))

        def pieces() -> Iterator[bytes]:
            nonlocal sent
            if sent and begin is not None:
                source.seek(begin)
            else:
                yield front
            sent = True
            while piece := _read(source, _PIECE_BYTES):
                yield piece

        def ask(server: Server) -> wire.File:
            if sent and begin is None:
                raise StoreError(f"{server.url} was not reached in time, and what was to be put cannot be read again")
            return _message(server.request("PUT", path, _JSON_BYTES, headers, pieces()), wire.File)

        return self._ask(ask)

    def put_batch(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Let keys name files that are in memory. Raises StoreErrors."""
        body = b"".join(wire.encode_files(files))
        self._message("POST", wire.hoard_path(self.hoard, "batch"), wire.Put, body)

    def delete(self, key: str) -> None:
        """Let a key name nothing. Raises KeyNotFound, StoreErrors."""
        tries = 0

        def ask(server: Server) -> None:
            nonlocal tries
            tries += 1
            try:
                tries += server.request("DELETE", wire.key_path(self.hoard, key), _JSON_BYTES, self._headers).repeated
            except KeyNotFound:
                if tries == 1:
                    raise

        self._ask(ask)

    def undelete(self, key: str, dry_run: bool) -> wire.File:
        """Let a key name what it did before. Raises KeyNotFound, HoardNotFound, Conflict, StoreErrors."""
        seen = self.find(key)
        body = msgspec.json.encode(wire.Undelete(now=None if seen is None else seen.digest, dry_run=dry_run))
        tries = 0

        def ask(server: Server) -> wire.File:
            nonlocal tries
            tries += 1
            try:
                path = wire.key_path(self.hoard, key, "undelete")
                return _message(server.request("POST", path, _JSON_BYTES, {}, body), wire.File)
            except Conflict:
                found = self.find(key)
                if tries == 1 or found is None:
                    raise
                return found  # it was the answer that was lost, not the request

        return self._ask(ask)

    # -- transactions

    def begin(self) -> tuple[Talk, Held]:
        """A transaction: who asks within it, and what keeps it open. Raises StoreErrors."""

        def ask(server: Server) -> tuple[Talk, Held]:
            held = Held(server, wire.hoard_path(self.hoard, "transactions"))
            return Talk(self._servers, self.hoard, (server, held.name)), held

        return self._ask(ask)

    def end(self, how: str) -> wire.Ended:
        """`prepare`, `commit` or `abort` the transaction. Raises Conflict, KeyExists, StoreErrors."""
        assert self._within is not None
        return self._message("POST", wire.hoard_path(self.hoard, "transactions", self._within[1], how), wire.Ended, b"")

    # --

    def _overwritten(self, key: str) -> KeyNotFound:
        return KeyNotFound(f"{self.hoard}/{key} was overwritten while it was read: open it again")

    def _ask(self, ask: Callable[[Server], T]) -> T:
        try:
            return self._servers.ask(ask) if self._within is None else ask(self._within[0])
        except TooLong:
            raise StoreError("the server answers with more than it was asked for") from None

    def _message(
        self,
        method: str,
        path: str,
        kind: type[M],
        body: Body | None = None,
        headers: dict[str, str] | None = None,
    ) -> M:
        told = {**self._headers, **(headers or {})}
        return self._ask(lambda server: _message(server.request(method, path, _JSON_BYTES, told, body), kind))


class Held:
    """A connection that keeps a transaction open until it is let go; a thread of its own waits on it."""

    def __init__(self, server: Server, path: str) -> None:
        """Raises StoreErrors where none is begun."""
        self.name = ""
        self._error: BaseException | None = None
        self._begun = threading.Event()
        self._over = threading.Event()
        threading.Thread(target=self._hold, args=(server, path), name="spraydry-transaction", daemon=True).start()
        self._begun.wait()
        if self._error is not None:
            raise self._error

    def _hold(self, server: Server, path: str) -> None:
        def take(response: object) -> None:
            line = response.readline(1 << 16)  # type: ignore[attr-defined]
            try:
                self.name = msgspec.json.decode(line, type=wire.Begun).transaction
            except msgspec.MsgspecError:
                raise StoreUnavailable(f"{server.url} answers what cannot be read") from None
            self._begun.set()
            self._over.wait()

        try:
            server.post(path, b"", {}, take)
        except BaseException as error:
            self._error = error
        finally:
            self._begun.set()

    def drop(self) -> None:
        """Let it go: a transaction that was not committed is aborted then."""
        self._over.set()


def _message(answer: Answer, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"the server answers what is no {kind.__name__}: {error}") from None


def _read(source: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer at the end. Raises SourceFailed."""
    parts: list[bytes] = []
    try:
        while size and (part := source.read(size)):
            parts.append(part)
            size -= len(part)
    except Exception as error:
        raise SourceFailed from error
    return b"".join(parts)


def _position(source: BinaryIO, read: int) -> int | None:
    """Where what was read began; None where nobody can go back there."""
    try:
        return source.tell() - read if source.seekable() else None
    except (OSError, ValueError, AttributeError):
        return None
