"""`/v1/values/...`: one value, and pages of names."""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from spraydry.errors import UsageError
from spraydry.format.digest import digest
from spraydry.stores.remote import wire
from spraydry.web.bodies import body_of
from spraydry.web.failures import failure
from spraydry.web.files.ranges import UnsatisfiableError
from spraydry.web.grant import grant_of
from spraydry.web.keyvalue.answers import (
    BINARY,
    NOT_KEPT,
    behind_the_end,
    headers_of,
    part_of,
    partial,
    respond,
    unconditional,
)
from spraydry.web.keyvalue.part import KeyValue, answer
from spraydry.web.keyvalue.shown import BY_DIGEST, MOST_BYTES, check_name, check_namespace, is_digest, limit_of


class Values:
    """Handlers of single values and of listings."""

    def __init__(self, part: KeyValue) -> None:
        self._part = part

    async def get(self, request: Request) -> Response:
        """GET and HEAD of a value."""
        namespace, name = _key(request)
        grant, kept = grant_of(request), namespace in wire.IMMUTABLE
        gate, call = self._part.gate, self._part.served.call
        if namespace in BY_DIGEST and is_digest(name):
            etag = f'"{name}"'
            if request.method == "HEAD" or not {"range", "if-none-match", "if-match"}.isdisjoint(request.headers):
                size = await call(gate.size, grant, namespace, name)
                if (other := unconditional(request, etag, kept)) is not None:
                    return other
                if request.method == "HEAD":
                    return Response(headers={**headers_of(etag, kept), "Content-Length": str(size)}, media_type=BINARY)
                try:
                    part = part_of(request, etag, size)
                except UnsatisfiableError:
                    return behind_the_end(size)
                if part is not None:
                    value = await call(gate.get, grant, namespace, name, part[0], part[1] - part[0])
                    return partial(etag, value, part, size, kept)
            return respond(request, etag, await call(gate.get, grant, namespace, name), kept)
        value = await call(gate.get, grant, namespace, name)
        return respond(request, f'"{digest(value).hex()}"', value, kept)

    async def put(self, request: Request) -> Response:
        """PUT of a value: with `If-None-Match: *` only where there is none."""
        namespace, name = _key(request)
        grant, gate = grant_of(request), self._part.gate
        gate.admit(grant, namespace)
        condition = request.headers.get("if-none-match")
        if condition not in (None, "*"):
            raise UsageError("If-None-Match is to be *, or left out")
        most = MOST_BYTES[namespace]
        with self._part.room.body() as held:
            value = await body_of(request, most, self._part.room, held)
            await self._part.served.fresh()
            run = self._part.commit if namespace == "log" else self._part.verify
            if condition is None:
                await run(gate.put, grant, namespace, [(name, value)])
            elif not await run(gate.create, grant, namespace, name, value):
                return failure(412, f"{namespace}/{name} is there already")
        behind = BackgroundTask(self._part.committed) if namespace == "log" else None
        return Response(status_code=201, headers=NOT_KEPT, background=behind)

    async def delete(self, request: Request) -> Response:
        """DELETE of a value; one that is not there is passed over."""
        namespace, name = _key(request)
        await self._part.verify(self._part.gate.delete, grant_of(request), namespace, [name], "delete")
        return Response(status_code=204, headers=NOT_KEPT)

    async def list(self, request: Request) -> Response:
        """A page of names."""
        namespace = request.path_params["namespace"]
        check_namespace(namespace)
        deleted = request.query_params.get("deleted", "false")
        if deleted not in ("true", "false"):
            raise UsageError("deleted is to be true or false")
        after = request.query_params.get("after", "")
        gate = self._part.gate
        values, more = await self._part.served.call(
            gate.page, grant_of(request), namespace, after, limit_of(request), deleted == "true"
        )
        return answer(wire.Listing(values=tuple(values), more=more, complete=not gate.store.silent))


def _key(request: Request) -> tuple[str, str]:
    namespace, name = request.path_params["namespace"], request.path_params["name"]
    check_name(namespace, name)
    return namespace, name
