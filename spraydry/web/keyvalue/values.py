"""`/v1/values/...`: one value, and pages of names."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spraydry.errors import UsageError
from spraydry.format.digest import digest
from spraydry.stores.remote import wire
from spraydry.web.bodies import body_of, declared
from spraydry.web.failures import failure
from spraydry.web.grant import grant_of
from spraydry.web.keyvalue.answers import (
    BINARY,
    behind_the_end,
    headers_of,
    not_modified,
    partial,
    whole_or_part,
)
from spraydry.web.keyvalue.part import KeyValue, answer
from spraydry.web.keyvalue.shown import BY_DIGEST, MOST_BYTES, check_name, check_namespace, is_digest
from spraydry.web.ranges import Unsatisfiable, is_ranged, slice_of

_AT_ONCE_BYTES = 8 << 20  # longer values are sent in pieces
_PIECE_BYTES = 1 << 20


class Values:
    """Handlers of single values and of listings."""

    def __init__(self, part: KeyValue) -> None:
        self._part = part

    async def get(self, request: Request) -> Response:
        """GET and HEAD of a value."""
        namespace, name = _key(request)
        grant = grant_of(request)
        kept = namespace in wire.IMMUTABLE
        gate, call = self._part.gate, self._part.served.call
        if namespace in BY_DIGEST and is_digest(name):
            etag = f'"{name}"'
            if request.method == "HEAD" or is_ranged(request, etag):
                size = await call(gate.size, grant, namespace, name)
                if (same := not_modified(request, etag, kept)) is not None:
                    return same
                if request.method == "HEAD":
                    headers = {**headers_of(etag, kept), "Content-Length": str(size)}
                    return Response(headers=headers, media_type=BINARY)
                try:
                    part = slice_of(request, etag, size)
                except Unsatisfiable:
                    return behind_the_end(size)
                if part is not None and part.stop - part.start <= _AT_ONCE_BYTES:
                    value = await call(gate.get, grant, namespace, name, part.start, part.stop - part.start)
                    return partial(etag, value, part, kept)
            elif (same := not_modified(request, etag, kept)) is not None:
                await call(gate.size, grant, namespace, name)
                return same
        value = await call(gate.get, grant, namespace, name)
        if not (namespace in BY_DIGEST and is_digest(name)):
            etag = f'"{digest(value).hex()}"'
            if (same := not_modified(request, etag, kept)) is not None:
                return same
        if len(value) <= _AT_ONCE_BYTES:
            return whole_or_part(request, etag, value, kept)
        return await self._in_pieces(request, etag, value, kept)

    async def _in_pieces(self, request: Request, etag: str, value: bytes, kept: bool) -> Response:
        found = whole_or_part(request, etag, value, kept)
        view = memoryview(found.body)

        async def pieces() -> AsyncIterator[memoryview]:
            for at in range(0, len(view), _PIECE_BYTES):
                yield view[at : at + _PIECE_BYTES]

        return StreamingResponse(pieces(), found.status_code, dict(found.headers), BINARY)

    async def put(self, request: Request) -> Response:
        """PUT of a value: with `If-None-Match: *` only where there is none."""
        namespace, name = _key(request)
        grant, gate = grant_of(request), self._part.gate
        gate.admit(grant, namespace)
        condition = request.headers.get("if-none-match")
        if condition not in (None, "*"):
            raise UsageError("If-None-Match is to be *, or left out")
        most = MOST_BYTES[namespace]
        async with self._part.room.for_bytes(declared(request, most)):
            value = await body_of(request, most)
            await self._part.served.fresh()
            if condition is None:
                await self._part.verify(gate.put, grant, namespace, [(name, value)])
            elif not await self._part.verify(gate.create, grant, namespace, name, value):
                return failure(412, f"{namespace}/{name} is there already")
        behind = BackgroundTask(self._part.committed) if namespace == "log" else None
        return Response(status_code=201, headers={"Cache-Control": "no-store"}, background=behind)

    async def delete(self, request: Request) -> Response:
        """DELETE of a value; one that is not there is passed over."""
        namespace, name = _key(request)
        await self._part.verify(self._part.gate.delete, grant_of(request), namespace, [name], "delete")
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def list(self, request: Request) -> Response:
        """A page of names."""
        namespace = request.path_params["namespace"]
        check_namespace(namespace)
        asked = request.query_params
        limit = asked.get("limit", "1000")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 9 and 0 < int(limit) <= wire.MOST_NAMES):
            raise UsageError(f"limit is to be a number from 1 to {wire.MOST_NAMES}")
        deleted = asked.get("deleted", "false")
        if deleted not in ("true", "false"):
            raise UsageError("deleted is to be true or false")
        gate = self._part.gate
        values, more = await self._part.served.call(
            gate.page, grant_of(request), namespace, asked.get("after", ""), int(limit), deleted == "true"
        )
        return answer(wire.Listing(values=tuple(values), more=more, complete=not gate.store.silent))


def _key(request: Request) -> tuple[str, str]:
    namespace, name = request.path_params["namespace"], request.path_params["name"]
    check_name(namespace, name)
    return namespace, name
