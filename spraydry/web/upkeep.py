"""What a server does while nobody asks it: brings stores what they missed, and everything to its number of copies."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec
import trio

from spraydry.actions.heal import heal
from spraydry.actions.progress import Done
from spraydry.errors import SprayDryError
from spraydry.repository.leases import heeded, hold
from spraydry.repository.members import reopen
from spraydry.repository.repository import Repository
from spraydry.web.served import Served

_TICK_S = 2.0
_PATIENCE_S = 60.0  # then what waits is delivered however busy it is
_AGAIN_S = 600.0  # after a heal that could not do everything, or found another server at it
_HEALING = "healing by a server"
_HEALED = "healed"

log = logging.getLogger(__name__)


class Stopped(SprayDryError):
    """The server ends, and a heal with it: the next one goes on from what is there."""


class Upkeep:
    """Looks after those of the repositories that lie on several stores.

    What stores missed is kept on the machine where it was written, so each server delivers its own. To heal is for one
    server at a time: it holds a lease that says so, and one that finds another's lets go of its own. Nothing here
    stops a server: what fails is in the log, and is tried again.
    """

    def __init__(self, served: Sequence[Served], busy: Callable[[], bool], heal_every_s: float) -> None:
        """`busy` tells whether a request is under way. With `heal_every_s` 0 nothing is healed."""
        self._served = [one for one in served if one.repository.opened.spread is not None and not one.read_only]
        self._busy = busy
        self._heal_every_s = heal_every_s
        self._due = {one.name: trio.current_time() + self._rest_s(one.repository) for one in self._served}
        self._since = {one.name: 0.0 for one in self._served}  # when something was first seen waiting; 0: nothing is
        self._told: dict[str, str] = {}
        self._ending = threading.Event()

    def stop(self) -> None:
        """Let a heal that runs end soon."""
        self._ending.set()

    async def run(self) -> NoReturn:
        """Look after them until it is cancelled."""
        quiet = False
        while True:
            await trio.sleep(_TICK_S)
            was_quiet, quiet = quiet, not self._busy()
            for one in self._served:
                try:
                    await self._look_after(one, quiet and was_quiet)
                except SprayDryError as error:
                    self._tell(one, str(error))

    async def _look_after(self, one: Served, quiet: bool) -> None:
        spread = one.repository.opened.spread
        assert spread is not None
        now = trio.current_time()
        if any(member.store is None for member in spread.members) and quiet:
            for name in await one.call(reopen, one.repository.opened, one.read_only):
                log.info("%s is back", name)
        if spread.waiting:
            self._since[one.name] = self._since[one.name] or now
            if quiet or now - self._since[one.name] > _PATIENCE_S:
                done = await one.call(spread.deliver)
                self._since[one.name] = 0.0
                if done.values:
                    log.info("%s: %d values that were missed were delivered", one.name or "the repository", done.values)
        if self._heal_every_s and quiet and now >= self._due[one.name]:
            self._due[one.name] = now + _AGAIN_S
            if await one.call(self._heal, one.repository):
                self._due[one.name] = now + self._heal_every_s
                self._told.pop(one.name, None)

    def _heal(self, repository: Repository) -> bool:
        """Heal, unless another server is at it; whether everything is as it should be then. Blocks."""
        mine = f"{_HEALING} {secrets.token_hex(8)}"
        with hold(repository, mine, at_once=True):
            if any(held.what.startswith(_HEALING) and held.what != mine for held in heeded(repository).values()):
                return False
            healed = heal(repository, self._report)
        repository.catalog.remember(_HEALED, msgspec.msgpack.encode(time.time()))
        if healed.copied or healed.replaced or healed.removed:
            log.info("healed: %d copies made, %d replaced, %d removed", healed.copied, healed.replaced, healed.removed)
        for reason, (number, _) in healed.failed.items():
            log.warning("healing: %d values stay as they are: %s", number, reason)
        return not healed.failed

    def _report(self, _: Done) -> None:
        if self._ending.is_set():
            raise Stopped("the server ends")

    def _rest_s(self, repository: Repository) -> float:
        """How long until it is to be healed next, from when this catalog saw that last."""
        remembered = repository.catalog.state(_HEALED)
        try:
            last = msgspec.msgpack.decode(remembered, type=float) if remembered else 0.0
        except msgspec.MsgspecError:
            last = 0.0
        return min(max(last + self._heal_every_s - time.time(), min(_AGAIN_S, self._heal_every_s)), self._heal_every_s)

    def _tell(self, one: Served, text: str) -> None:
        """Log what fails, once for as long as it stays the same."""
        if self._told.get(one.name) != text:
            log.warning("%s: %s", one.name or "the repository", text)
        self._told[one.name] = text
