"""Errors as answers: one JSON line that says what is wrong, with the status that says whether trying again can help."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spraydry.errors import (
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
from spraydry.web.grant import Refused

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[SprayDryError], int], ...] = (
    (Refused, 403),
    (NotFound, 404),
    (ValueNotFound, 404),
    (TooLarge, 413),
    (UsageError, 400),
    (UploadRefused, 422),
    (VersionExists, 409),
    (SlotTaken, 409),
    (StoreReadOnly, 405),
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


def failure(status: int, text: str, kind: str = "") -> JSONResponse:
    """An answer that says what is wrong."""
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="spraydry"'
    elif status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse({"error": text, "kind": kind or "HTTPError"}, status, headers)


async def told(request: Request, error: Exception) -> Response:
    """Starlette's handler for SprayDryError: its line, and the name of its class."""
    assert isinstance(error, SprayDryError)
    status = status_of(error)
    if status >= 500:
        log.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return failure(status, str(error), type(error).__name__)


async def refused(request: Request, error: Exception) -> Response:
    """Starlette's handler for what routing itself refuses: unknown paths, methods."""
    assert isinstance(error, HTTPException)
    answer = failure(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer
