"""Transactions over HTTP: each lives as long as the answer to the request that began it."""

from __future__ import annotations

import io
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from typing import BinaryIO, cast

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spraydry.actions.hoard import Transaction
from spraydry.errors import NotFound, StoreUnavailable, UsageError
from spraydry.format.entry import Entry
from spraydry.repository.keys import Kept
from spraydry.stores.remote import hoards as wire
from spraydry.web.files.sending import while_connected
from spraydry.web.grant import grant_of
from spraydry.web.hoards.part import Part, answer, hoard_of
from spraydry.web.hoards.uploads import Upload

Check = Callable[[Entry | None], None]

MOST_OPEN = 64
_MOST_EACH = 32  # of one token: what it leaves open keeps nobody else out
MOST_CHANGES = 10_000
EXPIRES_S = 3600.0
_HEARTBEAT_S = 5.0
_HEADERS = {"Cache-Control": "no-store", "Connection": "close"}


class Within:
    """One open transaction. Its calls wait for each other."""

    def __init__(self, part: Part, hoard: str, transaction: Transaction, token: str) -> None:
        self.token = token  # the name of whose it is
        self.name = secrets.token_hex(16)
        self.hoard = hoard
        self.ended = trio.Event()
        self.end = wire.Ended(state="aborted")
        self.given_up = False  # nobody holds it open any more
        self._part = part
        self._transaction = transaction
        self._turn = trio.Lock()
        self._changes = 0

    async def find(self, key: str) -> Entry:
        """What a key names in it, readable by others of its calls. Raises KeyNotFound, UsageError."""

        def find() -> Entry:
            with self._transaction.get(key):  # makes it durable
                found = self._transaction.find(key)
            assert found is not None
            return found.entry

        async with self._turn:
            return await self._part.served.call(find)

    async def list(self, prefix: str, after: str, most: int) -> list[Kept]:
        """At most so many keys, with its own changes."""
        async with self._turn:
            return await self._part.served.call(lambda: list(islice(self._transaction.list(prefix, after), most)))

    async def put(self, key: str, upload: Upload, check: Check) -> tuple[Entry | None, Entry]:
        """What the key named before, and names now, in it. Raises what `check` does, UsageError, StoreError."""

        def put(source: BinaryIO) -> tuple[Entry | None, Entry]:
            before = self._before(key, check)
            return before, self._transaction.put(source, key).entry

        async with self._turn:
            self._count()
            if upload.plain is not None:
                return await self._part.served.call(put, io.BytesIO(upload.plain))
            return await self._part.uploads.call(partial(put, cast("BinaryIO", _Cut(upload.stream(), self))))

    async def delete(self, key: str, check: Check) -> None:
        """Let a key name nothing, in it. Raises what `check` does, KeyNotFound, UsageError."""

        def delete() -> None:
            self._before(key, check)
            self._transaction.delete(key)

        async with self._turn:
            self._count()
            await self._part.served.call(delete)

    def _before(self, key: str, check: Check) -> Entry | None:
        found = self._transaction.find(key)
        current = None if found is None else found.entry
        check(current)
        return current

    def _count(self) -> None:
        if self._changes >= MOST_CHANGES:
            raise UsageError(f"a transaction over HTTP has at most {MOST_CHANGES:,} changes: commit it, begin another")
        self._changes += 1

    async def prepare(self) -> wire.Ended:
        """Raises Conflict, StoreError."""
        async with self._turn:
            await self._part.served.call(self._transaction.prepare)
        return wire.Ended(state="prepared")

    async def commit(self) -> wire.Ended:
        """Raises Conflict, KeyExists, StoreError: then it is aborted."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                try:
                    slot = await self._part.served.call(self._transaction.commit)
                    self.end = wire.Ended(state="committed", slot=slot)
                finally:
                    self.ended.set()
        return self.end

    async def abort(self) -> wire.Ended:
        """Give it up, and what is being put into it; does nothing when it has ended."""
        self.given_up = True
        with trio.CancelScope(shield=True):
            async with self._turn:
                await self._part.served.call(self._transaction.abort)
        self.ended.set()
        return self.end


class _Cut:
    """What is read for a transaction, until that is given up."""

    def __init__(self, source: BinaryIO, within: Within) -> None:
        self._source = source
        self._within = within

    def read(self, size: int) -> bytes:
        if self._within.given_up:
            raise UsageError("the transaction was aborted")
        return self._source.read(size)


class Transactions:
    """The open transactions of one repository."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._open: dict[str, Within] = {}

    def of(self, request: Request, hoard: str) -> Within | None:
        """The transaction that a request belongs to; None for one by itself. Raises NotFound."""
        name = request.headers.get(wire.TRANSACTION)
        return None if name is None else self._find(name, hoard)

    def _find(self, name: str, hoard: str) -> Within:
        found = self._open.get(name)
        if found is None or found.hoard != hoard:
            raise NotFound("there is no such transaction here: it has ended, or another server began it")
        return found

    async def begin(self, request: Request) -> Response:
        """POST: an answer that stays open as long as the transaction."""
        hoard = hoard_of(request)
        self._part.check_writable()
        _may_change(request, hoard)
        if len(self._open) >= MOST_OPEN:
            raise StoreUnavailable(f"{MOST_OPEN} transactions are open on this server: try again")
        token = grant_of(request).name
        if token and sum(one.token == token for one in self._open.values()) >= _MOST_EACH:
            raise StoreUnavailable(f"{_MOST_EACH} transactions of this token are open on this server: end some of them")
        served = self._part.served
        transaction = await served.call(Transaction, served.repository, hoard)
        within = Within(self._part, hoard, transaction, token)
        self._open[within.name] = within
        return _Open(self, within, served.ending)

    def forget(self, within: Within) -> None:
        """It has ended."""
        self._open.pop(within.name, None)

    async def prepare(self, request: Request) -> Response:
        """POST .../prepare."""
        return answer(await self._named(request).prepare())

    async def commit(self, request: Request) -> Response:
        """POST .../commit."""
        return answer(await self._named(request).commit())

    async def abort(self, request: Request) -> Response:
        """POST .../abort."""
        return answer(await self._named(request).abort())

    def _named(self, request: Request) -> Within:
        hoard = hoard_of(request)
        _may_change(request, hoard)
        return self._find(request.path_params["transaction"], hoard)


def _may_change(request: Request, hoard: str) -> None:
    """Raises Refused for those who may change nothing there."""
    grant = grant_of(request)
    if not (grant.allows("add", hoard=hoard) or grant.allows("overwrite", hoard=hoard)):
        grant.require("delete", hoard=hoard)


class _Open(Response):
    """Lines: what was begun, then empty ones every few seconds, then what became of it. Whatever ends it, the client,
    the server or time, aborts the transaction if it was not committed."""

    def __init__(self, transactions: Transactions, within: Within, ending: trio.Event) -> None:
        super().__init__(status_code=200, media_type="application/x-ndjson", headers=_HEADERS)
        del self.headers["content-length"]
        self._transactions = transactions
        self._within = within
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        within = self._within

        async def line(text: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text + b"\n", "more_body": more})

        try:
            async with while_connected(receive):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await line(msgspec.json.encode(wire.Begun(transaction=within.name, expires_s=EXPIRES_S)))
                with trio.move_on_after(EXPIRES_S):
                    await self._beat(line)
                if not within.ended.is_set():
                    await within.abort()
            # Behind the block: the end of the answer looks like the end of the connection.
            if within.ended.is_set():
                await line(msgspec.json.encode(within.end), more=False)
        finally:
            self._transactions.forget(within)
            await within.abort()

    async def _beat(self, line: Callable[[bytes], Awaitable[None]]) -> None:
        """Until the transaction or the server ends."""
        within = self._within
        async with trio.open_nursery() as nursery:

            async def end_with_server() -> None:
                await self._ending.wait()
                nursery.cancel_scope.cancel()

            async def end_with_transaction() -> None:
                await within.ended.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_with_server)
            nursery.start_soon(end_with_transaction)
            while True:
                await trio.sleep(_HEARTBEAT_S)
                await line(b"")
