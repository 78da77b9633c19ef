"""Errors as answers: one JSON line that says what is wrong, with the status that says whether trying again can help."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spraydry.errors import (
    Conflict,
    KeyExists,
    NotFound,
    SlotTaken,
    SprayDryError,
    StoreFull,
    StoreReadOnly,
    TooLarge,
    UploadRefused,
    UsageError,
    ValueNotFound,
    VersionExists,
)
from spraydry.web.grant import NOTHING, Grant, Refused, grant_of
from spraydry.web.guard.limits import BodyTooLarge, TooMany, TooSlow

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[SprayDryError], int], ...] = (
    (Refused, 403),
    (NotFound, 404),
    (ValueNotFound, 404),
    (TooLarge, 413),
    (UsageError, 400),
    (UploadRefused, 422),
    (VersionExists, 409),
    (KeyExists, 412),
    (Conflict, 409),
    (SlotTaken, 409),
    (StoreReadOnly, 405),
    (TooSlow, 408),
    (BodyTooLarge, 413),
    (TooMany, 429),
    (StoreFull, 507),
)


def status_of(error: SprayDryError) -> int:
    """The HTTP status that says what the error says: 503 for what may go away by itself, 502 for a store's fault."""
    if isinstance(error, Refused) and not error.known:
        return 401
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 503 if error.retryable else 502


def failure(status: int, text: str, kind: str = "", retry_after_s: int = 1) -> JSONResponse:
    """An answer that says what is wrong."""
    headers = {"Cache-Control": "no-store"}
    if status in (429, 503):
        headers["Retry-After"] = str(retry_after_s)
    answer = JSONResponse({"error": text, "kind": kind or "HTTPError"}, status, headers)
    if status == 401:  # browsers ask for a password then: it is the token
        answer.headers.append("WWW-Authenticate", 'Basic realm="spraydry", charset="UTF-8"')
        answer.headers.append("WWW-Authenticate", 'Bearer realm="spraydry"')
    return answer


def answer_to(error: SprayDryError, grant: Grant = NOTHING) -> JSONResponse:
    """The answer that tells an error: its line, and the name of its class."""
    after_s = error.after_s if isinstance(error, TooMany) else 1
    return failure(status_of(error), said(error, grant), type(error).__name__, after_s)


def said(error: SprayDryError, grant: Grant) -> str:
    """What is told of an error: the names of what there is instead only to those who may list everything."""
    return error.bare if isinstance(error, NotFound) and not grant.allows("list") else str(error)


async def told(request: Request, error: Exception) -> Response:
    """Starlette's handler for SprayDryError."""
    assert isinstance(error, SprayDryError)
    answer = answer_to(error, grant_of(request))
    if answer.status_code >= 500:
        log.warning(
            "%s %s: %s: %s", request.method, request.scope["raw_path"].decode("latin-1"), type(error).__name__, error
        )
    return answer


async def refused(request: Request, error: Exception) -> Response:
    """Starlette's handler for what routing itself refuses: unknown paths, methods."""
    assert isinstance(error, HTTPException)
    answer = failure(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def failed(request: Request, error: Exception) -> Response:
    """Starlette's handler for whatever nobody expected; the log has it."""
    return failure(500, "something went wrong here: the server's log says what")
