"""The channel, with a test in the place of the kernel and of libfuse."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio

from spraydry.errors import CorruptData
from spraydry.mount import wire
from spraydry.mount.channel import Answer, Channel
from spraydry.mount.fetch import ChunkFetcher, Later
from spraydry.repository.repository import Repository

LOOKUP, GETATTR, SETATTR, READ, FLUSH, WHATEVER = 1, 3, 4, 15, 25, 4711


class Some:
    """Handlers that do what the inode number says."""

    def __init__(self) -> None:
        self.flags = 0
        self.go_on = threading.Event()

    def offered(self, flags: int) -> None:
        self.flags = flags

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        return f"{args}"

    def idle(self) -> None:
        raise ValueError("nothing to do")

    def lookup(self, ino: int, name: bytes) -> bytes:
        return name[::-1]

    def getattr(self, ino: int) -> bytes:
        if ino == 1:
            raise ValueError("a bug")
        if ino == 2:
            raise CorruptData("a damaged page")
        if ino == 3 and not self.go_on.is_set():
            raise Later(self.go_on.wait)
        return b"of %d" % ino

    def read(self, ino: int, offset: int, size: int) -> Answer:
        return [memoryview(b"%d" % offset), b" ", b"%d" % size]


class Kernel:
    """The kernel's end, and libfuse's."""

    def __init__(self, handlers: Some, repository: Repository) -> None:
        self.end, session = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(100)
        self.handlers = handlers
        self.libfuse = session.detach()
        self.channel = Channel(handlers, ChunkFetcher(repository), self.libfuse)

    def ask(self, opcode: int, unique: int, ino: int, body: bytes = b"") -> None:
        self.end.send(wire.IN_HEADER.pack(40 + len(body), opcode, unique, ino, 0, 0, 0, 0, 0) + body)

    async def answer(self) -> tuple[int, int, bytes]:
        """Of the next answer: unique, errno, bytes."""
        got = await trio.to_thread.run_sync(self.end.recv, 1 << 20)
        length, code, unique = struct.unpack_from("=IiQ", got)
        assert length == len(got)
        return unique, -code, got[16:]


@pytest.fixture
async def kernel(repository: Repository) -> AsyncIterator[Kernel]:
    made = Kernel(Some(), repository)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.channel.pass_back)
            nursery.start_soon(made.channel.serve, nursery)
            yield made
            nursery.cancel_scope.cancel()
    made.channel.close()
    os.close(made.libfuse)
    made.end.close()


async def test_requests_and_answers(kernel: Kernel) -> None:
    kernel.ask(LOOKUP, 7, 1, b"name\0rubbish behind")
    assert await kernel.answer() == (7, 0, b"eman")
    kernel.ask(READ, 8, 1, struct.pack("=QQIIQII", 0, 1 << 40, 4096, 0, 0, 0, 0))
    assert await kernel.answer() == (8, 0, b"1099511627776 4096")
    kernel.ask(wire.FORGET, 9, 1, bytes(8))
    kernel.ask(wire.BATCH_FORGET, 10, 1, bytes(8))
    kernel.ask(wire.INTERRUPT, 11, 0, bytes(8))
    assert await kernel.answer() == (11, errno.ENOSYS, b"")


async def test_what_goes_wrong_is_eio_and_logged(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    kernel.ask(GETATTR, 1, 1)
    assert await kernel.answer() == (1, errno.EIO, b"")
    assert "getattr of (1,) failed" in caplog.text and "ValueError: a bug" in caplog.text
    kernel.ask(GETATTR, 2, 2)
    assert await kernel.answer() == (2, errno.EIO, b"")
    assert "getattr of (2,): a damaged page" in caplog.text
    with caplog.at_level(logging.CRITICAL):
        kernel.ask(LOOKUP, 3, 1, b"a name without an end")
        assert await kernel.answer() == (3, errno.EIO, b"")
    kernel.ask(GETATTR, 4, 4)
    assert await kernel.answer() == (4, 0, b"of 4")


async def test_what_no_handler_knows_goes_to_libfuse(kernel: Kernel) -> None:
    for unique, opcode in enumerate((SETATTR, FLUSH, WHATEVER)):
        kernel.ask(opcode, unique, 1, b"body")
        passed = await trio.to_thread.run_sync(os.read, kernel.libfuse, 1 << 20)
        assert passed[4:8] == opcode.to_bytes(4, "little") and passed.endswith(b"body")
        os.write(kernel.libfuse, wire.OUT_HEADER.pack(16, -errno.EROFS, unique))
        assert await kernel.answer() == (unique, errno.EROFS, b"")
    kernel.ask(wire.INIT, 5, 0, struct.pack("=IIII", 7, 38, 0, wire.NO_OPEN_SUPPORT))
    await trio.to_thread.run_sync(os.read, kernel.libfuse, 1 << 20)
    assert kernel.handlers.flags == wire.NO_OPEN_SUPPORT


async def test_others_are_served_while_one_waits(kernel: Kernel) -> None:
    kernel.ask(GETATTR, 1, 3)
    for unique in range(2, 100):
        kernel.ask(GETATTR, unique, unique + 10)
        assert (await kernel.answer())[0] == unique
    kernel.handlers.go_on.set()
    assert await kernel.answer() == (1, 0, b"of 3")


async def test_an_ended_mount_ends_it(repository: Repository) -> None:
    kernel = Kernel(Some(), repository)
    kernel.end.close()
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await kernel.channel.serve(nursery)
    kernel.channel.close()
    os.close(kernel.libfuse)
