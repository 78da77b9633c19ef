"""One process of a load: asks for paths in a random order on some connections, each kept; prints answers per second.

HOST PORT PATHS.json SECONDS CONNECTIONS SEED. Every answer must have status 200 and a length.
"""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import time

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *([0-9]+)")
_CLOSE = re.compile(rb"\r\n[Cc]onnection: *close", re.IGNORECASE)


class Connection:
    """Raw, with room for an answer that is used again and again."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.buffer = memoryview(bytearray(1 << 20))
        self.socket = self.connect()

    def connect(self) -> socket.socket:
        made = socket.create_connection(self.address, timeout=30)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def receive(self) -> None:
        have = 0
        while True:
            count = self.socket.recv_into(self.buffer[have:])
            if not count:
                sys.exit("the server hung up in an answer")
            have += count
            head = bytes(self.buffer[: min(have, 4096)]).partition(b"\r\n\r\n")
            if head[1]:
                break
        length = _LENGTH.search(head[0])
        if not head[0].startswith(b"HTTP/1.1 200") or length is None:
            sys.exit(f"an answer that is none: {head[0][:200]!r}")
        left = len(head[0]) + 4 + int(length[1]) - have
        while left > 0:
            left -= self.socket.recv_into(self.buffer[: min(left, len(self.buffer))])
        if _CLOSE.search(head[0]):
            self.socket.close()
            self.socket = self.connect()


def main() -> None:
    host, port, paths, seconds, connections, seed = sys.argv[1:]
    with open(paths) as file:
        requests = [f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for path in json.load(file)]
    rng = random.Random(int(seed))
    open_ones = [Connection((host, int(port))) for _ in range(int(connections))]
    done, began = 0, time.monotonic()
    until = began + float(seconds)
    while time.monotonic() < until:
        for one in open_ones:
            one.socket.sendall(rng.choice(requests))
        for one in open_ones:
            one.receive()
        done += len(open_ones)
    print(done / (time.monotonic() - began))


if __name__ == "__main__":
    main()
