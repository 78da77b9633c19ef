"""`/v1/batch/...`: many values at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from spraydry.errors import ChunkNotFound, CorruptData, SprayDryError, TooLarge, UploadRefused, UsageError
from spraydry.stores.remote import wire
from spraydry.web.bodies import message_of, parts_of
from spraydry.web.grant import grant_of
from spraydry.web.keyvalue.answers import NOT_KEPT
from spraydry.web.keyvalue.part import KeyValue, answer
from spraydry.web.keyvalue.shown import MOST_BYTES, check_name, is_digest

BATCH_BYTES = 16 << 20
_TOGETHER_BYTES = 4 << 20  # of values read before the first of them is sent
_FIRST = 4
_MOST_TOGETHER = 64


class Batches:
    """Handlers of requests for many values."""

    def __init__(self, part: KeyValue) -> None:
        self._part = part

    async def get(self, request: Request) -> Response:
        """A stream of values, in the order of their names."""
        asked = await self._names(request)
        grant, gate = grant_of(request), self._part.gate
        grant.require("read", namespace=asked.namespace)

        async def some(names: Sequence[str]) -> list[tuple[str, bytes | None]]:
            return await self._part.served.call(gate.get_many, grant, asked.namespace, names)

        return StreamingResponse(_stream(asked.names, some), headers=NOT_KEPT, media_type=wire.VALUES_TYPE)

    async def chunks(self, request: Request) -> Response:
        """A stream of chunks, verified, in the order of their digests."""
        asked = await message_of(request, wire.Chunks, self._part.room)
        if not all(map(is_digest, asked.names)):
            raise UsageError("chunks are named by 64 hexadecimal digits")
        grant_of(request).require("read", namespace="frames")
        repository = await self._part.served.fresh()

        def read(names: Sequence[str]) -> list[tuple[str, bytes | None]]:
            found: list[tuple[str, bytes | None]] = []
            for name in names:
                try:
                    found.append((name, bytes(repository.read_chunk(bytes.fromhex(name)))))
                except ChunkNotFound:
                    found.append((name, None))
            return found

        async def some(names: Sequence[str]) -> list[tuple[str, bytes | None]]:
            return await self._part.served.call(read, names)

        return StreamingResponse(_stream(asked.names, some), headers=NOT_KEPT, media_type=wire.VALUES_TYPE)

    async def has(self, request: Request) -> Response:
        """The sizes of values."""
        asked = await self._names(request)
        gate = self._part.gate
        sizes = await self._part.served.call(gate.sizes, grant_of(request), asked.namespace, asked.names)
        return answer(wire.Sizes(sizes=sizes))

    async def put(self, request: Request) -> Response:
        """Store a stream of values, all or (where one of them is refused) none."""
        namespace = request.query_params.get("namespace", "")
        grant = grant_of(request)
        self._part.gate.admit(grant, namespace)
        room = self._part.room
        with room.body() as held:
            values: dict[str, bytes] = {}
            stream = wire.Items(MOST_BYTES[namespace])
            try:
                async for part in parts_of(request, BATCH_BYTES, room, held):
                    for kind, name, value in stream.feed(part):
                        if kind != wire.Kind.VALUE or name in values:
                            raise UploadRefused("the body is to be a stream of values, each name once")
                        values[name] = value
                    if len(values) > wire.MOST_NAMES:
                        raise TooLarge(f"at most {wire.MOST_NAMES} values are stored at a time")
            except CorruptData as error:
                raise UploadRefused(str(error)) from None
            if not stream.ended:
                raise UploadRefused("the stream of values was cut off")
            await self._part.served.fresh()
            await self._part.verify(self._part.gate.put, grant, namespace, list(values.items()))
        return Response(status_code=204, headers=NOT_KEPT)

    def changing(self, how: str) -> Callable[[Request], Awaitable[Response]]:
        """The handler that deletes, or brings back, as `Gate.delete` does."""

        async def change(request: Request) -> Response:
            asked = await self._names(request)
            gate = self._part.gate
            back = await self._part.verify(gate.delete, grant_of(request), asked.namespace, asked.names, how)
            if how == "undelete":
                return answer(wire.Back(names=tuple(back)))
            return Response(status_code=204, headers=NOT_KEPT)

        return change

    async def _names(self, request: Request) -> wire.Names:
        asked = await message_of(request, wire.Names, self._part.room)
        for name in asked.names:  # what patterns of JSON Schema say ends before a line feed
            check_name(asked.namespace, name)
        return asked


async def _stream(
    names: Sequence[str], some: Callable[[Sequence[str]], Awaitable[list[tuple[str, bytes | None]]]]
) -> AsyncIterator[bytes]:
    """Values as they are read, a few MiB at a time: so many names at once as had that much before."""
    at, together = 0, _FIRST
    try:
        while at < len(names):
            found = await some(names[at : at + together])
            at += len(found)
            held = 0
            for name, value in found:
                if value is None:
                    yield wire.absent_item(name)
                else:
                    held += len(value)
                    yield wire.head_of(wire.Kind.VALUE, name, len(value))
                    yield value
            together = max(1, min(_MOST_TOGETHER, together * _TOGETHER_BYTES // max(held, 1)))
        yield wire.END_ITEM
    except SprayDryError as error:
        yield wire.failed_item(wire.Failure(error=str(error), kind=type(error).__name__))
