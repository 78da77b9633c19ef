"""A path and what each method does there: any other method is refused, whatever other routes would make of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Resource(Route):
    """A route that takes all methods of its path; HEAD is GET where it is not given. Names in the path may have any
    character, line feeds too."""

    def __init__(self, path: str, **handlers: Handler) -> None:
        super().__init__(path, _Methods(handlers))
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class _Methods:
    """An ASGI application, for Starlette gives those all methods."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers
        if "GET" in handlers:
            self._handlers.setdefault("HEAD", handlers["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["method"])
        if handler is None:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(self._handlers))})
        answer = await handler(Request(scope, receive, send))
        await answer(scope, receive, send)
