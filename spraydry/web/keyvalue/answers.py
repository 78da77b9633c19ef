"""Answers of bytes that clients may keep: entity tags, one range, and nothing where they have it already."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from spraydry.web.failures import failure
from spraydry.web.ranges import Slice, Unsatisfiable, names_tag, slice_of

FOR_EVER = "max-age=31536000, immutable"  # not `public`: what needed a token is for its holder
NOT_KEPT = "no-store"
BINARY = "application/octet-stream"


def headers_of(etag: str, kept: bool) -> dict[str, str]:
    """What every answer with a value carries."""
    return {
        "ETag": etag,
        "Cache-Control": FOR_EVER if kept else NOT_KEPT,
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def not_modified(request: Request, etag: str, kept: bool) -> Response | None:
    """304 where the client has it."""
    if not names_tag(request.headers.get("if-none-match"), etag):
        return None
    return Response(status_code=304, headers=headers_of(etag, kept))


def whole_or_part(request: Request, etag: str, value: bytes | memoryview, kept: bool) -> Response:
    """A value that is in memory, or the range of it that was asked for."""
    try:
        part = slice_of(request, etag, len(value))
    except Unsatisfiable:
        return behind_the_end(len(value))
    if part is None:
        return Response(value, headers=headers_of(etag, kept), media_type=BINARY)
    return partial(etag, memoryview(value)[part.start : part.stop], part, kept)


def partial(etag: str, value: bytes | memoryview, part: Slice, kept: bool) -> Response:
    """206 with a range."""
    headers = {**headers_of(etag, kept), "Content-Range": part.content_range}
    return Response(value, status_code=206, headers=headers, media_type=BINARY)


def behind_the_end(size: int) -> Response:
    """416."""
    answer = failure(416, "nothing of that range is there")
    answer.headers["Content-Range"] = f"bytes */{size}"
    return answer
