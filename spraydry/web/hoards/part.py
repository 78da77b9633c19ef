"""What the handlers of hoards share: what a request is about, what is there now, and how answers look."""

from __future__ import annotations

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from spraydry.actions.hoard import SmallFiles
from spraydry.errors import KeyNotFound, StoreReadOnly, UsageError
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.keys import Kept, Keys
from spraydry.stores.remote import hoards as wire
from spraydry.web.files import validator
from spraydry.web.grant import Grant
from spraydry.web.hoards.group import Groups
from spraydry.web.hoards.uploads import Uploads
from spraydry.web.served import Served


class Part:
    """The hoards of one served repository. Lives in the server's one trio thread."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.small = SmallFiles(served.repository)
        self.groups = Groups(served, self.small)
        self.uploads = Uploads(served)
        self._reading = trio.Lock()
        self._begun = 0

    def check_writable(self) -> None:
        """Raises StoreReadOnly where nothing can be changed."""
        if self.served.read_only:
            raise StoreReadOnly("this server takes no changes: it only serves what is there")

    async def read_log(self) -> None:
        """Take in all that was committed before this was called; of those who ask at the same time one does it."""
        wanted = self._begun + 1
        async with self._reading:
            if self._begun < wanted:
                self._begun += 1
                await self.served.call(self.served.repository.log.read)

    async def find(self, request: Request, hoard: str, key: str) -> Entry:
        """What a key names now, or did a second ago, if the client does not want it newer. Raises KeyNotFound,
        UsageError."""
        name = name_of(key)
        newest = wants_newest(request)
        if newest:
            await self.read_log()
        else:
            await self.served.fresh()
        entry = await self._find(hoard, name)
        if entry is None and not newest:
            await self.read_log()
            entry = await self._find(hoard, name)
        if entry is None:
            raise KeyNotFound(f"{hoard}/{key} is not there")
        return entry

    async def _find(self, hoard: str, name: bytes) -> Entry | None:
        view = self.served.repository.log.hoards.view(hoard)
        if view.base is None or name in view.changes:
            change = view.changes.get(name)
            return change.entry if change is not None else None
        return await self.served.call(Keys(view, self.served.repository.tree).below, name)

    async def keys(self, request: Request, hoard: str) -> Keys:
        """What a hoard holds: as `find`."""
        if wants_newest(request):
            await self.read_log()
        else:
            await self.served.fresh()
        return Keys(self.served.repository.log.hoards.view(hoard), self.served.repository.tree)


def hoard_of(request: Request) -> str:
    """The hoard that a path names. Raises UsageError for what can be none."""
    name: str = request.path_params["hoard"]
    check_new_name(name, "hoard")
    return name


def key_of(request: Request) -> str:
    """The key that a path names. Raises UsageError for what can be none."""
    key: str = request.path_params["key"]
    name_of(key)
    return key


def require_put(grant: Grant, hoard: str) -> None:
    """Raises Refused unless keys may be added or overwritten, OverQuota. From here on what the request brings counts:
    threads may ask the same grant after this."""
    grant.require("add" if grant.allows("add", hoard=hoard) else "overwrite", hoard=hoard)


def wants_newest(request: Request) -> bool:
    """Whether the client takes nothing from before its request."""
    return "no-cache" in request.headers.get("cache-control", "")


def number_of(request: Request, name: str, most: int) -> int:
    """A number in the query, by default and at most `most`. Raises UsageError."""
    text = request.query_params.get(name, str(most))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise UsageError(f"{name} is to be a number from 1 to {most}")
    return min(int(text), most)


def etag_of(entry: Entry) -> str:
    """The tag by which clients know what a key names: that of the file's bytes."""
    return f'"{validator(entry)}"'


def file_of(key: str, entry: Entry, digests: bool = True) -> wire.File:
    """What is told of a key's file; without its digest to those who may not read it."""
    kept = Kept(key, entry)
    name = kept.digest if digests else None
    return wire.File(key=key, size=kept.size, digest=None if name is None else name.hex(), put_ns=kept.put_ns)


def answer(message: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A message as JSON."""
    told = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return Response(msgspec.json.encode(message), status, told, "application/json")
