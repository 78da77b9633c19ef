"""What a directory holds, as JSON, however long it is."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import fields
from itertools import islice
from typing import Any
from urllib.parse import quote_from_bytes

from starlette.responses import Response
from starlette.types import Scope

from spraydry.actions.describe import Described, describe
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Subtree
from spraydry.repository.address import Found, children
from spraydry.repository.repository import Repository
from spraydry.web.files.answer import CHANGING, LASTING, Answer, Flowing
from spraydry.web.files.conditions import CONDITIONAL, status
from spraydry.web.served import Served

_AT_A_TIME = 500
_FIELDS = tuple(field.name for field in fields(Described) if field.name != "path")


async def respond_listing(scope: Scope, served: Served, found: Found, lasting: bool, digests: bool) -> Response:
    """The answer that lists a directory: an object with its `entries`, as `spraydry ls --json` tells them, each with
    the `url` to ask for, relative to the directory's own. Without `digests` there are none in it: who knows that of a
    file can tell what is in it, and who may add something can get it."""
    assert isinstance(found.entry.content, Subtree)
    tag = digest(b"%s %d %d" % (found.entry.content.digest, found.version.made_in, digests)).hex()
    etag = b'W/"%s"' % tag[:32].encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"etag", etag),
        (b"cache-control", LASTING if lasting else CHANGING),
        (b"vary", b"accept"),
        (b"x-content-type-options", b"nosniff"),
    ]
    asked = {key: value for key, value in scope["headers"] if key in CONDITIONAL}
    if (code := status(asked, etag, None, lasting)) != 200:
        return Answer(code, headers[1:])
    listed = _told(served.repository, found, digests)
    first = await served.call(_some, listed)
    if first.endswith(b"]}\n"):
        headers.append((b"content-length", b"%d" % len(first)))
        return Answer(200, headers, first)
    return Flowing(200, headers, _rest(served, first, listed))


async def _rest(served: Served, first: bytes, listed: Iterator[str]) -> AsyncGenerator[bytes]:
    yield first
    while more := await served.call(_some, listed):
        yield more


def _some(listed: Iterator[str]) -> bytes:
    return "".join(islice(listed, _AT_A_TIME)).encode()


def _told(repository: Repository, found: Found, digests: bool) -> Iterator[str]:
    version = found.version
    head = {"root": version.root, "version": version.name, "path": _text(found.path)}
    before = json.dumps(head)[:-1] + ', "entries": [\n '
    for child in children(repository, found):
        yield before + json.dumps(_entry(child, digests))
        before = ",\n "
    yield "\n]}\n" if before[0] == "," else before.rstrip() + "]}\n"


def _entry(found: Found, digests: bool) -> dict[str, Any]:
    name = found.path.rpartition(b"/")[2]
    one = describe(found, name)
    told: dict[str, Any] = {"name": _text(name), "url": _url(name) + "/" * (found.entry.kind == DIRECTORY)}
    for field in _FIELDS:
        value = getattr(one, field)
        told[field] = _text(value) if isinstance(value, bytes) else value
    if not digests:
        told["digest"] = None
    return told


def _text(name: bytes) -> str:
    """Bytes that are no UTF-8 become lone surrogates, as in all JSON of spraydry."""
    return os.fsdecode(name)


def _url(name: bytes) -> str:
    """A reference relative to the folder: what looks like a scheme is none."""
    return "./" + quote_from_bytes(name, safe="")
