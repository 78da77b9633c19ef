"""Large files on their way out: the right bytes, however they are read; others come to their turn meanwhile."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio
from starlette.types import Message

from spraydry.actions.ingest import ingest
from spraydry.format.entry import Entry
from spraydry.repository.repository import Repository
from spraydry.web.files import sending
from spraydry.web.files.sending import Memory, Reading
from spraydry.web.guard.parts import Parts, send_pieces
from spraydry.web.served import Served

_CACHES = {"through": 4 << 20, "kept": 64 << 20}
_HOLE = bytes(3 << 20)


@pytest.fixture(scope="module")
def content() -> bytes:
    rng = random.Random(7)
    return rng.randbytes(5_000_000) + _HOLE + rng.randbytes(1000) * 2000 + rng.randbytes(3_000_001)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> str:
    folder = tmp_path_factory.mktemp("sent")
    (folder / "source").mkdir()
    (folder / "source" / "large").write_bytes(content)
    for number in range(40):
        (folder / "source" / f"small-{number}").write_bytes(random.Random(number).randbytes(20_000))
    with Repository.open(str(folder / "repository.sqlite"), create=True) as repository:
        ingest(repository, [str(folder / "source")], root="files")
    return str(folder / "repository.sqlite")


@pytest.fixture(params=_CACHES)
def repository(url: str, request: pytest.FixtureRequest) -> Iterator[Repository]:
    with Repository.open(url, cache_bytes=_CACHES[request.param]) as opened:
        yield opened


def entry_of(repository: Repository, name: str) -> Entry:
    return repository.resolve(f"files:{name}").entry


class Sent:
    """What was sent."""

    def __init__(self) -> None:
        self.bytes = bytearray()

    async def send(self, message: Message) -> None:
        body = message["body"]
        assert isinstance(body, Parts)
        assert len(body) == sum(map(len, body.pieces)) > 0
        self.bytes += b"".join(body.pieces)
        await trio.lowlevel.checkpoint()


async def _sent(served: Served, entry: Entry, start: int, stop: int, memory: Memory) -> bytes:
    sent, reading = Sent(), Reading(served, entry, start, stop, memory)
    await reading.begin()
    try:
        await reading.send_to(sent.send)
    finally:
        reading.close()
    return bytes(sent.bytes)


@pytest.mark.parametrize("how", ["here", "threads", "crowded", "changing"])
async def test_the_right_bytes(repository: Repository, content: bytes, rng: random.Random, how: str) -> None:
    served, entry = Served(repository), entry_of(repository, "large")
    memory = Memory(limit_bytes=0 if how == "crowded" else 64 << 20)
    memory.slow_until_s = float("inf") if how == "threads" else 0.0
    places = [(0, len(content)), *(sorted(rng.sample(range(len(content)), 2)) for _ in range(5))]
    got: dict[int, bytes] = {}

    async def one(number: int, start: int, stop: int) -> None:
        got[number] = await _sent(served, entry, start, stop, memory)

    async def change() -> None:
        while True:
            memory.slow_until_s = rng.choice([0.0, float("inf")])
            memory.limit_bytes = rng.choice([0, 1 << 20, 64 << 20])
            await trio.sleep(0.001)

    async with trio.open_nursery() as beside:
        if how == "changing":
            beside.start_soon(change)
        async with trio.open_nursery() as nursery:
            for number, (start, stop) in enumerate(places):
                nursery.start_soon(one, number, start, stop)
        beside.cancel_scope.cancel()
    for number, (start, stop) in enumerate(places):
        assert got[number] == content[start:stop]
    assert memory.held_bytes == memory.downloads == 0


async def test_others_run_between_two_that_are_read_here(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, entry, memory = Served(repository), entry_of(repository, "large"), Memory()
    for slow in ("_SLOW_S", "_SLOW_AMONG_S"):  # however loaded this machine is
        monkeypatch.setattr(sending, slow, float("inf"))
    turns, read_in = 0, []
    read: Callable[..., Any] = Reading._read

    def noted(reading: Reading, parts: Any) -> Any:
        read_in.append(turns)
        return read(reading, parts)

    monkeypatch.setattr(Reading, "_read", noted)

    async def another() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as beside:
        beside.start_soon(another)
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(_sent, served, entry, 0, entry.size, memory)
        beside.cancel_scope.cancel()
    assert len(read_in) >= 6 * (entry.size // sending._HERE_BYTES)
    # The loop runs the tasks that are ready in any order: another's turn may come first in one round, last in the next.
    assert max(Counter(read_in).values()) <= 2


async def test_little_of_a_frame_does_not_keep_all_of_it(repository: Repository) -> None:
    entry = entry_of(repository, "small-3")
    sent: list[Parts] = []

    async def send(message: Message) -> None:
        sent.append(message["body"])

    reading = Reading(Served(repository), entry, 0, entry.size, Memory())
    await reading.begin()
    await reading.send_to(send)
    reading.close()
    assert sum(map(len, sent)) == entry.size
    assert all(isinstance(piece, bytes) for parts in sent for piece in parts.pieces)  # no view of what it lies in


async def test_many_pieces_through_a_small_socket(rng: random.Random) -> None:
    ours, theirs = trio.socket.socketpair()
    ours.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 4096)
    pieces = [rng.randbytes(rng.choice([1, 2, 500, 9000])) for _ in range(700)]
    pieces.insert(300, rng.randbytes(1 << 20))
    got = bytearray()

    async def receive() -> None:
        while some := await theirs.recv(rng.choice([1000, 70_000])):
            got.extend(some)

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await send_pieces(trio.SocketStream(ours), [memoryview(piece) for piece in pieces])
            ours.shutdown(trio.socket.SHUT_WR)
    theirs.close()
    ours.close()
    assert bytes(got) == b"".join(pieces)
