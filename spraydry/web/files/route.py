"""The route of files by path: `/ROOT@VERSION/path`."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from spraydry.actions.describe import KINDS
from spraydry.errors import PathNotFound, SprayDryError, UsageError
from spraydry.format.entry import DIRECTORY, FILE
from spraydry.repository.address import Found
from spraydry.repository.versions import Version
from spraydry.web import pages
from spraydry.web.files.answer import Answer, Told, respond, told
from spraydry.web.files.archive import check_kind, respond_archive
from spraydry.web.files.listing import respond_listing
from spraydry.web.files.places import Remembered, find
from spraydry.web.grant import Grant
from spraydry.web.served import Served

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_REMEMBERED_BYTES = 32 << 20
_EACH_BYTES = 2500  # an entry with what is told of it, measured
_REMOVED_WITHIN_S = 30.0  # so long a version is still served that was removed elsewhere
_ALLOWED = ("GET", "HEAD")
_MAX_FIELDS = 20


def routes(served: Served) -> list[BaseRoute]:
    """The routes of files by path: one that takes whatever no route before it took."""
    return [_Files(served)]


class _Files(BaseRoute):
    """Takes paths as they came over the wire: those that Starlette gives have lost what is not UTF-8."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._depth = served.prefix.count("/") + 1
        self._known: Remembered[Told] = Remembered(_REMEMBERED_BYTES, _EACH_BYTES)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {"endpoint": self}) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _ALLOWED:
            raise HTTPException(405, headers={"Allow": ", ".join(_ALLOWED)})
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, scope)
        except SprayDryError as error:
            if not pages.wanted(request):
                raise
            answer = pages.trouble(pages.asked(request, self._served), error)
        await answer(scope, receive, send)

    async def _answer(self, request: Request, scope: Scope) -> Response:
        _, *before = scope["raw_path"].split(b"/", self._depth + 1)
        if b"/".join(before[: self._depth - 1]) != self._served.name.encode():
            raise HTTPException(404)
        root, name = _root_and_version(before[self._depth - 1])
        path = before[self._depth] if len(before) > self._depth else None
        grant: Grant = scope["spraydry.grant"]
        if not grant.allows("list", root=root):
            grant.require("read", root=root)
        if name is None:
            version = (await self._served.fresh()).log.find(root)
            folder = "/" if path is None and version.record.entry.kind == DIRECTORY else ""
            return _redirect(scope, b"" if path is None else path, f"{root}@latest{folder}", path)
        lasting = name != "latest"
        version = await self._version(root, name)
        if lasting and not scope["query_string"] and path:
            known = self._known.get(version.made_in, path)
            if known is not None:
                grant.require("read", root=root)
                return await respond(scope, self._served, known)
        found = await self._served.call(find, self._served.repository, version, _parts(path))
        return await self._give(request, scope, grant, found, path, lasting)

    async def _version(self, root: str, name: str) -> Version:
        if name != "latest":
            with suppress(SprayDryError):  # what is known can be given even where a store does not answer
                await self._served.fresh(_REMOVED_WITHIN_S)
            log = self._served.repository.log
            version = log.used(root, name)
            if version is not None and not log.is_removed(version):
                return version
        return (await self._served.fresh()).log.find(root, name)

    async def _give(
        self, request: Request, scope: Scope, grant: Grant, found: Found, path: bytes | None, lasting: bool
    ) -> Response:
        root, query = found.version.root, _query(scope)
        if "archive" in query:
            check_kind(query["archive"])
        slash = path is not None and (not path or path.endswith(b"/"))
        if found.entry.kind == DIRECTORY:
            if not slash:
                last = scope["raw_path"].rpartition(b"/")[2].decode()
                return _redirect(scope, b"", f"{last}/")
            if "archive" in query:
                grant.require("read", root=root)
                grant.require("list", root=root)  # it tells all names
                return respond_archive(scope, self._served, found, query["archive"], lasting)
            grant.require("list", root=root)
            if pages.wanted(request):
                return await pages.browse(request, self._served, found)
            return await respond_listing(scope, self._served, found, lasting, grant.allows("read", root=root))
        if slash and pages.wanted(request):
            return await pages.browse(request, self._served, found)
        grant.require("read", root=root)
        if slash:
            raise PathNotFound("that is not a directory: leave out the slash at its end")
        if found.entry.kind != FILE:
            raise HTTPException(403, f"that is a {KINDS[found.entry.kind]}: there are no bytes in it")
        file = told(found.entry, found.path.rpartition(b"/")[2] or root.encode(), lasting)
        if lasting and not query:
            self._known.keep(found.version.made_in, path or b"", file)
        return await respond(scope, self._served, file, "download" in query)


def _root_and_version(segment: bytes) -> tuple[str, str | None]:
    """The first part of a path. Raises NotFound for what names no root."""
    root, at, version = unquote_to_bytes(segment).decode("ascii", "replace").partition("@")
    if not _NAME.fullmatch(root) or (at and not _NAME.fullmatch(version)):
        raise HTTPException(404)
    return root, version if at else None


def _parts(path: bytes | None) -> list[bytes]:
    """The names a path consists of. Raises PathNotFound for what no version can hold."""
    if not path:
        return []
    parts = [unquote_to_bytes(part) for part in path.removesuffix(b"/").split(b"/")]
    if any(part in (b"", b".", b"..") or b"/" in part or b"\0" in part for part in parts):
        raise PathNotFound("no version holds a path like that")
    return parts


def _query(scope: Scope) -> dict[str, str]:
    """Raises UsageError for what is no query."""
    try:
        return dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise UsageError("what follows the ? cannot be read") from None


def _redirect(scope: Scope, below: bytes, to: str, path: bytes | None = None) -> Response:
    """To another name in the same folder, or one as many folders up as `below` has slashes, and from there to `path`.
    Relative, for only a proxy in front knows what comes before."""
    up = "../" * (below.count(b"/") + 1) if path is not None else "./"
    where = (up + to).encode() + (b"" if path is None else b"/" + path)
    if scope["query_string"]:
        where += b"?" + scope["query_string"]
    return Answer(307, [(b"location", where), (b"cache-control", b"no-cache"), (b"content-length", b"0")])
