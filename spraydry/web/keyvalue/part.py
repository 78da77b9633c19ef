"""What the handlers of `/v1/` share: the gate to the store, room for bodies, and how many verify at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import msgspec
import trio
from starlette.responses import Response

from spraydry.parallel import default_threads
from spraydry.stores.remote import wire
from spraydry.web.bodies import Room
from spraydry.web.keyvalue.answers import NOT_KEPT
from spraydry.web.keyvalue.gate import Gate
from spraydry.web.served import Served

P = ParamSpec("P")
T = TypeVar("T")


class KeyValue:
    """One served repository, for the handlers of `/v1/`. Lives in the server's one trio thread."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.gate = Gate(served.repository, served.read_only)
        self.room = Room()
        # Decoding takes a CPU each; that many uploads wait at most for others, and reading never does.
        self._verifying = trio.CapacityLimiter(max(4, 2 * default_threads()))
        # Records are checked one after another: those that wait hold no thread.
        self._committing = trio.CapacityLimiter(1)
        self._tidying = False
        self._again = False

    async def verify(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `served.call`, for what decodes and stores."""
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._verifying, abandon_on_cancel=False
        )

    async def commit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `verify`, for what appends to the log."""
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._committing, abandon_on_cancel=False
        )

    async def committed(self) -> None:
        """Tidy up behind a commit: once at a time, and once more for those that came meanwhile."""
        self._again = True
        if self._tidying:
            return
        self._tidying = True
        try:
            while self._again:
                self._again = False
                await self.verify(self.gate.records.tidy)
        finally:
            self._tidying = False


def answer(message: msgspec.Struct, status: int = 200) -> Response:
    """A message of the wire."""
    return Response(wire.encode(message), status, NOT_KEPT, "application/json")
