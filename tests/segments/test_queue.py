"""The queue: against a deque, with reopening and killed writers, and as two processes share it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from spraydry.errors import StoreFull, StoreNotFound, StoreReadOnly, ValueNotFound
from spraydry.segments.queue import Queue

CHILD = """
import os, signal, sys
from spraydry.segments.queue import Queue
queue = Queue(sys.argv[1], max_file_size=300)
print(*queue.write(*(bytes.fromhex(value) for value in sys.argv[3:])), flush=True)
for index, _ in queue.pop(int(sys.argv[2])):
    print(index, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class QueueModel(RuleBasedStateMachine):
    """A queue and a deque that get the same calls."""

    values = st.lists(st.binary(max_size=60), max_size=5)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.queue = Queue(self.folder.name, max_file_size=300)
        self.model: deque[tuple[int, bytes]] = deque()
        self.next = 0

    @rule(values=values)
    def write(self, values: list[bytes]) -> None:
        assert self.queue.write(*values) == range(self.next, self.next + len(values))
        self.wrote(values)

    def wrote(self, values: list[bytes]) -> None:
        self.model.extend(enumerate(values, self.next))
        self.next += len(values)

    @rule(count=st.integers(0, 6))
    def pop(self, count: int) -> None:
        assert self.queue.pop(count) == [self.model.popleft() for _ in range(min(count, len(self.model)))]

    @rule(count=st.integers(0, 6))
    def peek(self, count: int) -> None:
        assert list(self.queue.peek(count)) == list(self.model)[:count]

    @rule()
    def read_oldest(self) -> None:
        if self.model:
            assert self.queue.read() == self.model[0][1]
        else:
            with pytest.raises(ValueNotFound):
                self.queue.read()

    @rule(back=st.integers(0, 20))
    def read_index(self, back: int) -> None:
        index = max(self.next - back, 0)
        if (value := dict(self.model).get(index)) is not None:
            assert self.queue.read(index) == value
        else:
            with pytest.raises(ValueNotFound):
                self.queue.read(index)

    @rule(back=st.lists(st.integers(0, 15), max_size=3, unique=True))
    def delete(self, back: list[int]) -> None:
        gone = {max(self.next - places, 0) for places in back}
        assert self.queue.delete(*gone) == sum(index in gone for index, _ in self.model)
        self.model = deque(pair for pair in self.model if pair[0] not in gone)

    @rule(count=st.integers(0, 4))
    def delete_oldest(self, count: int) -> None:
        assert self.queue.delete_oldest(count) == min(len(self.model), count)
        self.model = deque(list(self.model)[count:])

    @rule(back=st.none() | st.integers(0, 15))
    def prune(self, back: int | None) -> None:
        before = None if back is None else max(self.next - back, 0)
        kept = [] if before is None else [pair for pair in self.model if pair[0] >= before]
        assert self.queue.prune(before) == len(self.model) - len(kept)
        self.model = deque(kept)

    @rule()
    def reopen(self) -> None:
        self.queue.close()
        self.queue = Queue(self.folder.name)  # its limits are kept

    @precondition(lambda self: self.next < 60)
    @rule(values=values, count=st.integers(0, 3), close=st.booleans())
    def killed_child(self, values: list[bytes], count: int, close: bool) -> None:
        """Another process writes, pops, and is killed; this one sees what it did, with or without reopening."""
        if close:
            self.queue.close()
        words = [self.folder.name, str(count), *(value.hex() for value in values)]
        done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        start = self.next
        self.wrote(values)
        popped = [self.model.popleft()[0] for _ in range(min(count, len(self.model)))]
        assert [int(word) for word in done.stdout.split()] == [*range(start, start + len(values)), *popped]
        if close:
            self.queue = Queue(self.folder.name, max_file_size=300)

    @invariant()
    def same(self) -> None:
        assert list(self.queue.indexes()) == [index for index, _ in self.model]
        assert len(self.queue) == len(self.model) and bool(self.queue) == bool(self.model)
        assert self.queue.size_bytes == sum(len(value) for _, value in self.model)

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()


def test_behaves_like_a_deque() -> None:
    run_state_machine_as_test(QueueModel, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


def test_files_go(tmp_path: Path) -> None:
    """Memory and disk hold what is in the queue, whatever went through it."""
    with Queue(str(tmp_path), max_file_size=2000) as queue:
        for turn in range(30):
            queue.write(*(b"x" * 90 for _ in range(20)))
            assert [index for index, _ in queue.pop(20)] == list(range(turn * 20, turn * 20 + 20))
        names = os.listdir(tmp_path)
        assert len([name for name in names if name.endswith(".data")]) <= 3, names
        assert sum((tmp_path / name).stat().st_size for name in names if name != "reserve") < 30_000


def test_indexes_are_never_used_again(tmp_path: Path) -> None:
    """Not even when no file is left that knew the newest."""
    with Queue(str(tmp_path), max_file_size=300) as queue:
        for _ in range(40):  # one by one: those of one call lie together in one file
            queue.write(b"x" * 50)
        for index in (*range(39, 24, -1), *range(20), *range(21, 25)):  # those beside 20 late: they keep their marks
            queue.delete(index)
        for _ in range(3):
            queue.prune(before=0)  # frees files only: first those of the values, then those of the marks
    for path in [*tmp_path.glob("*.index"), *tmp_path.glob("*.merged")]:
        path.unlink()  # made again from the data
    with Queue(str(tmp_path), max_file_size=300) as queue:
        assert list(queue.indexes()) == [20]
        assert queue.write(b"new") == range(40, 41)


def test_full_queues_drop_nothing(tmp_path: Path) -> None:
    with Queue(str(tmp_path), max_file_size=1000, max_files=3) as queue:
        written = 0
        with pytest.raises(StoreFull) as caught:
            for written in range(100):
                queue.write(b"%d" % written * 40)
        assert "\n" not in str(caught.value) and 15 < written < 100
        assert [value for _, value in queue.peek(100)] == [b"%d" % number * 40 for number in range(written)]
    with Queue(str(tmp_path)) as queue:  # the limits are kept with it
        with pytest.raises(StoreFull):
            queue.write(b"x" * 500)
        for _ in range(written // 2):  # which takes room itself, where there is none
            queue.pop()
        queue.write(b"again")
        assert len(queue) == written - written // 2 + 1


def test_what_is_no_value_is_refused_whole(tmp_path: Path) -> None:
    """Deleting nothing deletes nothing; of values of which one is none, none is written."""
    with Queue(str(tmp_path)) as queue:
        values: list[Any] = [b"a", "text"]
        for wrong in (values, [values]):
            with pytest.raises(TypeError, match="bytes-like"):
                queue.write(*wrong)
        assert queue.write() == range(0) and queue.write(bytearray(b"b"), memoryview(b"cd")) == range(2)
        assert queue.delete(*[]) == queue.delete(7) == 0 and len(queue) == 2 and queue.size_bytes == 3


def test_two_consumers_get_each_value_once(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom spraydry.segments.queue import Queue\nqueue = Queue(sys.argv[1], max_file_size=2000)\n"
        "while got := queue.pop(3):\n    print(*(index for index, _ in got), flush=True)"
    )
    with Queue(str(tmp_path), max_file_size=2000) as queue:
        queue.write(*(b"%d" % number for number in range(200)))
        consumers = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        taken = [list(map(int, consumer.communicate()[0].split())) for consumer in consumers]
        assert sorted(index for indexes in taken for index in indexes) == list(range(200))
        assert all(indexes == sorted(indexes) for indexes in taken)
        assert not queue and len(queue) == 0


def test_two_producers_take_turns(tmp_path: Path) -> None:
    """Neither looks at the queue in between: what it knows of the next index is of before the other wrote."""
    with Queue(str(tmp_path), max_file_size=2000) as one, Queue(str(tmp_path)) as two:
        for turn in range(100):
            assert one.write(b"one") == range(3 * turn, 3 * turn + 1)
            assert two.write(b"two", b"") == range(3 * turn + 1, 3 * turn + 3)
        assert [value for _, value in one.peek(300)] == [b"one", b"two", b""] * 100


def test_reading_only(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        Queue(str(tmp_path / "q"), read_only=True)
    with Queue(str(tmp_path / "q")) as queue, Queue(str(tmp_path / "q"), read_only=True) as reader:
        queue.write(b"a", b"b")
        assert (len(reader), reader.read(), reader.read(1)) == (2, b"a", b"b")
        asks: list[Any] = [lambda: reader.write(b"c"), reader.pop, reader.delete_oldest, reader.prune]
        for ask in asks:
            with pytest.raises(StoreReadOnly):
                ask()
        with pytest.raises(ValueError, match="not an index"):
            queue.read(-1)
