"""The ASGI application: every part's routes for every repository, with errors told as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from spraydry.errors import SprayDryError
from spraydry.web import files, keyvalue
from spraydry.web.failures import refused, told
from spraydry.web.grant import Grant
from spraydry.web.served import Served


def application(served: Sequence[Served]) -> ASGIApp:
    """What Hypercorn is to run: one repository at `/`, several each below its name."""
    routes: list[BaseRoute] = [Route("/healthz", health)]
    for one in served:
        routes += [_Below(one.prefix, routes=parts(one))] if one.prefix else parts(one)
    app = Starlette(routes=routes, exception_handlers={SprayDryError: told, HTTPException: refused})
    return _Granted(app)


def parts(served: Served) -> list[BaseRoute]:
    """All routes of one repository; the first that matches is taken, so files by path come last."""
    return [
        *keyvalue.routes(served),
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


class _Granted:
    """Puts the grant of each request where `grant_of` finds it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["spraydry.grant"] = Grant()
        await self._app(scope, receive, send)
