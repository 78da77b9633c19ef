"""The ASGI application: every part's routes for every repository, with errors told as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from spraydry.errors import SprayDryError
from spraydry.web import files, hoards, keyvalue, openapi, pages
from spraydry.web.failures import failed, refused, told
from spraydry.web.served import Served

# What each part says of its own paths in /v1/openapi.json.
DESCRIBED = (keyvalue.described(), hoards.described(), files.described())


def application(served: Sequence[Served], others: Sequence[BaseRoute] = ()) -> ASGIApp:
    """What `Guard` stands in front of: one repository at `/`, several each below its name; before
    them `others`, which belong to the server.
    """
    routes: list[BaseRoute] = [Route("/healthz", health), *others]
    if any(one.prefix for one in served):
        routes.append(pages.index(served))
    for one in served:
        routes += [_Below(one.prefix, routes=parts(one))] if one.prefix else parts(one)
    return Starlette(routes=routes, exception_handlers={SprayDryError: told, HTTPException: refused, Exception: failed})


def parts(served: Served) -> list[BaseRoute]:
    """All routes of one repository; the first that matches is taken, so files by path come last."""
    return [
        *openapi.routes(served.prefix, DESCRIBED),
        *keyvalue.routes(served),
        *hoards.routes(served),
        *pages.routes(served),
        *files.routes(served),
    ]


async def health(_: Request) -> JSONResponse:
    """Whether the process answers; says nothing about what it serves."""
    return JSONResponse({"status": "ok"})


class _Below(Mount):
    """All paths below one: also those with a line feed in them, which Starlette's own passes over."""

    def __init__(self, path: str, routes: Sequence[BaseRoute]) -> None:
        super().__init__(path, routes=routes)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)
