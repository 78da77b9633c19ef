"""Waiting for the kernel's next request, without a round through the scheduler where that can be spared."""

from __future__ import annotations

import os
import select
from time import monotonic

import pyfuse3
import trio

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
_FUSE_DEVICE = os.makedev(10, 229)
_LINGER_MS = 1
_YIELD_EVERY_S = 0.005


class Requests:
    """The tasks of pyfuse3's main loop take turns here; one listens at a time. For the trio thread only.

    pyfuse3 makes every task take a lock and wait in the scheduler before each request: two rounds of it, 60 us of CPU,
    as much as all the rest of a request that hits (measured: `find -ls` over 139,000 entries took 7.0 s of CPU so, 4.1
    without). A program's requests follow each other within microseconds. So the task that has answered one first looks
    for the next itself, for up to _LINGER_MS, as long as no load is under way that other tasks wait for, and leaves
    the scheduler a turn every few milliseconds. Only a handler that must wait makes another task listen.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._listening = False
        self._ended = False
        self._waiting = 0
        self._parked = trio.lowlevel.ParkingLot()
        self._yield_s = 0.0

    def install(self) -> None:
        """Make pyfuse3 wait here. A pyfuse3 that does it otherwise goes on doing so."""
        if hasattr(pyfuse3, "_wait_fuse_readable"):
            pyfuse3._wait_fuse_readable = self.wait

    async def wait(self) -> bool:
        """Until a request can be read: True; False when the mount has ended."""
        while not self._ended:
            if self._listening:
                await self._parked.park()
                continue
            now = monotonic()
            if now < self._yield_s:
                ready = self._poll.poll(0 if self._waiting else _LINGER_MS)
            elif self._yield_s:
                await trio.lowlevel.checkpoint()
                self._yield_s = monotonic() + _YIELD_EVERY_S
                continue
            else:
                self._listening = True
                try:
                    await trio.lowlevel.wait_readable(self._descriptor)
                except trio.ClosedResourceError:
                    break
                finally:
                    self._listening = False
                self._yield_s = monotonic() + _YIELD_EVERY_S
                ready = self._poll.poll(0)
            if ready:
                if ready[0][1] & _GONE:
                    break
                return True
            self._yield_s = 0.0
        self.end()
        return False

    def pending(self) -> bool:
        """Whether a request can be read now."""
        return bool(self._poll.poll(0))

    def begin_waiting(self) -> None:
        """A handler is about to wait for a load: another task must listen meanwhile."""
        self._waiting += 1
        if not self._listening:
            self._parked.unpark()

    def end_waiting(self) -> None:
        """It has waited."""
        self._waiting -= 1

    def end(self) -> None:
        """No task waits any longer."""
        self._ended = True
        self._parked.unpark_all()


def fuse_descriptor() -> int:
    """The descriptor of this process's one FUSE session."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.fstat(int(name)).st_rdev == _FUSE_DEVICE:
                return int(name)
        except OSError:
            pass  # the descriptor of the listing itself
    raise LookupError("no FUSE session is open")
