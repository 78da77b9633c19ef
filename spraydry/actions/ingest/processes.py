"""Reading small files in processes of their own: what these cost is Python, at which threads take turns.

Processes get batches of files and give entries and chunk names; bytes lie in memory that is shared, from which only
chunks that are new are ever copied. A file that is not exactly as it was scanned, or that cannot be read, they leave to
the caller. They hold no repository, and end when the caller does.
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import msgspec

from spraydry.actions.ingest.content import BATCH_BYTES, BATCH_FILES, SMALL_BYTES, Chunk, Hashed, Read, Reader, Window
from spraydry.actions.ingest.nodes import Work
from spraydry.format.chunker import parse_spec
from spraydry.format.classes import TREE

PROCESS_BYTES = 32 << 20  # of memory for each: the interpreter and what is shared with it, measured
_FROM_FILES = 2000  # below that starting them takes longer than they spare
SLOTS = 4  # batches that wait for or are with one process, while the caller is busy storing
_DATA_BYTES = BATCH_BYTES + BATCH_FILES  # each file is asked for one byte more than it has
_TEXT_BYTES = 512 << 10
_SLOT_BYTES = -(-(_DATA_BYTES + _TEXT_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
_SIGNAL = struct.Struct("<II")  # slot; bytes of the request or answer in it, 0: there is no answer

_START = "from spraydry.actions.ingest.processes import serve; serve()"


class _Found(NamedTuple):
    """Of one file: its entry, where its bytes begin, their number, its chunks (name, offset, length), its pages."""

    entry: bytes
    at: int
    size: int
    pieces: list[tuple[bytes, int, int]]
    pages: list[tuple[bytes, bytes]]


_encoder = msgspec.msgpack.Encoder()
_works = msgspec.msgpack.Decoder(list[Work])
_answers = msgspec.msgpack.Decoder(list[_Found | None])


class _Process:
    """One process, the memory shared with it, and the slots of that which are free."""

    def __init__(self, sources: Sequence[int], spec: str) -> None:
        memory = os.memfd_create("spraydry")
        try:
            os.ftruncate(memory, SLOTS * _SLOT_BYTES)
            self.memory = memoryview(mmap.mmap(memory, SLOTS * _SLOT_BYTES))
            words = [spec, str(memory), *map(str, sources)]
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=[memory, *sources],
                process_group=0,  # Ctrl-C is for the caller
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        finally:
            os.close(memory)
        self.free = deque(range(SLOTS))

    def send(self, slot: int, request: bytes) -> None:
        at = slot * _SLOT_BYTES + _DATA_BYTES
        self.memory[at : at + len(request)] = request
        assert self._process.stdin is not None
        self._process.stdin.write(_SIGNAL.pack(slot, len(request)))

    def receive(self) -> bytes:
        """The oldest answer that was not received yet; empty where there is none."""
        assert self._process.stdout is not None
        signal = self._process.stdout.read(_SIGNAL.size)
        if len(signal) < _SIGNAL.size:
            return b""
        slot, length = _SIGNAL.unpack(signal)
        at = slot * _SLOT_BYTES + _DATA_BYTES
        return bytes(self.memory[at : at + length])

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        self._process.wait()


class _Sent:
    """A batch that is with a process. Its bytes may be used until the next result is asked for."""

    def __init__(self, processes: Processes, process: _Process, slot: int, batch: list[Work]) -> None:
        self._processes = processes
        self._process = process
        self._slot = slot
        self._batch = batch

    def result(self) -> list[Read]:
        answer = self._process.receive()
        self._processes.took(self._process, self._slot)
        reader = self._processes.reader
        if not answer:
            return [reader.read(work) for work in self._batch]
        base = self._process.memory[self._slot * _SLOT_BYTES :]
        reads = []
        for work, found in zip(self._batch, _answers.decode(answer), strict=True):
            if found is None:
                reads.append(reader.read(work))
                continue
            plain = base[found.at : found.at + found.size]
            chunks = [Chunk(work.frame_class, name, plain[at : at + length]) for name, at, length in found.pieces]
            chunks += [Chunk(TREE, name, page) for name, page in found.pages]
            reads.append(Read(work, found.entry, found.size, chunks, None))
        return reads


class Processes:
    """Some processes, for the thread that made them. Where they cannot be had, or end, the caller reads by itself."""

    def __init__(self, reader: Reader, sources: Sequence[int], spec: str, most: int) -> None:
        """There are to be at most `most`."""
        self.reader = reader
        self._sources, self._spec, self._most = sources, spec, most
        self._all: list[_Process] = []
        self._turn: deque[_Process] = deque()
        self._given_back: tuple[_Process, int] | None = None

    @property
    def count(self) -> int:
        """How many were started."""
        return len(self._all)

    @property
    def slots(self) -> int:
        """The batches that may be with them; one more is being used by who took the last result."""
        return SLOTS * self.count - 1

    def start(self, files: int) -> None:
        """Start them, once there are so many files to read that it pays; the scan calls this as it finds them, so that
        they are there when it ends."""
        if self._all or files < _FROM_FILES:
            return
        with suppress(OSError, AttributeError):  # no shared memory, no more processes
            for _ in range(self._most):
                self._all.append(_Process(self._sources, self._spec))
        self._turn.extend(self._all)
        if not self._all:
            self._most = 0

    def submit(self, task: list[Work] | Window) -> _Sent | None:
        """Give a batch of small files to a process; None where that cannot be."""
        if isinstance(task, Window) or task[0].size > SMALL_BYTES or not self._turn or not self._turn[0].free:
            return None
        request = _encoder.encode(task)
        if len(request) > _TEXT_BYTES:
            return None
        process = self._turn[0]
        try:
            process.send(slot := process.free.popleft(), request)
        except OSError:
            self._turn.remove(process)
            return None
        self._turn.rotate(-1)
        return _Sent(self, process, slot, task)

    def took(self, process: _Process, slot: int) -> None:
        """The result in a slot was asked for: what was before it has been used by now."""
        if self._given_back is not None:
            before, freed = self._given_back
            before.free.append(freed)
        self._given_back = process, slot

    def close(self) -> None:
        """End them."""
        for process in self._all:
            process.close()


def read_all(
    reader: Reader, works: Iterable[Work], processes: Processes, threads: int, ahead: int
) -> Iterator[list[Read] | Hashed]:
    """What became of all works, in their order by and large: small files by processes, others by `threads`.

    At most `ahead` batches and windows of larger files are held at a time, and what fits the processes' slots. The
    bytes of a result may be used until the next one is asked for.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="spraydry") as pool:
        waiting: deque[_Sent | Future[list[Read] | Hashed]] = deque()
        held = 0
        try:
            for task in reader.tasks(works):
                sent = processes.submit(task)
                waiting.append(sent or pool.submit(reader.run, task))
                held += sent is None
                while held >= ahead or len(waiting) > max(ahead, processes.slots):
                    held -= isinstance(waiting[0], Future)
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                if isinstance(one, Future):
                    one.cancel()


def serve() -> None:
    """What such a process does until its input ends; argv: spec, shared memory, sources."""
    spec, shared, *sources = sys.argv[1:]
    reader = Reader(list(map(int, sources)), parse_spec(spec))
    memory = memoryview(mmap.mmap(int(shared), SLOTS * _SLOT_BYTES))
    while signal := os.read(0, _SIGNAL.size):
        slot, length = _SIGNAL.unpack(signal)
        data = memory[slot * _SLOT_BYTES : slot * _SLOT_BYTES + _DATA_BYTES]
        text = memory[slot * _SLOT_BYTES + _DATA_BYTES : (slot + 1) * _SLOT_BYTES]
        at = 0
        answers: list[_Found | None] = []
        for work in _works.decode(bytes(text[:length])):
            found = reader.read_into(work, data[at:])
            if found is None:
                answers.append(None)
            else:
                answers.append(
                    _Found(
                        found.entry,
                        at,
                        found.size,
                        found.pieces,
                        [(page.name, bytes(page.plain)) for page in found.pages],
                    )
                )
                at += found.size
        answer = _encoder.encode(answers)
        if len(answer) <= len(text):
            text[: len(answer)] = answer
            os.write(1, _SIGNAL.pack(slot, len(answer)))
        else:
            os.write(1, _SIGNAL.pack(slot, 0))
