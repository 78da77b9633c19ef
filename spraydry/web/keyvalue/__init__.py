"""`/v1/`: a repository's values, chunks and trees by digest or name, for spraydry and other programs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from spraydry.errors import UsageError
from spraydry.stores.remote import wire
from spraydry.web.grant import grant_of
from spraydry.web.keyvalue.answers import respond
from spraydry.web.keyvalue.batches import BATCH_BYTES, Batches
from spraydry.web.keyvalue.described import described
from spraydry.web.keyvalue.part import KeyValue, answer
from spraydry.web.keyvalue.shown import BODY_BYTES, is_digest
from spraydry.web.keyvalue.trees import Trees
from spraydry.web.keyvalue.values import Values
from spraydry.web.resource import Resource
from spraydry.web.served import Served

__all__ = ["described", "routes"]


def routes(served: Served) -> list[BaseRoute]:
    """The paths below `/v1/` of one repository."""
    part = KeyValue(served)
    values, batches, trees = Values(part), Batches(part), Trees(part)
    store = served.repository.store

    async def greeting(request: Request) -> Response:
        """What a client asks first."""
        return answer(
            wire.Greeting(
                spraydry=wire.VERSION,
                repository=served.repository.config.repository.hex(),
                read_only=served.read_only,
                concurrency=max(8, store.traits.concurrency),
                batch_bytes=BATCH_BYTES,
                body_bytes=BODY_BYTES,
                complete=not store.silent,
            )
        )

    async def chunk(request: Request) -> Response:
        """The plain bytes of a chunk."""
        name = request.path_params["digest"]
        if not is_digest(name):
            raise UsageError("a chunk is named by 64 hexadecimal digits")
        grant_of(request).require("read", namespace="frames")
        etag = f'"{name}"'
        chunk = served.repository.peek_chunk(bytes.fromhex(name))
        if chunk is None:
            chunk = await served.call(served.repository.read_chunk, bytes.fromhex(name))
        return respond(request, etag, chunk, True)

    async def stat(request: Request) -> Response:
        """How much the store holds."""
        found = await served.call(part.gate.fill, grant_of(request))
        return answer(wire.Fill(values=found.values, bytes=found.bytes, free_bytes=found.free_bytes))

    batch = {
        "get": batches.get,
        "has": batches.has,
        "chunks": batches.chunks,
        "put": batches.put,
        **{how: batches.changing(how) for how in ("delete", "soft-delete", "undelete", "purge")},
    }
    return [
        Resource("/v1/", GET=greeting),
        Resource("/v1/stat", GET=stat),
        Resource("/v1/roots", GET=trees.roots),
        Resource("/v1/trees/{address}", GET=trees.entries),
        Resource("/v1/trees/{address}/{path:path}", GET=trees.entries),
        Resource("/v1/values/{namespace}", GET=values.list),
        Resource("/v1/values/{namespace}/{name}", GET=values.get, PUT=values.put, DELETE=values.delete),
        Resource("/v1/chunks/{digest}", GET=chunk),
        *(Resource(f"/v1/batch/{how}", POST=handler) for how, handler in batch.items()),
    ]
