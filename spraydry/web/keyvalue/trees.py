"""`/v1/roots` and `/v1/trees/...`: versions and their directories as JSON, for other programs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spraydry.actions.describe import Described, describe
from spraydry.errors import UsageError
from spraydry.format.entry import DIRECTORY, Runs, Subtree
from spraydry.repository.address import Address, Found, resolve
from spraydry.repository.repository import Repository
from spraydry.web.grant import Grant, grant_of
from spraydry.web.keyvalue.answers import NOT_KEPT
from spraydry.web.keyvalue.part import KeyValue
from spraydry.web.keyvalue.shown import limit_of

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def any_name(route: Route) -> Route:
    """A route of paths in which a name may have any byte, line feeds too."""
    route.path_regex = re.compile(route.path_regex.pattern, re.DOTALL)
    return route


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
        root, at, version = address.decode("ascii", "replace").partition("@")
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
        return await self._answer(_page, repository, where, after, limit)

    async def _answer(self, make: Any, *arguments: Any) -> Response:
        def encoded() -> bytes:
            return msgspec.json.encode(make(*arguments))

        body = await self._part.served.call(encoded)
        return Response(body, headers=NOT_KEPT, media_type="application/json")


def _roots(repository: Repository, grant: Grant) -> dict[str, object]:
    return {
        "roots": [
            {
                "root": root,
                "versions": [
                    {
                        "version": version.name,
                        "slot": version.slot,
                        "made_in": version.made_in,
                        "made_ns": version.record.made_ns,
                        "made_by": _text(os.fsencode(version.record.made_by)),
                        "incomplete": version.record.incomplete,
                        "files": version.record.entry.totals.files,
                        "bytes": version.record.entry.totals.size,
                    }
                    for version in repository.log.versions(root)
                ],
            }
            for root in repository.log.roots()
            if grant.allows("list", root=root)
        ]
    }


def _page(repository: Repository, where: Address, after: bytes, limit: int) -> dict[str, object]:
    found = resolve(repository, where)
    told: dict[str, object] = {
        "version": str(found.version),
        "slot": found.version.slot,
        **_entry(found),
    }
    content = found.entry.content
    if found.entry.kind == DIRECTORY and isinstance(content, Subtree):
        entries = [
            Found(found.version, entry.name, entry, found.number + 1 + before)
            for entry, before in islice(repository.tree(content).entries(after), limit + 1)
        ]
        told["entries"] = list(map(_entry, entries[:limit]))
        told["more"] = len(entries) > limit
    return told


def _entry(found: Found) -> dict[str, object]:
    """One entry. `path` is exact, escaped as in a URL; `name` is for people: what is no UTF-8 in it is replaced."""
    one: Described = describe(found, found.path)
    content = found.entry.content
    told: dict[str, object] = {
        "path": quote_from_bytes(found.path),
        "name": _text(found.path.rpartition(b"/")[2]),
        "kind": one.kind,
        "mode": one.mode,
        "uid": one.uid,
        "gid": one.gid,
        "user": one.user,
        "group": one.group,
        "size": one.size,
        "mtime_s": one.mtime_s,
        "mtime_ns": one.mtime_ns,
        "digest": one.digest,
        "target": None if one.target is None else quote_from_bytes(one.target),
        "device": one.device,
        "hardlink": one.hardlink,
        "inode": found.number,
    }
    if isinstance(content, Runs):
        told["manifest"] = content.manifest.hex()
    elif isinstance(content, Subtree):
        told |= {"tree": content.digest.hex(), "inodes": content.inodes, "files": content.files}
    return told


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
