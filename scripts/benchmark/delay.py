"""A TCP proxy on loopback that is as far away as one says, a process of its own: `delay.py HOST PORT ROUND_TRIP_MS`.

It prints the port it listens on, and ends when its standard input does. Every byte takes half a round trip each way,
and a new connection one and a half before the server sees anything of it, as a handshake does; any number of bytes are
on their way at a time. So what a client sends without waiting costs nothing, and each answer it waits for a round
trip, those of the handshakes of SSH and HTTP too. Not emulated: bandwidth, loss, and TCP's slow start.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator

BLOCK = 256 << 10
ON_THE_WAY = 16 << 20  # bytes one way at most: 6 Gbit/s at 20 ms
clock = time.monotonic


class Way:
    """Bytes from one socket to another, each due a while after it came. What is due at the end is the end itself."""

    def __init__(self, source: socket.socket, half_s: float, not_before: float = 0.0) -> None:
        self.source, self.half_s, self.not_before = source, half_s, not_before
        self.target: socket.socket | None = None
        self.queue: deque[tuple[float, memoryview]] = deque()
        self.held = 0
        self.ended = False  # nothing more comes

    def take(self) -> None:
        """What has come, which may be the end."""
        try:
            block = self.source.recv(BLOCK)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        self.queue.append((max(clock() + self.half_s, self.not_before), memoryview(block)))
        self.held += len(block)
        self.ended = not block

    def give(self) -> bool:
        """What is due, as far as the other side takes it; whether the end was reached."""
        assert self.target is not None
        try:
            while self.queue and self.queue[0][0] <= clock():
                due, block = self.queue[0]
                if not block:
                    with contextlib.suppress(OSError):
                        self.target.shutdown(socket.SHUT_WR)
                    self.queue.popleft()
                    return True
                sent = self.target.send(block)
                self.held -= sent
                if sent < len(block):
                    self.queue[0] = (due, block[sent:])
                    return False
                self.queue.popleft()
        except BlockingIOError:
            return False
        except OSError:  # it is gone: so is what was to be told it
            self.queue.clear()
            self.ended = True
            return True
        return False


class Pair:
    """A client's connection and the server's, which begins when the client's handshake would be done."""

    def __init__(self, client: socket.socket, server: tuple[str, int], round_trip_s: float) -> None:
        self.client, self.server_address = client, server
        self.server: socket.socket | None = None
        self.due = clock() + 1.5 * round_trip_s
        self.up = Way(client, round_trip_s / 2, self.due)
        self.down: Way | None = None
        self.half_s = round_trip_s / 2
        self.left = 2  # ways that have not ended
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connect(self) -> None:
        """Raises OSError where the server is gone."""
        self.server = socket.create_connection(self.server_address, 5)
        self.server.setblocking(False)
        self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.down = Way(self.server, self.half_s)
        self.up.target, self.down.target = self.server, self.client

    def ways(self) -> list[Way]:
        return [self.up] if self.down is None else [self.up, self.down]

    def close(self) -> None:
        for one in (self.client, self.server):
            if one is not None:
                one.close()


def serve(host: str, port: int, round_trip_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    pairs: list[Pair] = []
    while True:
        now, wake = clock(), []
        sources: dict[socket.socket, Way] = {}
        targets: dict[socket.socket, tuple[Pair, Way]] = {}
        for pair in [*pairs]:
            if pair.server is None:
                if pair.due <= now:
                    try:
                        pair.connect()
                    except OSError:
                        pair.close()
                        pairs.remove(pair)
                        continue
                else:
                    wake.append(pair.due)
            for way in pair.ways():
                if not way.ended and way.held < ON_THE_WAY:
                    sources[way.source] = way
                if way.queue and way.target is not None:
                    if way.queue[0][0] <= now:
                        targets[way.target] = (pair, way)
                    else:
                        wake.append(way.queue[0][0])
        timeout = max(0.0, min(wake) - clock()) if wake else None
        readable, writable, _ = select.select([listener, sys.stdin, *sources], [*targets], [], timeout)
        for one in readable:
            if one is sys.stdin:
                return
            if one is listener:
                pairs.append(Pair(listener.accept()[0], (host, port), round_trip_s))
            else:
                sources[one].take()
        for one in writable:
            pair, way = targets[one]
            if way.give():
                pair.left -= 1
                if not pair.left:
                    pair.close()
                    pairs.remove(pair)


@contextlib.contextmanager
def delayed(host: str, port: int, round_trip_ms: float) -> Iterator[int]:
    """The port on loopback behind which that server is so far away, until the end of the block."""
    command = [sys.executable, __file__, host, str(port), str(round_trip_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000)
