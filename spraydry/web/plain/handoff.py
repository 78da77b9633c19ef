"""What handing off is: the file is brought to a place from which another program sends it, then the client, or the web
server in front, is told where."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from time import monotonic

import trio
from starlette.types import Scope

from spraydry.errors import CorruptData, SprayDryError
from spraydry.format.digest import hasher
from spraydry.format.entry import Entry, Runs
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.web.served import Served

LEAST_BYTES = 128 << 10  # what is smaller is sent as quickly as it is handed off
_AT_A_TIME, _WAITING = 2, 32
_WAIT_S, _WAIT_BYTES = 1.0, 64 << 20  # who asks first waits so long for a file that is not larger
_NOT_AGAIN_S = 60.0
_REMEMBERED = 10_000
_ZEROS = bytes(1 << 20)

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


class Ended(Exception):
    """The server ends before a file was brought."""


class Handoff(ABC):
    """Lives in the server's one trio thread, but `bring`, which blocks. What is not in its place yet is brought there
    beside, while whoever asks is served from here."""

    def __init__(self) -> None:
        self._flights: dict[str, trio.Event] = {}
        self._failed: OrderedDict[str, float] = OrderedDict()  # until when it is not tried again
        self._true: OrderedDict[str, None] = OrderedDict()  # whose chunks were seen to make up the digest
        self._silent_until_s = 0.0  # the other place does not answer: it is not asked again before
        self._limiter = trio.CapacityLimiter(_AT_A_TIME)

    @abstractmethod
    def takes(self, scope: Scope, entry: Entry, media_type: bytes) -> str | None:
        """Under which name a file is to lie in the other place; None where it is to be sent from here."""

    @abstractmethod
    async def there(self, served: Served, name: str, size: int) -> Headers | None:
        """What tells where the file is; None where it is not there yet."""

    @abstractmethod
    def bring(self, repository: Repository, name: str, entry: Entry, media_type: bytes, ended: threading.Event) -> bool:
        """Put the file there, verified as a whole; False where there is no room for it. Blocks. Raises Ended soon after
        `ended` is set, and StoreErrors, CorruptData and others."""

    @property
    @abstractmethod
    def status(self) -> int:
        """The status of the answer that hands off."""

    async def offer(self, scope: Scope, served: Served, entry: Entry, media_type: bytes) -> Headers | None:
        """What to add to the headers of an answer without a body, that another program makes one with a body of; None
        where the file is to be sent from here."""
        if entry.size < LEAST_BYTES or scope["method"] != "GET" or monotonic() < self._silent_until_s:
            return None
        name = self.takes(scope, entry, media_type)
        if name is None:
            return None
        claim = _claim(name, entry)
        there = False
        try:
            if (headers := await self.there(served, name, entry.size)) is not None:
                if self._is_true(claim, entry):
                    return headers
                there = True
        except SprayDryError as error:
            log.warning("%s cannot be handed off: %s", name, error)
            self._silent_until_s = monotonic() + _NOT_AGAIN_S
            return None
        if monotonic() < self._failed.get(claim, 0.0):
            return None
        flight = self._flights.get(claim)
        if flight is None:
            if len(self._flights) >= _WAITING:
                return None
            flight = self._flights[claim] = trio.Event()
            trio.lowlevel.spawn_system_task(self._fly, served, name, entry, media_type, there)
        if entry.size > _WAIT_BYTES:
            return None
        with trio.move_on_after(_WAIT_S) as waiting:
            await flight.wait()
        if waiting.cancelled_caught or not self._is_true(claim, entry):
            return None
        try:
            return await self.there(served, name, entry.size)
        except SprayDryError:
            return None

    def _is_true(self, claim: str, entry: Entry) -> bool:
        """Whether a file's chunks are known to make up its digest. That of one chunk is the file's own; of more a
        client said so, who might want to see what another file of that digest holds."""
        if isinstance(entry.content, bytes):
            return True
        if claim not in self._true:
            return False
        self._true.move_to_end(claim)
        return True

    async def _fly(self, served: Served, name: str, entry: Entry, media_type: bytes, there: bool) -> None:
        ended = threading.Event()
        brought = False
        claim = _claim(name, entry)

        def bring() -> bool:
            if there:
                prove(served.repository, entry, ended)
                return True
            return self.bring(served.repository, name, entry, media_type, ended)

        try:
            brought = await trio.to_thread.run_sync(bring, limiter=self._limiter, abandon_on_cancel=True)
        except SprayDryError as error:
            log.warning("%s cannot be handed off: %s", name, error)
        except Exception:
            log.exception("%s cannot be handed off", name)
        finally:
            ended.set()
            if brought:
                self._true[claim] = None
                if len(self._true) > _REMEMBERED:
                    self._true.popitem(last=False)
            else:
                self._failed[claim] = monotonic() + _NOT_AGAIN_S
                if len(self._failed) > _REMEMBERED:
                    self._failed.popitem(last=False)
            self._flights.pop(claim).set()


def _claim(name: str, entry: Entry) -> str:
    """That the chunks of an entry make up what lies under a name."""
    return f"{name} {entry.content.manifest.hex()}" if isinstance(entry.content, Runs) else name


def prove(repository: Repository, entry: Entry, ended: threading.Event) -> None:
    """Read a file. Raises CorruptData unless its chunks make up what its digest says, Ended, and what reading does."""
    whole = hasher()
    for span, chunk in read_ahead(repository, entry):
        if ended.is_set():
            raise Ended
        for done in range(0, span.length, len(_ZEROS)) if chunk is None else ():
            whole.update(memoryview(_ZEROS)[: span.length - done])
        if chunk is not None:
            whole.update(chunk)
    if whole.digest() != entry.file_digest:
        raise CorruptData("a file's chunks do not make up what its digest says")
