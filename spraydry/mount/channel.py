"""The FUSE channel: takes the kernel's requests, has handlers answer them, gives libfuse what they do not know."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

import pyfuse3
import trio

from spraydry.errors import SprayDryError
from spraydry.mount import wire
from spraydry.mount.fetch import ChunkFetcher, Later, Missing

_FUSE_DEVICE = os.makedev(10, 229)
# The kernel wants room for the largest write that libfuse agrees to, whether there are writes or not; pages of it that
# are never touched take no memory.
_REQUEST_BYTES = (1 << 20) + (64 << 10)
_ANSWER_BYTES = 64 << 10
_LINGER_MS = 1
_TURN_S = 0.005
_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL

Buffer = bytes | memoryview
Answer = Buffer | list[Buffer]

log = logging.getLogger("spraydry.mount")


class Handlers(Protocol):
    """Functions named as in wire.REQUESTS, as many as there is something to say to; the others libfuse answers. They
    give the answer's bytes, or raise: Missing or Later for what must be waited for, and then they are called again;
    FUSEError; anything else is logged and EIO."""

    def offered(self, flags: int) -> None:
        """What the kernel can do, by wire.NO_OPEN_SUPPORT and so on; called before anything else."""

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """What a request was about, in words, for the log."""

    def idle(self) -> None:
        """Called when a request was answered and no other is there."""


class Channel:
    """Stands between the kernel and libfuse, whose session has this descriptor and does not serve yet. For the trio
    thread.

    pyfuse3 gives its handlers file handles, where the kernel names the inode too, makes an object of each entry of a
    listing, and goes through the scheduler for every request: 40 us of CPU each. Here the bytes are read and written
    directly, and libfuse, at the other end of a socket, gets what is left: INIT, and what is rare or refused.

    A program's requests follow each other within microseconds. So after an answer this looks for the next request
    itself, for up to _LINGER_MS, unless there is something to wait for, and leaves the scheduler a turn every few
    milliseconds (of 30 us, measured). What must wait for a store does so in a task of its own.
    """

    def __init__(self, handlers: Handlers, fetch: ChunkFetcher, descriptor: int) -> None:
        self._handlers = handlers
        self._fetch = fetch
        self._known: dict[int, tuple[str, wire.Parse, Callable[..., Answer]]] = {
            opcode: (name, parse, getattr(handlers, name))
            for opcode, (name, parse) in wire.REQUESTS.items()
            if hasattr(handlers, name)
        }
        self._theirs = descriptor
        self._kernel = os.dup(self._theirs)
        os.set_blocking(self._kernel, False)
        self._libfuse, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._libfuse.setblocking(False)
        os.dup2(other.fileno(), self._theirs, inheritable=False)
        other.close()
        self._poll = select.poll()
        self._poll.register(self._kernel, select.POLLIN)
        self._turn_s = 0.0
        self._buffer = bytearray(_REQUEST_BYTES)

    def close(self) -> None:
        """Give libfuse the kernel's descriptor back: by it, it knows whether there is still something to unmount."""
        self._libfuse.close()
        os.dup2(self._kernel, self._theirs, inheritable=False)
        os.close(self._kernel)

    def pending(self) -> bool:
        """Whether a request can be read now."""
        return bool(self._poll.poll(0))

    async def serve(self, nursery: trio.Nursery) -> None:
        """Answer requests until the mount has ended, those that must wait in tasks of the nursery."""
        known, buffers, buffer = self._known, [self._buffer], self._buffer
        head = wire.IN_HEADER.unpack_from
        kernel, readv = self._kernel, os.readv
        while await self._readable():
            try:
                length = readv(kernel, buffers)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno == errno.ENOENT:  # it was given up before it could be read
                    continue
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                    break
                raise
            _, opcode, unique, ino, uid, _, _, _, _ = head(buffer)
            found = known.get(opcode)
            if found is not None:
                name, parse, handler = found
                args: tuple[Any, ...] = ()
                try:
                    args = parse(buffer, length, ino, uid)
                    answer = handler(*args)
                except (Missing, Later):
                    if not self._answered_here(unique, name, handler, args):
                        nursery.start_soon(self._answer_later, unique, name, handler, args)
                        self._turn_s = 0.0
                        await trio.lowlevel.checkpoint()
                except Exception as error:
                    self._refuse(unique, self._code(error, name, args))
                else:
                    self._answer(unique, answer)
                    if not self._poll.poll(0):
                        self._idle()
            elif opcode not in wire.UNANSWERED:
                self._pass_on(opcode, unique, length)
                self._turn_s = 0.0

    def _idle(self) -> None:
        """While the program that was answered makes up its mind."""
        try:
            self._handlers.idle()
        except Exception as error:  # whoever asks for it meets the error and reports it
            log.debug("ahead of requests: %s", error)

    async def _readable(self) -> bool:
        """Wait for a request. False when the mount has ended."""
        while True:
            now = monotonic()
            if now < self._turn_s:
                ready = self._poll.poll(0 if self._fetch.waiting else _LINGER_MS)
                if ready:
                    return not ready[0][1] & _GONE
                self._turn_s = 0.0
            elif self._turn_s:
                await trio.lowlevel.checkpoint()
                self._turn_s = monotonic() + _TURN_S
            else:
                await trio.lowlevel.wait_readable(self._kernel)
                self._turn_s = monotonic() + _TURN_S

    # -- answers

    def _answered_here(self, unique: int, name: str, handler: Callable[..., Answer], args: tuple[Any, ...]) -> bool:
        """Answer with what can be loaded without a task, if that is so."""
        try:
            answer = self._fetch.run_here(handler, *args)
        except (Missing, Later):
            return False
        except Exception as error:
            self._refuse(unique, self._code(error, name, args))
        else:
            self._answer(unique, answer)
        return True

    async def _answer_later(
        self, unique: int, name: str, handler: Callable[..., Answer], args: tuple[Any, ...]
    ) -> None:
        try:
            answer = await self._fetch.run(handler, *args)
        except Exception as error:
            self._refuse(unique, self._code(error, name, args))
        else:
            self._answer(unique, answer)

    def _answer(self, unique: int, answer: Answer) -> None:
        if type(answer) is list:
            self._write(wire.OUT_HEADER.pack(wire.OUT_HEADER.size + sum(map(len, answer)), 0, unique), *answer)
        else:
            self._write(wire.OUT_HEADER.pack(wire.OUT_HEADER.size + len(answer), 0, unique), answer)

    def _refuse(self, unique: int, code: int) -> None:
        self._write(wire.OUT_HEADER.pack(wire.OUT_HEADER.size, -code, unique))

    def _write(self, *parts: Any) -> None:
        try:
            os.writev(self._kernel, parts)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # nobody waits any more, or the mount has ended
                log.error("an answer was not taken: %s", error)

    def _code(self, error: Exception, name: str, args: tuple[Any, ...]) -> int:
        """The errno for what a handler raised, logged if it was not foreseen."""
        if isinstance(error, pyfuse3.FUSEError):
            return error.errno
        what = self._handlers.describe(name, args)
        if isinstance(error, SprayDryError):
            log.error("%s of %s: %s", name, what, error)
        else:
            log.error("%s of %s failed", name, what, exc_info=error)
        return errno.EIO

    # -- libfuse

    def _pass_on(self, opcode: int, unique: int, length: int) -> None:
        """Let libfuse answer what is in the buffer."""
        if opcode == wire.INTERRUPT:
            self._refuse(unique, errno.ENOSYS)  # no answer comes sooner for it: the kernel does not send more of them
            return
        if opcode == wire.INIT:
            self._handlers.offered(wire.init_flags(self._buffer))
        try:
            self._libfuse.send(memoryview(self._buffer)[:length])
        except OSError as error:
            log.error("request %d of %d bytes: %s", opcode, length, error)
            self._refuse(unique, errno.EIO)

    async def pass_back(self) -> None:
        """Give the kernel what libfuse answers, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._libfuse)
            self._write(self._libfuse.recv(_ANSWER_BYTES))


def fuse_descriptor() -> int:
    """The descriptor of this process's one FUSE session."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.fstat(int(name)).st_rdev == _FUSE_DEVICE:
                return int(name)
        except OSError:
            pass  # the descriptor of the listing itself
    raise LookupError("no FUSE session is open")
