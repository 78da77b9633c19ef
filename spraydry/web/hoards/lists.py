"""What hoards there are, their keys, what happened to one, and many small files in one request."""

from __future__ import annotations

import time
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from spraydry.actions.hoard import Asked, change_together, key_history, revive
from spraydry.errors import Conflict, CorruptData, UploadRefused, UsageError
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.repository.keys import Kept
from spraydry.stores.remote import hoards as wire
from spraydry.web.bodies import body_of, message_of
from spraydry.web.grant import grant_of
from spraydry.web.hoards.part import Part, answer, file_of, hoard_of, key_of, number_of, require_put
from spraydry.web.hoards.transactions import Transactions

DEFAULT_EXPIRES_S = 7 * 86400
_MOST_EVENTS = 100_000


class Lists:
    """Handlers of what is about more than one key."""

    def __init__(self, part: Part, transactions: Transactions) -> None:
        self._part = part
        self._transactions = transactions

    async def hoards(self, request: Request) -> Response:
        """The hoards that whoever asks may list."""
        grant = grant_of(request)
        repository = await self._part.served.fresh()
        names = repository.log.hoards.names()
        return answer(wire.Hoards(hoards=tuple(name for name in names if grant.allows("list", hoard=name))))

    async def count(self, request: Request) -> Response:
        """How many keys a hoard has."""
        hoard = hoard_of(request)
        grant_of(request).require("list", hoard=hoard)
        keys = await self._part.keys(request, hoard)
        self._part.served.repository.log.hoards.existing(hoard)
        return answer(wire.Counted(hoard=hoard, keys=await self._part.served.call(keys.count)))

    async def keys(self, request: Request) -> Response:
        """A page of keys."""
        hoard = hoard_of(request)
        grant_of(request).require("list", hoard=hoard)
        most = number_of(request, "limit", wire.MOST_KEYS)
        prefix, after = (_text(request, name) for name in ("prefix", "after"))
        if (within := self._transactions.of(request, hoard)) is not None:
            found = await within.list(prefix, after, most + 1)
        else:
            keys = await self._part.keys(request, hoard)
            found = await self._part.served.call(lambda: list(islice(keys.list(prefix, after), most + 1)))
        return answer(_page(found, most, grant_of(request).allows("read", hoard=hoard)))

    async def has(self, request: Request) -> Response:
        """What several keys name."""
        hoard = hoard_of(request)
        grant = grant_of(request)
        if not grant.allows("list", hoard=hoard):
            grant.require("read", hoard=hoard)
        asked = (await message_of(request, wire.Keys, self._part.uploads.room)).keys
        keys = await self._part.keys(request, hoard)

        def find() -> list[Entry | None]:
            return [keys.find(key) if _possible(key) else None for key in asked]

        entries = await self._part.served.call(find)
        digests = grant.allows("read", hoard=hoard)
        found = (
            None if entry is None else file_of(key, entry, digests) for key, entry in zip(asked, entries, strict=True)
        )
        return answer(wire.Found(found=tuple(found)))

    async def history(self, request: Request) -> Response:
        """What happened to one key."""
        hoard, key = hoard_of(request), key_of(request)
        grant_of(request).require("read", hoard=hoard)
        repository = self._part.served.repository
        await self._part.read_log()

        def events() -> tuple[wire.Happened, ...]:
            found = islice(key_history(repository, hoard, key), _MOST_EVENTS)
            return tuple(
                wire.Happened(
                    slot=event.slot,
                    made_ns=event.made_ns,
                    made_by=event.made_by,
                    size=None if event.entry is None else event.entry.size,
                    digest=_digest(event.entry),
                )
                for event in found
            )

        return answer(wire.History(events=await self._part.served.call(events)))

    async def undelete(self, request: Request) -> Response:
        """A key names again what it did before."""
        hoard, key = hoard_of(request), key_of(request)
        grant = grant_of(request)
        grant.require("read", hoard=hoard)
        asked = await message_of(request, wire.Undelete, self._part.uploads.room)
        if not asked.dry_run:
            self._part.check_writable()
            require_put(grant, hoard)

        def allowed(current: Entry | None) -> None:
            if _digest(current) != asked.now:
                raise Conflict(f"{hoard}/{key} was changed meanwhile: try again")
            if not asked.dry_run:
                grant.require("add" if current is None else "overwrite", hoard=hoard)

        repository = self._part.served.repository
        kept = await self._part.served.call(revive, repository, hoard, key, dry_run=asked.dry_run, allowed=allowed)
        return answer(file_of(key, kept.entry))

    async def url(self, request: Request) -> Response:
        """An address of a key's file that needs no token, for as long as it is good."""
        hoard, key = hoard_of(request), key_of(request)
        grant = grant_of(request)
        grant.require("read", hoard=hoard)
        wanted = (await message_of(request, wire.Wanted, self._part.uploads.room)).expires_s
        seconds = DEFAULT_EXPIRES_S if wanted is None else wanted
        await self._part.find(request, hoard, key)
        address = self._part.served.prefix + wire.public_path(hoard, key)
        expires = int(time.time() + seconds)
        signed = request.scope["spraydry.door"].sign(address, expires, grant.name)
        return answer(wire.Link(path=signed, expires=None if signed == address else expires))

    async def batch(self, request: Request) -> Response:
        """Many small files, each for its key to name, committed together."""
        hoard = hoard_of(request)
        grant = grant_of(request)
        self._part.check_writable()
        require_put(grant, hoard)
        room = self._part.uploads.room
        with room.body() as held:
            try:
                files = wire.decode_files(await body_of(request, wire.BATCH_BYTES, room, held))
                for key, _ in files:
                    name_of(key)
            except (CorruptData, UsageError) as error:
                raise UploadRefused(str(error)) from None
            if len(files) > wire.BATCH_KEYS:
                raise UploadRefused(f"one request brings at most {wire.BATCH_KEYS:,} files")

            def check(current: Entry | None) -> None:
                grant.require("add" if current is None else "overwrite", hoard=hoard)

            asked = [Asked(key, plain=plain, check=check) for key, plain in files]
            await self._part.served.call(change_together, self._part.small, hoard, asked)
        for one in asked:
            if one.error is not None:
                raise one.error
        return answer(wire.Put(keys=len(asked)))


def _page(found: list[Kept], most: int, digests: bool) -> wire.Files:
    files = tuple(file_of(kept.key, kept.entry, digests) for kept in found[:most])
    return wire.Files(files=files, more=len(found) > most)


def _digest(entry: Entry | None) -> str | None:
    name = None if entry is None else entry.file_digest
    return None if name is None else name.hex()


def _possible(key: str) -> bool:
    try:
        name_of(key)
    except UsageError:
        return False
    return True


def _text(request: Request, name: str) -> str:
    text: str = request.query_params.get(name, "")
    if len(text) > 255:
        raise UsageError(f"{name} is longer than any key")
    return text
