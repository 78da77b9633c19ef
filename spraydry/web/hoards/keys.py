"""One key of a hoard: its file read, put, deleted, under conditions, within a transaction or by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from spraydry.actions.hoard import Asked
from spraydry.actions.hoard.address import DIGESTS
from spraydry.errors import Conflict, KeyExists, KeyNotFound, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import Entry
from spraydry.repository.stream import spans
from spraydry.stores.remote import hoards as wire
from spraydry.web.failures import failure
from spraydry.web.files import respond_file
from spraydry.web.grant import Grant, grant_of
from spraydry.web.hoards.part import Part, answer, etag_of, file_of, hoard_of, key_of, require_put
from spraydry.web.hoards.transactions import Transactions

_TAG = re.compile(r'(?:W/)?("[^"]*")')


class _Unmet(Conflict):
    """A condition of the request does not hold."""


@dataclass(frozen=True)
class _Change:
    """What a request wants to do to a key, and under which conditions: `if_match` and `if_none_match` are the tags of
    these headers (None: not given; `*` stands for any)."""

    hoard: str
    key: str
    grant: Grant
    deletes: bool
    if_match: frozenset[str] | None
    if_none_match: frozenset[str] | None

    @classmethod
    def of(cls, request: Request, hoard: str, key: str) -> _Change:
        return cls(
            hoard,
            key,
            grant_of(request),
            request.method == "DELETE",
            _tags(request.headers.get("if-match")),
            _tags(request.headers.get("if-none-match")),
        )

    def check(self, current: Entry | None) -> None:
        """Raises Refused, KeyNotFound, KeyExists, _Unmet. Any thread may call it."""
        here = f"{self.hoard}/{self.key}"
        tag = None if current is None else etag_of(current)
        if self.if_match is not None and (tag is None or not self.if_match & {tag, "*"}):
            raise _Unmet(f"{here} is not what it was" if tag is not None else f"{here} is not there")
        if self.if_none_match is not None and tag is not None and self.if_none_match & {tag, "*"}:
            if "*" in self.if_none_match:
                raise KeyExists(f"{here} is there already")
            raise _Unmet(f"{here} is what it should not be")
        if not self.deletes:
            self.grant.require("add" if current is None else "overwrite", hoard=self.hoard)
        elif current is None:
            raise KeyNotFound(f"{here} is not there")

    def may_be(self) -> None:
        """Raises Refused where whoever asks may not do it, whatever is there."""
        if self.deletes:
            self.grant.require("delete", hoard=self.hoard)
        else:
            require_put(self.grant, self.hoard)


class OneKey:
    """Handlers of single keys."""

    def __init__(self, part: Part, transactions: Transactions) -> None:
        self._part = part
        self._transactions = transactions

    async def get(self, request: Request) -> Response:
        """GET and HEAD: the bytes, or a part of them."""
        hoard, key = hoard_of(request) if "hoard" in request.path_params else DIGESTS, key_of(request)
        entry = await self._entry(request, hoard, key)
        name = key.rpartition("/")[2].encode()
        download = "download" in request.query_params
        return await respond_file(request, self._part.served, entry, name, lasting=False, download=download)

    async def spans(self, request: Request) -> Response:
        """GET: of which chunks and holes it is made, from the one on that holds a byte."""
        hoard, key = hoard_of(request), key_of(request)
        said = request.query_params.get("start", "0")
        if not (said.isascii() and said.isdecimal() and len(said) < 20):
            raise UsageError("start is to be the number of a byte")
        entry = await self._entry(request, hoard, key)
        repository = self._part.served.repository
        found = await self._part.served.call(
            lambda: list(islice(spans(entry, repository.read_chunk, int(said)), wire.MOST_SPANS))
        )
        told = tuple((span.length, None if span.chunk is None else span.chunk.hex()) for span in found)
        offset = found[0].offset if found else entry.size
        return answer(wire.Spans(size=entry.size, tag=etag_of(entry), offset=offset, spans=told))

    async def _entry(self, request: Request, hoard: str, key: str) -> Entry:
        """What a key names, for who may read it."""
        grant_of(request).require("read", hoard=hoard)
        if (within := self._transactions.of(request, hoard)) is not None:
            return await within.find(key)
        return await self._part.find(request, hoard, key)

    async def put(self, request: Request) -> Response:
        """PUT: the body becomes the file, once all of it is there."""
        hoard, key = hoard_of(request), key_of(request)
        change = _Change.of(request, hoard, key)
        self._part.check_writable()
        change.may_be()
        try:
            if (within := self._transactions.of(request, hoard)) is not None:
                async with self._part.uploads.body(request) as upload:
                    current, entry = await within.put(key, upload, change.check)
            else:
                current, entry = await self._put(request, change)
        except _Unmet as error:
            return failure(412, str(error), "Conflict")
        return answer(file_of(key, entry), 201 if current is None else 200, {"ETag": etag_of(entry)})

    async def _put(self, request: Request, change: _Change) -> tuple[Entry | None, Entry]:
        """What the key named before, and names now."""
        before: list[Entry | None] = [None]

        def check(current: Entry | None) -> None:
            change.check(current)
            before[0] = current

        if change.if_match is not None or change.if_none_match is not None:
            try:  # before the body is taken
                change.check(await self._part.find(request, change.hoard, change.key))
            except KeyNotFound:
                change.check(None)
        async with self._part.uploads.body(request) as upload:
            if upload.plain is not None:
                asked = Asked(change.key, plain=upload.plain, check=check)
                await self._part.groups.change(change.hoard, asked)
            else:
                async with self._part.uploads.stored(upload, change.hoard, change.key) as (entry, began_at):
                    asked = Asked(change.key, entry=entry, began_at=began_at, check=check)
                    await self._part.groups.change(change.hoard, asked)
        assert asked.entry is not None
        return before[0], asked.entry

    async def put_unnamed(self, request: Request) -> Response:
        """PUT without a key: the body becomes the file under its own digest."""
        grant = grant_of(request)
        self._part.check_writable()
        require_put(grant, DIGESTS)
        async with self._part.uploads.body(request) as upload:
            if upload.plain is not None:
                asked = Asked(digest(upload.plain).hex(), plain=upload.plain)
                await self._part.groups.change(DIGESTS, asked)
            else:
                async with self._part.uploads.stored(upload, DIGESTS, "") as (entry, began_at):
                    if entry.file_digest is None:
                        raise UsageError("a file with so long holes is not hashed: put it under a key")
                    asked = Asked(entry.file_digest.hex(), entry=entry, began_at=began_at)
                    await self._part.groups.change(DIGESTS, asked)
        assert asked.entry is not None
        return answer(file_of(asked.key, asked.entry), 200, {"ETag": etag_of(asked.entry)})

    async def delete(self, request: Request) -> Response:
        """DELETE: the key names nothing any more."""
        hoard, key = hoard_of(request), key_of(request)
        change = _Change.of(request, hoard, key)
        self._part.check_writable()
        change.may_be()
        try:
            if (within := self._transactions.of(request, hoard)) is not None:
                await within.delete(key, change.check)
            else:
                await self._part.groups.change(hoard, Asked(key, check=change.check))
        except _Unmet as error:
            return failure(412, str(error), "Conflict")
        return Response(status_code=204)


def _tags(header: str | None) -> frozenset[str] | None:
    if header is None:
        return None
    return frozenset({"*"}) if header.strip() == "*" else frozenset(_TAG.findall(header))
