"""Puts and deletions that come at about the same time share one log record: one commit, whoever waits for it."""

from __future__ import annotations

from collections import deque

import trio

from spraydry.actions.hoard import Asked, SmallFiles, change_together
from spraydry.errors import SprayDryError
from spraydry.web.served import Served

_TOGETHER = 1000
_TOGETHER_BYTES = 16 << 20


class _Waiting:
    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.done = False
        self.turn = trio.Event()


class Groups:
    """For one repository, in the server's one trio thread. Of each hoard one group is committed at a time, by whoever
    came first of those in it; what comes meanwhile is the next one."""

    def __init__(self, served: Served, small: SmallFiles) -> None:
        self._served = served
        self._small = small
        self._waiting: dict[str, deque[_Waiting]] = {}

    async def change(self, hoard: str, asked: Asked) -> None:
        """Commit a change; it is durable when this returns. Raises why it was refused, and what committing raises."""
        one = _Waiting(asked)
        with trio.CancelScope(shield=True):  # others may wait for the group that this one commits
            queue = self._waiting.get(hoard)
            if queue is None:
                queue = self._waiting[hoard] = deque([one])
            else:
                queue.append(one)
                await one.turn.wait()
            if not one.done:
                await self._commit(hoard, queue)
        if asked.error is not None:
            raise asked.error

    async def _commit(self, hoard: str, queue: deque[_Waiting]) -> None:
        """Commit the group at the head of the queue, and wake the first of the next one."""
        group: list[_Waiting] = []
        held = 0
        for one in queue:
            held += len(one.asked.plain or b"")
            if group and (held > _TOGETHER_BYTES or len(group) == _TOGETHER):
                break
            group.append(one)
        try:
            await self._served.call(change_together, self._small, hoard, [one.asked for one in group])
        except SprayDryError as error:
            for one in group:
                one.asked.error = error
        except BaseException:
            for one in group:
                one.asked.error = SprayDryError("it could not be committed")
            raise
        finally:
            for one in group:
                queue.popleft()
                one.done = True
                one.turn.set()
            if queue:
                queue[0].turn.set()
            else:
                del self._waiting[hoard]
