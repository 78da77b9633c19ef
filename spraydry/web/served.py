"""A repository as the server's handlers see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import trio

from spraydry.repository.repository import Repository

if TYPE_CHECKING:
    from spraydry.web.plain.handoff import Handoff

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 16
_FRESH_S = 1.0


@dataclass
class Served:
    """One repository and where it is found: `prefix` is what its paths begin with, empty where it is the only one.

    Lives in the server's one trio thread; whatever may block goes through `call`.
    """

    repository: Repository
    name: str = ""
    read_only: bool = False
    handoff: Handoff | None = None  # to whom large files are left to send
    limiter: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(_THREADS))
    ending: trio.Event = field(default_factory=trio.Event)  # set when the server was told to end
    _refreshed: float = -_FRESH_S

    @property
    def prefix(self) -> str:
        return f"/{self.name}" if self.name else ""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a blocking function returns, called in a thread; it ends there even where nobody waits any more."""
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self.limiter, abandon_on_cancel=False
        )

    async def fresh(self, within_s: float = _FRESH_S) -> Repository:
        """The repository with what others committed until at most a second ago, or so many as are told."""
        if monotonic() - self._refreshed >= within_s:
            self._refreshed = monotonic()
            await self.call(self.repository.refresh)
        return self.repository
