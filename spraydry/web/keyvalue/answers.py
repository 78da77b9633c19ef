"""Answers of bytes that clients may keep: entity tags, one range, and nothing where they have it already."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spraydry.web.failures import failure
from spraydry.web.files.conditions import CONDITIONAL, range_holds, status
from spraydry.web.files.ranges import UnsatisfiableError, wanted

FOR_EVER = "max-age=31536000, immutable"  # not `public`: what needed a token is for its holder
NOT_KEPT = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
BINARY = "application/octet-stream"
_AT_ONCE_BYTES = 8 << 20  # what is longer is sent in pieces
_PIECE_BYTES = 1 << 20


def headers_of(etag: str, kept: bool) -> dict[str, str]:
    """What every answer with a value carries; `kept`: for ever."""
    return {
        **NOT_KEPT,
        "ETag": etag,
        "Cache-Control": FOR_EVER if kept else "no-store",
        "Accept-Ranges": "bytes",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def unconditional(request: Request, etag: str, kept: bool) -> Response | None:
    """None where the conditions of the request hold; else 304 or 412, which say that they do not."""
    found = status(_asked(request), etag.encode(), None, True)
    if found == 304:
        return Response(status_code=304, headers=headers_of(etag, kept))
    return failure(412, "it is another one by now") if found == 412 else None


def part_of(request: Request, etag: str, size: int) -> tuple[int, int] | None:
    """The one range that is asked for, as (start, stop); None where all is to be sent: also for several ranges, and
    where the range is of something else than this. Raises UnsatisfiableError."""
    asked = _asked(request)
    header = asked.get(b"range")
    if header is None or request.method != "GET":
        return None
    if (condition := asked.get(b"if-range")) is not None and not range_holds(condition, etag.encode(), None, True):
        return None
    ranges = wanted(header, size)
    return ranges[0] if ranges is not None and len(ranges) == 1 else None


def respond(request: Request, etag: str, value: bytes | memoryview, kept: bool) -> Response:
    """A value that is in memory, or the range of it that was asked for, as far as the conditions hold."""
    if (other := unconditional(request, etag, kept)) is not None:
        return other
    try:
        part = part_of(request, etag, len(value))
    except UnsatisfiableError:
        return behind_the_end(len(value))
    if part is not None:
        return partial(etag, memoryview(value)[slice(*part)], part, len(value), kept)
    return _sent(value, 200, headers_of(etag, kept))


def partial(etag: str, value: bytes | memoryview, part: tuple[int, int], size: int, kept: bool) -> Response:
    """206 with the range `part` of `size` bytes."""
    said = f"bytes {part[0]}-{part[1] - 1}/{size}"
    return _sent(value, 206, {**headers_of(etag, kept), "Content-Range": said})


def behind_the_end(size: int) -> Response:
    """416."""
    answer = failure(416, "nothing of that range is there")
    answer.headers["Content-Range"] = f"bytes */{size}"
    return answer


def _sent(value: bytes | memoryview, status_code: int, headers: dict[str, str]) -> Response:
    if len(value) <= _AT_ONCE_BYTES:
        return Response(value, status_code, headers, BINARY)
    view = memoryview(value)

    async def pieces() -> AsyncIterator[memoryview]:
        for at in range(0, len(view), _PIECE_BYTES):
            yield view[at : at + _PIECE_BYTES]

    return StreamingResponse(pieces(), status_code, {**headers, "Content-Length": str(len(view))}, BINARY)


def _asked(request: Request) -> dict[bytes, bytes]:
    return {name: value for name, value in request.scope["headers"] if name in CONDITIONAL}
