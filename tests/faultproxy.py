"""A TCP proxy on loopback that does to connections what networks do."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BLOCK = 16 << 10


@dataclass
class Fault:
    """What happens, and how many `times` (None: always). Bytes count from when the fault was set, per connection."""

    cut_request: int | None = None  # reset both sides after so many bytes of requests
    cut_answer: int | None = None  # reset both sides after so many bytes of answers; 0: the answer is lost
    flip_request: int | None = None  # change a bit of that byte
    flip_answer: int | None = None
    answer: bytes | None = None  # to each request, which the server never sees
    answer_to: bytes = b""  # only to requests that begin so
    lose_answer_to: bytes | None = None  # what begins so is done, but nobody hears of it: reset both sides
    stall: int | None = None  # after so many bytes of requests, or answers, nothing goes through any more
    delay_s: float = 0.0  # before each block of up to 16 KiB
    times: int | None = None


class Proxy:
    """Threads of its own; `fault` may be changed at any time."""

    def __init__(self, host: str, port: int) -> None:
        self.fault: Fault | None = None
        self.struck = 0
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._lost: set[socket.socket] = set()
        self._ended = threading.Event()
        self._later: tuple[int, Fault] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        _reset(self._listener, *self._open)

    def after(self, passed_bytes: int, fault: Fault) -> None:
        """Set `fault` when so many more bytes went through, both ways together."""
        with self._lock:
            self._later = (passed_bytes, fault)

    def _count(self, passed_bytes: int) -> None:
        with self._lock:
            if self._later is not None:
                left, fault = self._later[0] - passed_bytes, self._later[1]
                self._later = (left, fault) if left > 0 else None
                if left <= 0:
                    self.fault = fault

    def _strikes(self, fault: Fault) -> bool:
        with self._lock:
            if fault.times == 0:
                return False
            if fault.times is not None:
                fault.times -= 1
            self.struck += 1
            return True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:
                _reset(client)
                continue
            self._open += [client, server]
            for source, to, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, to, answers), daemon=True).start()

    def _pump(self, source: socket.socket, to: socket.socket, answers: bool) -> None:
        passed, before = 0, None
        with suppress(OSError):
            while block := source.recv(_BLOCK):
                fault = self.fault
                passed, before = (passed if fault is before else 0), fault
                if fault is not None:
                    cut = fault.cut_answer if answers else fault.cut_request
                    flip = fault.flip_answer if answers else fault.flip_request
                    if fault.delay_s:
                        self._strikes(fault)
                        time.sleep(fault.delay_s)
                    if cut is not None and passed + len(block) >= cut and self._strikes(fault):
                        to.sendall(block[: max(cut - passed, 0)])
                        break
                    if flip is not None and 0 <= flip - passed < len(block) and self._strikes(fault):
                        block = bytearray(block)
                        block[flip - passed] ^= 1
                    asked = not answers and block.startswith(fault.answer_to)
                    if fault.answer is not None and asked and self._strikes(fault):
                        self._answer(source, block, fault.answer)
                        break
                    lost = fault.lose_answer_to
                    if lost is not None and not answers and block.startswith(lost) and self._strikes(fault):
                        self._lost.add(source)
                    if fault.stall is not None and passed + len(block) > fault.stall and self._strikes(fault):
                        self._ended.wait()
                if answers and to in self._lost:
                    break
                to.sendall(block)
                passed += len(block)
                self._count(len(block))
        _reset(source, to)

    def _answer(self, client: socket.socket, request: bytes, answer: bytes) -> None:
        while b"\r\n\r\n" not in request:
            request += client.recv(_BLOCK)
        head, _, body = request.partition(b"\r\n\r\n")
        length = int(found[1]) if (found := _LENGTH.search(head)) else 0
        while len(body) < length:
            body += client.recv(_BLOCK)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(_BLOCK):
            pass


def _reset(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def http_answer(status: str, body: str = "") -> bytes:
    """A whole answer, after which the connection ends."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """A proxy in front of a server, until the end of the block."""
    running = Proxy(host, port)
    try:
        yield running
    finally:
        running.close()
