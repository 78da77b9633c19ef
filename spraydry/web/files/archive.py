"""A folder as one tar or zip, written by a thread into a stream that goes out as it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, cast

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spraydry.actions.export import Exported, write_tar, write_zip
from spraydry.errors import StoreUnavailable, UsageError
from spraydry.format.entry import Subtree
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.web.files.answer import CHANGING, LASTING, Answer, RawHeaders, cut_short
from spraydry.web.files.conditions import CONDITIONAL, status
from spraydry.web.files.kinds import disposition
from spraydry.web.files.sending import while_connected
from spraydry.web.served import Served

_PIECE_BYTES = 256 << 10
_AT_A_TIME = 8  # each keeps a thread until the client has all of it, however slow that is

Write = Callable[[Repository, Found, IO[bytes]], Exported]
_KINDS: dict[str, tuple[Write, bytes]] = {
    "tar": (write_tar, b"application/x-tar"),
    "zip": (write_zip, b"application/zip"),
}
_limiter = trio.CapacityLimiter(_AT_A_TIME)


def check_kind(kind: str) -> None:
    """Raises UsageError for other kinds than tar and zip."""
    if kind not in _KINDS:
        raise UsageError(f"{kind!r} is no kind of archive: there are {' and '.join(_KINDS)}")


def respond_archive(scope: Scope, served: Served, found: Found, kind: str, lasting: bool) -> Response:
    """The answer that gives a directory as an archive, of a kind that was checked. Raises StoreUnavailable while there
    are too many at a time."""
    write, media_type = _KINDS[kind]
    assert isinstance(found.entry.content, Subtree)
    etag = b'W/"%s-%d-%s"' % (found.entry.content.digest.hex().encode(), found.version.made_in, kind.encode())
    version = found.version
    name = found.path.rpartition(b"/")[2] or f"{version.root}-{version.name}".encode()
    headers = [
        (b"content-type", media_type),
        (b"content-disposition", disposition("attachment", name + f".{kind}".encode())),
        (b"etag", etag),
        (b"cache-control", LASTING if lasting else CHANGING),
        (b"x-content-type-options", b"nosniff"),
    ]
    asked = {key: value for key, value in scope["headers"] if key in CONDITIONAL}
    if (code := status(asked, etag, None, lasting)) != 200:
        return Answer(code, headers[2:])
    if scope["method"] == "HEAD":
        return Answer(200, headers)
    if _limiter.available_tokens < 1:
        raise StoreUnavailable(f"{_AT_A_TIME} archives are being made already: try again in a while")
    return _Archive(headers, lambda out: write(served.repository, found, out))


class _Archive(Answer):
    """What `write` writes. An archive that cannot be written to its end ends the connection before its own end."""

    def __init__(self, headers: RawHeaders, write: Callable[[IO[bytes]], Exported]) -> None:
        super().__init__(200, headers)
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        give, take = trio.open_memory_channel[bytes](1)
        with cut_short(scope):
            async with while_connected(receive) as connected, trio.open_nursery() as nursery:
                nursery.start_soon(self._in_thread, give)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for piece in take:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            # Behind the nursery, which raises here what ended the writing, if it did not end well.
            if not connected.lost:
                await send({"type": "http.response.body", "body": b""})

    async def _in_thread(self, give: trio.MemorySendChannel[bytes]) -> None:
        def write() -> None:
            out = _Out(give)
            self._write(cast(IO[bytes], out))
            out.flush()

        async with give:
            await trio.to_thread.run_sync(write, limiter=_limiter)


class _Out:
    """The stream that a thread writes to: it waits there until the client takes what came before."""

    def __init__(self, give: trio.MemorySendChannel[bytes]) -> None:
        self._give = give
        self._parts: list[bytes] = []
        self._held = 0

    def write(self, plain: bytes) -> int:
        self._parts.append(bytes(plain))
        self._held += len(plain)
        if self._held >= _PIECE_BYTES:
            self.flush()
        return len(plain)

    def flush(self) -> None:
        if self._parts:
            trio.from_thread.run(self._give.send, b"".join(self._parts))
            self._parts, self._held = [], 0
