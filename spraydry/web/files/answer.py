"""One file as an answer: whole or in parts, if the client does not have it already."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spraydry.errors import CorruptData, SprayDryError, UsageError
from spraydry.format.entry import FILE, Entry, Runs
from spraydry.format.manifest import Span
from spraydry.repository.stream import read_span
from spraydry.web.files import conditions, ranges
from spraydry.web.files.kinds import GUARDED, content_type, disposition
from spraydry.web.files.sending import Reading, while_connected
from spraydry.web.guard.connection import ClientGone
from spraydry.web.served import Served

LASTING = b"max-age=31536000, immutable"
CHANGING = b"no-cache"
_MAX_DATE_S = 253402300799  # years of four digits
_SMALL_BYTES = 128 << 10

log = logging.getLogger(__name__)

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Told:
    """What is said of a file in every answer. `lasting`: under this address it is never another one."""

    entry: Entry
    name: bytes
    lasting: bool
    etag: bytes
    modified_s: int | None
    type: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def told(entry: Entry, name: bytes, lasting: bool) -> Told:
    """What is to be said of a file's entry that is called `name`. Raises UsageError for what is no regular file."""
    if entry.kind != FILE:
        raise UsageError("only regular files have bytes to give")
    etag = b'"%s"' % validator(entry).encode()
    now_s = int(time.time())
    modified_s = entry.mtime_s if 0 <= entry.mtime_s <= min(now_s, _MAX_DATE_S) else None
    kind = content_type(name).encode()
    headers = [
        (b"content-type", kind),
        (b"etag", etag),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", LASTING if lasting else CHANGING),
        *GUARDED,
    ]
    if modified_s is not None:
        headers.append((b"last-modified", conditions.http_date(modified_s)))
    return Told(entry, name, lasting, etag, modified_s, kind, tuple(headers))


def validator(entry: Entry) -> str:
    """What tells the bytes of a file from others, without the quotes of an entity tag."""
    if (name := entry.file_digest) is not None:
        return name.hex()
    assert isinstance(entry.content, Runs)
    return f"m-{entry.content.manifest.hex()}"


async def respond_file(
    request: HTTPConnection, served: Served, entry: Entry, name: bytes, *, lasting: bool, download: bool = False
) -> Response:
    """The answer that gives a file's bytes to a GET or HEAD, or as many as its headers ask for.

    `name` is what the file is called (its last part): that tells its type. `lasting` says that what is found under the
    request's path never changes. With `download` browsers keep it instead of showing it. Whoever calls this has looked
    at the grant. Raises UsageError for what is no regular file, and what reading the first bytes raises.
    """
    return await respond(request.scope, served, told(entry, name, lasting), download)


async def respond(scope: Scope, served: Served, file: Told, download: bool = False) -> Response:
    """As `respond_file`, of what was told before."""
    headers = list(file.headers)
    if download:
        headers.append((b"content-disposition", disposition("attachment", file.name)))
    asked = {key: value for key, value in scope["headers"] if key in conditions.CONDITIONAL}
    parts: Sequence[tuple[int, int]] | None = None
    size = file.entry.size
    if asked:
        code = conditions.status(asked, file.etag, file.modified_s, file.lasting)
        if code == 304:
            return Answer(304, headers[1:])
        if code == 412:
            return Answer(412, [*headers, (b"content-length", b"0")])
    if served.handoff is not None:
        elsewhere = await served.handoff.offer(scope, served, file.entry, file.type)
        if elsewhere is not None:
            return Answer(served.handoff.status, [*headers, *elsewhere, (b"content-length", b"0")])
    if asked:
        condition = asked.get(b"if-range")
        if (
            b"range" in asked
            and scope["method"] == "GET"
            and (condition is None or conditions.range_holds(condition, file.etag, file.modified_s, file.lasting))
        ):
            try:
                parts = ranges.wanted(asked[b"range"], size)
            except ranges.UnsatisfiableError:
                return Answer(416, [*headers, (b"content-range", b"bytes */%d" % size), (b"content-length", b"0")])
    if parts is None:
        return await _some(scope, served, file, 200, headers, 0, size)
    if len(parts) == 1:
        start, stop = parts[0]
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, size)))
        return await _some(scope, served, file, 206, headers, start, stop)
    return _several(served, file, headers, parts)


async def _some(
    scope: Scope, served: Served, file: Told, status: int, headers: RawHeaders, start: int, stop: int
) -> Response:
    headers.append((b"content-length", b"%d" % (stop - start)))
    if scope["method"] == "HEAD" or start == stop:
        return Answer(status, headers)
    content = file.entry.content
    if file.entry.size <= _SMALL_BYTES and isinstance(content, bytes):
        chunk = served.repository.peek_chunk(content)
        if chunk is None:
            chunk = await served.call(read_span, Span(0, file.entry.size, content), served.repository.read_chunk)
            assert chunk is not None
        if len(chunk) != file.entry.size:
            raise CorruptData(f"chunk {content.hex()} is not as long as a file claims")
        return Answer(status, headers, bytes(chunk[start:stop]))
    reading = Reading(served, file.entry, start, stop)
    await reading.begin()
    return Streamed(status, headers, [(b"", reading)], b"")


def _several(served: Served, file: Told, headers: RawHeaders, parts: Sequence[tuple[int, int]]) -> Response:
    """Several ranges, one after another, as multipart/byteranges has them."""
    boundary = b"spraydry-%s" % secrets.token_hex(12).encode()
    size, total = file.entry.size, 0
    bodies = []
    for start, stop in parts:
        head = b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: bytes %d-%d/%d\r\n\r\n" % (
            *(boundary, file.type),
            *(start, stop - 1, size),
        )
        bodies.append((head, Reading(served, file.entry, start, stop)))
        total += len(head) + stop - start
    end = b"\r\n--%s--\r\n" % boundary
    told = [pair for pair in headers if pair[0] != b"content-type"]
    told += [
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", b"%d" % (total + len(end))),
    ]
    return Streamed(206, told, bodies, end)


class Answer(Response):
    """An answer whose body is in memory; header names are in lower case."""

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class Streamed(Answer):
    """An answer whose body is read while it is sent: parts of files, each behind some bytes, then `end`.

    A file that cannot be read to its end ends the connection before the body is complete, so that clients notice.
    """

    def __init__(
        self, status: int, headers: RawHeaders, bodies: Sequence[tuple[bytes, Reading]], end: bytes = b""
    ) -> None:
        super().__init__(status, headers)
        self._bodies = bodies
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        try:
            with cut_short(scope):
                async with while_connected(receive) as connected:
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    for head, reading in self._bodies:
                        if head:
                            await send({"type": "http.response.body", "body": head, "more_body": True})
                        await reading.send_to(send)
                if not connected.lost:
                    await send({"type": "http.response.body", "body": self._end})
        finally:
            for _, reading in self._bodies:
                reading.close()


class Flowing(Answer):
    """An answer whose body comes from an iterator, and whose length nobody knows before its end."""

    def __init__(self, status: int, headers: RawHeaders, flow: AsyncGenerator[bytes]) -> None:
        super().__init__(status, headers)
        self._flow = flow

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._flow):
            if scope["method"] == "HEAD":
                return await super().__call__(scope, receive, send)
            with cut_short(scope):
                async with while_connected(receive) as connected:
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    async for piece in self._flow:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                if not connected.lost:
                    await send({"type": "http.response.body", "body": b""})


@contextmanager
def cut_short(scope: Scope) -> Iterator[None]:
    """Errors inside, where the answer has begun, are told in the log, and end it: a body that is not complete is cut
    off with its connection. That the client is gone is no news."""
    try:
        yield
    except* ClientGone:
        pass
    except* SprayDryError as errors:
        for error in _leaves(errors):
            log.warning("%s: cut short: %s", scope["raw_path"].decode("latin-1"), error)


def _leaves(group: BaseExceptionGroup[SprayDryError]) -> Iterator[SprayDryError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
