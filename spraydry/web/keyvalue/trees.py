"""`/v1/roots` and `/v1/trees/...`: versions and their directories as JSON, for other programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import ParamSpec
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from spraydry.actions.describe import describe
from spraydry.errors import UsageError
from spraydry.format.entry import DIRECTORY, Runs, Subtree
from spraydry.repository.address import Address, Found, resolve
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.stores.remote import wire
from spraydry.web.grant import Grant, grant_of
from spraydry.web.keyvalue.answers import NOT_KEPT
from spraydry.web.keyvalue.part import KeyValue
from spraydry.web.keyvalue.shown import limit_of

P = ParamSpec("P")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A version under one of its names: `slot` is where the name was made, `made_in` the version."""

    version: str
    slot: int
    made_in: int
    made_ns: int
    made_by: str
    incomplete: bool
    files: int
    bytes: int


class RootTold(msgspec.Struct, frozen=True, kw_only=True):
    """A root and its versions, oldest first."""

    root: str
    versions: list[Made]


class Roots(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/roots` answers: roots by name."""

    roots: list[RootTold]


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry. `path` and `target` are exact, escaped as in a URL; `name` is for people: what is no UTF-8 in it is
    replaced. `mode` is octal text, digests are hex; `inode` is the number of entries before it in the version. Of a
    file of several chunks `manifest` names the first page, of a directory `tree` does, and `inodes` and `files` count
    what is below. Digests are told to those who may read."""

    path: str
    name: str
    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    mtime_s: int
    mtime_ns: int
    inode: int
    user: str | None = None
    group: str | None = None
    digest: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    hardlink: str | None = None
    manifest: str | None = None
    tree: str | None = None
    inodes: int | None = None
    files: int | None = None


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """What `/v1/trees/...` answers: an entry, and those in it, by their names' bytes; `more`: ask again behind the last
    of them."""

    version: str
    slot: int
    entry: Told
    entries: list[Told] = []
    more: bool = False


class Trees:
    """Handlers that tell of versions and what is in them."""

    def __init__(self, part: KeyValue) -> None:
        self._part = part

    async def roots(self, request: Request) -> Response:
        """All roots with their versions, oldest first, as far as they may be listed."""
        grant = grant_of(request)
        repository = await self._part.served.fresh()
        return await self._answer(_roots, repository, grant)

    async def entries(self, request: Request) -> Response:
        """One entry of a version, and a page of what is in it."""
        address, slash, path = _raw(request, "/v1/trees/").partition(b"/")
        root, at, version = unquote_to_bytes(address).decode("ascii", "replace").partition("@")
        if not _NAME.fullmatch(root) or (at and not _NAME.fullmatch(version)):
            raise UsageError("write /v1/trees/ROOT@VERSION/PATH")
        grant = grant_of(request)
        grant.require("list", root=root)
        parts = [unquote_to_bytes(part) for part in path.split(b"/") if part] if slash else []
        if any(part in (b".", b"..") or b"/" in part or b"\0" in part for part in parts):
            raise UsageError("no version holds a path like that")
        after = unquote_to_bytes(_asked(request).get("after", ""))
        limit = limit_of(request)
        repository = await self._part.served.fresh()
        where = Address(root, version if at else None, b"/".join(parts))
        return await self._answer(_page, repository, where, after, limit, grant.allows("read", root=root))

    async def _answer(self, make: Callable[P, msgspec.Struct], *arguments: P.args, **named: P.kwargs) -> Response:
        def encoded() -> bytes:
            return wire.encode(make(*arguments, **named))

        body = await self._part.served.call(encoded)
        return Response(body, headers=NOT_KEPT, media_type="application/json")


def _roots(repository: Repository, grant: Grant) -> Roots:
    log = repository.log
    listed = [root for root in log.roots() if grant.allows("list", root=root)]
    return Roots(roots=[RootTold(root=root, versions=list(map(_made, log.versions(root)))) for root in listed])


def _made(version: Version) -> Made:
    record = version.record
    return Made(
        version=version.name,
        slot=version.slot,
        made_in=version.made_in,
        made_ns=record.made_ns,
        made_by=record.made_by,
        incomplete=record.incomplete,
        files=record.entry.totals.files,
        bytes=record.entry.totals.size,
    )


def _page(repository: Repository, where: Address, after: bytes, limit: int, digests: bool) -> Directory:
    found = resolve(repository, where)
    content, entries = found.entry.content, list[Told]()
    if found.entry.kind == DIRECTORY and isinstance(content, Subtree):
        front = found.path + b"/" if found.path else b""
        entries = [
            _told(Found(found.version, front + entry.name, entry, found.number + 1 + before), digests)
            for entry, before in islice(repository.tree(content).entries(after), limit + 1)
        ]
    version = str(found.version)
    return Directory(
        version=version,
        slot=found.version.slot,
        entry=_told(found, digests),
        entries=entries[:limit],
        more=len(entries) > limit,
    )


def _told(found: Found, digests: bool) -> Told:
    one, content = describe(found, found.path), found.entry.content
    below = content if isinstance(content, Subtree) else None
    return Told(
        path=quote_from_bytes(found.path),
        name=_text(found.path.rpartition(b"/")[2]),
        kind=one.kind,
        mode=one.mode,
        uid=one.uid,
        gid=one.gid,
        user=one.user,
        group=one.group,
        size=one.size,
        mtime_s=one.mtime_s,
        mtime_ns=one.mtime_ns,
        inode=found.number,
        digest=one.digest if digests else None,
        target=None if one.target is None else quote_from_bytes(one.target),
        device=one.device,
        hardlink=one.hardlink,
        manifest=content.manifest.hex() if digests and isinstance(content, Runs) else None,
        tree=below.digest.hex() if digests and below else None,
        inodes=below.inodes if below else None,
        files=below.files if below else None,
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _asked(request: Request) -> dict[str, str]:
    """The query, in which what is no UTF-8 stays escaped bytes."""
    pairs: Sequence[str] = request.scope["query_string"].decode("latin-1").split("&")
    return {key: value.replace("+", "%20") for key, _, value in (pair.partition("=") for pair in pairs)}


def _raw(request: Request, front: str) -> bytes:
    """What follows `front` in the path as it was sent."""
    raw: bytes = request.scope["raw_path"]
    return raw.partition(front.encode())[2]
