"""A durable first in, first out queue on segment files, usable by itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType

from spraydry.errors import ValueNotFound
from spraydry.format.digest import Buffer
from spraydry.segments.head import HEAD_NAME
from spraydry.segments.layout import Row
from spraydry.segments.segments import Segments

_VALUES = b"queue\0"
_NEXT = b"next\0index"  # kept when the newest index is deleted, so that none is used twice
_DIGITS = 16
_FILE_BYTES = 64 << 20
_DELETED_AT_ONCE = 256


class Queue:
    """Values in the order in which they were written, each under an index that rises by one and is never used again.

    All methods block; threads may share a queue, and processes may each open the same folder (after any fork): of those
    that `pop` at once each gets other values. What a method wrote is durable when it returns, and survives kill -9.
    Memory is bounded, whatever the number of values. Files go when all that is in them was deleted. Raises StoreError
    and its subclasses, and CorruptData for a damaged value, which can be deleted by its index.

        with Queue("jobs") as queue:
            queue.write(b"one", b"two", b"three")
            queue.read()  # b"one", which stays
            for index, value in queue.peek(2):  # (0, b"one"), (1, b"two")
                queue.delete(index)
            queue.pop()  # [(2, b"three")]
    """

    def __init__(
        self, path: str, *, max_file_size: int | None = None, max_files: int | None = None, read_only: bool = False
    ) -> None:
        """The queue in the folder `path`, which is made if it is absent.

        With `max_files` (a new queue's: 0, any number) at most so many files of `max_file_size` bytes (a new queue's:
        64 MiB) are kept; beyond that, and on a full disk, `write` raises StoreFull: nothing is ever dropped silently.
        Both are kept with the queue, until they are given again.
        """
        if max_file_size is None and not os.path.exists(os.path.join(path, HEAD_NAME)):
            max_file_size = _FILE_BYTES
        self._segments = Segments(
            path, create=not read_only, read_only=read_only, max_file_size=max_file_size, max_files=max_files
        )
        self._head = b""  # nothing at or before this key is in the queue any more
        self._next: tuple[int, int] | None = None
        self._deleted_in = 0
        self._lock = threading.RLock()  # taken before that of the segments

    def write(self, *values: Buffer) -> range:
        """Put values behind all others, together (in one file) or not at all; the indexes they got."""
        with self._lock, self._segments.writing():
            start = self._next_index()
            self._segments.put(*((_key(start + place), value) for place, value in enumerate(values)))
            self._next = self._segments.foreign, start + len(values)
        return range(start, start + len(values))

    def read(self, index: int | None = None) -> bytes:
        """The value of an index, or the oldest. Raises ValueNotFound, and for an empty queue, too."""
        if index is None:
            for _, value in self.peek(1):
                return value
            raise ValueNotFound("the queue is empty")
        found = self._segments.get(_key(index))
        if found is None:
            raise ValueNotFound(f"the queue holds nothing at index {index}")
        return found

    def peek(self, count: int = 1, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """Up to `count` of the oldest indexes greater than `after`, with their values, lazily."""
        for index in self.indexes(after):
            if count <= 0:
                return
            value = self._segments.get(_key(index))
            if value is not None:  # else another reader was faster
                count -= 1
                yield index, value

    def pop(self, count: int = 1) -> list[tuple[int, bytes]]:
        """Take up to `count` of the oldest values out: no other reader gets these. They are gone when this returns, so
        whoever must not lose what he works at takes `peek`, and `delete` afterwards."""
        with self._lock, self._segments.writing():
            taken = list(self.peek(count))
            self._delete(index for index, _ in taken)
        return taken

    def delete(self, *indexes: int) -> int:
        """Delete the values of these indexes; how many there were."""
        with self._lock, self._segments.writing():
            return self._delete(indexes)

    def delete_oldest(self, count: int = 1) -> int:
        """Delete up to `count` of the oldest values, without reading them; how many there were."""
        with self._lock, self._segments.writing():
            return self._delete(islice(self.indexes(), max(count, 0)))

    def prune(self, before: int | None = None) -> int:
        """Delete all values, or those of indexes smaller than `before`, and free their files; how many they were."""
        with self._lock, self._segments.writing():
            stop = self._next_index() if before is None else before
            count = self._delete(index for index in self.indexes() if index < stop)
            self._segments.drop_dead()
        return count

    def indexes(self, after: int = -1) -> Iterator[int]:
        """The indexes greater than `after` that are in the queue, oldest first, lazily."""
        return (index for index, _ in self._rows(after))

    def __len__(self) -> int:
        """The number of values: known, or counted once after a process that wrote was killed."""
        return self._totals()[0]

    def __bool__(self) -> bool:
        return next(self.indexes(), None) is not None

    @property
    def size_bytes(self) -> int:
        """The length of all values together."""
        return self._totals()[1]

    def close(self) -> None:
        """Let go of everything; may be called again."""
        self._segments.close()

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, after: int = -1) -> Iterator[tuple[int, Row]]:
        head, oldest = self._head, after < 0
        start = max(head, _key(after)) if after >= 0 else head
        for key, row in self._segments.rows(_VALUES, start):
            index = int(key[len(_VALUES) :], 16)
            if oldest:
                oldest = False
                self._head = max(self._head, _key(index - 1) if index else b"")
            yield index, row

    def _delete(self, indexes: Iterable[int]) -> int:
        count = 0
        newest = self._next_index() - 1
        left = iter(indexes)
        while some := list(islice(left, _DELETED_AT_ONCE)):
            rows = {index: row for index in some if (row := self._segments.find(_key(index))) is not None}
            if not rows:
                continue
            if newest in rows:
                self._segments.put((_NEXT, b"%d" % (newest + 1)))
            count += self._segments.delete(map(_key, rows))
            segments = {row.segment for row in rows.values()}
            if segments != {self._deleted_in} or newest in rows:  # those before are perhaps free of values now
                self._deleted_in = max(segments)
                self._segments.drop_dead()
        return count

    def _next_index(self) -> int:
        foreign = self._segments.foreign
        if self._next is None or self._next[0] != foreign:
            last = self._segments.last(_VALUES)
            after = 0 if last is None else int(last[len(_VALUES) :], 16) + 1
            self._next = foreign, max(after, int(self._segments.get(_NEXT) or b"0"))
        return self._next[1]

    def _totals(self) -> tuple[int, int]:
        while True:
            before = self._segments.foreign
            kept = self._segments.find(_NEXT)
            values, size = self._segments.totals()
            if self._segments.foreign == before:  # else another process wrote in between
                return (values, size) if kept is None else (values - 1, size - kept.length)


def _key(index: int) -> bytes:
    if not 0 <= index < 1 << 4 * _DIGITS:
        raise ValueError(f"not an index: {index}")
    return _VALUES + b"%0*x" % (_DIGITS, index)
