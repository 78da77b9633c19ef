"""The access log: one JSON line for each request, written by a task of its own."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import msgspec
import trio

from spraydry.errors import SprayDryError
from spraydry.web.guard.guard import Exchange, address_of

_EVERY_S = 0.25
_MOST_BYTES = 16 << 20  # that wait for a disk or pipe which does not take them

log = logging.getLogger(__name__)


class AccessLog:
    """Lines of time, address, token's name, method, path as it was sent (without the query, in which signatures are),
    status, bytes of the body, and seconds. `hear` and `run` belong to the server's thread.

    A file that was moved away is begun anew. What cannot be written is dropped, and the server's log says so once.
    """

    def __init__(self, place: str) -> None:
        """Write to the file at `place`, or for `-` to standard output. Raises SprayDryError."""
        self._path = None if place == "-" else Path(place)
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._dropped = 0
        self._second = (0, "")
        self._trouble = ""
        try:
            self._descriptor = self._opened()
        except OSError as error:
            raise SprayDryError(f"cannot write the access log {place}: {error.strerror}") from None

    def hear(self, exchange: Exchange) -> None:
        """Note a request that is over."""
        scope = exchange.scope
        now = time.time()
        whole = int(now)
        if whole != self._second[0]:
            self._second = (whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)))
        line = msgspec.json.encode(
            {
                "time": f"{self._second[1]}.{int((now - whole) * 1000):03}Z",
                "address": address_of(scope),
                "token": exchange.grant.name,
                "method": scope["method"],
                "path": scope["raw_path"].decode("latin-1"),
                "status": exchange.status,
                "bytes": exchange.bytes,
                "seconds": round(time.perf_counter() - exchange.began, 6),
            }
        )
        if self._waiting_bytes > _MOST_BYTES:
            self._dropped += 1
            return
        self._lines.append(line)
        self._waiting_bytes += len(line)

    async def run(self) -> NoReturn:
        """Write what was noted, until it is cancelled."""
        while True:
            await trio.sleep(_EVERY_S)
            if self._lines:
                await trio.to_thread.run_sync(self.write)

    def write(self) -> None:
        """Write what was noted since. Blocks."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        self._waiting_bytes = 0
        try:
            if self._path is not None and self._moved():
                os.close(self._descriptor)
                self._descriptor = self._opened()
            left = memoryview(b"\n".join((*lines, b"")))
            while left:
                left = left[os.write(self._descriptor, left) :]
            trouble = f"{self._dropped} lines were dropped" if self._dropped else ""
            self._dropped = 0
        except OSError as error:
            trouble = error.strerror or str(error)
        if trouble and trouble != self._trouble:
            log.warning("the access log: %s", trouble)
        self._trouble = trouble

    def close(self) -> None:
        """Write the rest."""
        self.write()
        if self._path is not None:
            os.close(self._descriptor)

    def _opened(self) -> int:
        if self._path is None:
            sys.stdout.flush()
            return sys.stdout.fileno()
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _moved(self) -> bool:
        assert self._path is not None
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return True
