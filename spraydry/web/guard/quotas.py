"""Quotas: how much may be uploaded with a token, and how much the repositories may hold in all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import trio

from spraydry.errors import SprayDryError, StoreFull
from spraydry.web.grant import Grant, Right
from spraydry.web.guard import usage
from spraydry.web.served import Served

_SAVE_EVERY_S = 2.0
_LOOK_EVERY_S = 300.0

log = logging.getLogger(__name__)


class OverQuota(StoreFull):
    """More was to be uploaded than is allowed."""


class Upload:
    """A request that may bring something to be kept; it counts once its handler asks for the right to write."""

    __slots__ = ("_quotas", "bytes", "token", "writes")

    def __init__(self, quotas: Quotas, token: str, declared_bytes: int) -> None:
        self._quotas = quotas
        self.token = token
        self.bytes = declared_bytes
        self.writes = False

    def begin(self) -> None:
        """Something is to be written. Raises OverQuota."""
        if not self.writes:
            self._quotas.reserve(self.token, self.bytes)
            self.writes = True

    def grow(self, received_bytes: int) -> None:
        """So much has come. Raises OverQuota."""
        if received_bytes > self.bytes:
            if self.writes:
                self._quotas.reserve(self.token, received_bytes - self.bytes)
            self.bytes = received_bytes

    def end(self, kept: bool) -> None:
        """The request is over; with `kept` what it brought counts from now on."""
        if self.writes:
            self._quotas.settle(self.token, self.bytes, kept)


@dataclass(frozen=True)
class Counted(Grant):
    """A grant whose use for writing counts."""

    upload: Upload | None = field(default=None, compare=False)

    def require(self, right: Right, *, namespace: str = "", root: str = "", hoard: str = "") -> None:
        """As that of Grant. Raises OverQuota, too."""
        Grant.require(self, right, namespace=namespace, root=root, hoard=hoard)
        if right in {"add", "overwrite"} and self.upload is not None:
            self.upload.begin()


class Quotas:
    """What was uploaded by token and in all, against what may be. For the server's thread.

    What counts for a token are the bytes of its uploads that were taken, whether they were new or not, over all
    servers that share the file of tokens. Nothing is given back for what is deleted: content that is stored once may be
    of many, is there until it was collected, and nobody is told who brought it. For all counts what the repositories
    hold when it is looked (every five minutes), and uploads since.
    """

    def __init__(self, tokens: Path | None, total_bytes: int | None, served: Sequence[Served]) -> None:
        self._tokens = tokens
        self._total_bytes = total_bytes
        self._served = served
        self._limits: dict[str, int] = {}
        self._used = usage.read(tokens) if tokens is not None else {}
        self._unsaved: dict[str, int] = {}
        self._running: dict[str, int] = {}
        self._held_bytes = 0
        self._trouble = ""

    def watch(self, token: str, limit_bytes: int | None, declared_bytes: int) -> Upload | None:
        """What counts a request; None where nothing limits it and nobody is told how much it was. What came with a
        token counts also while it has no limit: it may get one."""
        if not token and self._total_bytes is None:
            return None
        if limit_bytes is None:
            self._limits.pop(token, None)
        else:
            self._limits[token] = limit_bytes
        return Upload(self, token, declared_bytes)

    def reserve(self, token: str, more_bytes: int) -> None:
        """Let so much more be under way. Raises OverQuota."""
        limit = self._limits.get(token)
        if limit is not None and self._used.get(token, 0) + self._running.get(token, 0) + more_bytes > limit:
            raise OverQuota(
                f"this token may upload {limit} bytes in all, and did {self._used.get(token, 0)}: whoever runs the"
                " server can give it more with `spraydry token set`"
            )
        coming_bytes = sum(self._running.values()) + more_bytes
        if self._total_bytes is not None and self._held_bytes + coming_bytes > self._total_bytes:
            raise OverQuota(f"this server keeps at most {self._total_bytes} bytes: ask whoever runs it for room")
        self._running[token] = self._running.get(token, 0) + more_bytes

    def settle(self, token: str, upload_bytes: int, kept: bool) -> None:
        """What was under way has ended."""
        self._running[token] = self._running.get(token, 0) - upload_bytes
        if not self._running[token]:
            del self._running[token]
        if kept:
            self._held_bytes += upload_bytes
            if token:
                self._used[token] = self._used.get(token, 0) + upload_bytes
                self._unsaved[token] = self._unsaved.get(token, 0) + upload_bytes

    async def look(self) -> None:
        """Ask the stores how much they hold."""
        if self._total_bytes is None:
            return
        held = 0
        for one in self._served:
            try:
                held += (await one.call(one.repository.store.stat)).bytes
            except SprayDryError as error:
                log.warning("how much %s holds cannot be told: %s", one.name or "the repository", error)
                return
        self._held_bytes = held

    async def run(self) -> NoReturn:
        """Keep the numbers, and look again, until it is cancelled."""
        looked = trio.current_time()
        while True:
            await trio.sleep(_SAVE_EVERY_S)
            if self._unsaved:
                await trio.to_thread.run_sync(self.save)
            if trio.current_time() - looked >= _LOOK_EVERY_S:
                await self.look()
                looked = trio.current_time()

    def save(self) -> None:
        """Write down what was used since, and learn what others did. Blocks."""
        unsaved, self._unsaved = self._unsaved, {}
        if not unsaved or self._tokens is None:
            return
        try:
            used = usage.change(self._tokens, unsaved)
        except SprayDryError as error:
            if self._trouble != str(error):  # it is tried every two seconds
                self._trouble = str(error)
                log.warning("what was uploaded is counted only until this server ends: %s", error)
            for name, number in unsaved.items():
                self._unsaved[name] = self._unsaved.get(name, 0) + number
            return
        self._trouble = ""
        self._used = {name: number + self._unsaved.get(name, 0) for name, number in used.items()}
