"""A set of segments in one folder: keys to values, by appending only. Layout: FORMAT.md."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from spraydry.errors import CorruptData, StoreError, StoreFull, StoreNotFound, StoreReadOnly
from spraydry.format.digest import Buffer
from spraydry.segments.data import make_data_file
from spraydry.segments.files import File, make_reserve, sync_folder, translated, unlock
from spraydry.segments.head import OWN_NAME, RESERVE_BYTES, RESERVE_NAME, UNKNOWN, Head, check_limits
from spraydry.segments.layout import MARK, MAX_KEY_BYTES, RECORD, VALUE, Damaged, Row, check_of, row_of
from spraydry.segments.merge import merged_rows
from spraydry.segments.sealed import Sealed
from spraydry.segments.tail import Tail, Write

R = TypeVar("R")

_GROUP_BYTES = 64 << 10  # small values are appended by so many bytes at once
_TAIL_ROWS = 8192  # what bounds the index in memory: a segment is sealed when it has as many
_OPEN_FILES = 64
_WORTH_SEALING_BYTES = 1 << 20
_LAST_NUMBER = 99_999_999


class Segments:
    """A map from keys (1 to MAX_KEY_BYTES bytes, the last not NUL) to values, in append-only files.

    All methods block; threads may share it, processes may each open the same folder (after any fork), and see what the
    others commit. Memory is bounded: the rows of the open segment, and of all others one key in 64. What was written is
    durable when the outermost `writing()` ends. Errors: StoreError and its subclasses, CorruptData.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = False,
        read_only: bool = False,
        max_file_size: int | None = None,
        max_files: int | None = None,
    ) -> None:
        """Open the segments in the folder `path`; with `create` an absent folder is made.

        `max_file_size` (bytes of a data file; a longer value gets one of its own) and `max_files` (data files; 0: any
        number) are kept with the segments: what is given here replaces what was. Raises StoreNotFound, UsageError.
        """
        check_limits(max_file_size, max_files)
        self.path = os.path.realpath(path)
        self.foreign = 0  # rises when something may have come from elsewhere
        # The first is held while writing, the second for moments; whoever wants both takes them in this order.
        self._writing = threading.RLock()
        self._state = threading.RLock()
        self._depth = 0
        self._lock: File | None = None
        self._closed = False
        self._reclaiming = False
        self._tail: Tail | None = None
        self._files: OrderedDict[int, File] = OrderedDict()
        self._alive: dict[int, bytes] = {}
        self._killed_bytes: dict[int, int] = {}
        with translated(self.path):
            self._head = Head(self.path, create, read_only)
            self.read_only = self._head.read_only
            self.max_file_size, self.max_files = self._head.limits(max_file_size, max_files)
            self._sealed = Sealed(self.path)
            with self._locked():
                self._make_reserve()

    # -- reading

    def find(self, key: bytes) -> Row | None:
        """Where the value of `key` is; None if there is none."""
        with translated(self.path):
            self._refresh()
            row = self._trusting(lambda: self._newest(key))
        return None if row is None or row.kind == MARK else row

    def read(self, key: bytes, row: Row, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (default: all) from byte `start` of the value `row` tells of; a whole value is checked.

        Raises CorruptData, and StoreNotFound when its segment has gone since `find`.
        """
        stop = row.length if length is None else min(start + length, row.length)
        with translated(self.path):
            value = self._file(row.segment).read(stop - start, row.offset + start) if start < stop else b""
        if len(value) != max(stop - start, 0) or (len(value) == row.length and check_of(value) != row.check):
            raise CorruptData(f"{self.path}: the value {_shown(key)} in segment {row.segment} is damaged")
        return value

    def get(self, key: bytes, start: int = 0, length: int | None = None) -> bytes | None:
        """As `read`; below 0, `start` counts from the end. None if there is no such value."""
        while (row := self.find(key)) is not None:
            try:
                return self.read(key, row, max(start + row.length, 0) if start < 0 else start, length)
            except StoreNotFound:
                with self._locked():  # perhaps another process moved it
                    now = self.find(key)
                if now == row:
                    message = f"{self.path}: the data of segment {row.segment}, which holds {_shown(key)}, are missing"
                    raise CorruptData(message) from None
        return None

    def rows(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, Row]]:
        """The keys that begin with `prefix` and are greater than `after`, in order, as they are when asked for."""
        after = max(after, prefix)
        while True:
            with translated(self.path):
                self._refresh()
                with self._state:
                    tail, view = self._tail, self._sealed.view
                    keys = tail.keys(prefix, after) if tail else []
                sources = view.sources(after)
                if tail is not None and keys:
                    sources.insert(0, zip(keys, map(tail.entries.__getitem__, keys), strict=True))
            try:
                for key, packed in merged_rows(sources):
                    if not key.startswith(prefix):
                        return
                    after = key
                    row = row_of(packed)
                    if row.kind == VALUE and self._sealed.view.has(row.segment):
                        yield key, row
                return
            except Damaged:
                self._repair()

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix` and was ever there; deleted ones are forgotten in time."""

        def greatest() -> bytes | None:
            with self._state:
                in_tail = self._tail.keys(prefix)[-1:] if self._tail else []
                view = self._sealed.view
            return max([*in_tail, view.last(prefix) or b""]) or None

        with translated(self.path):
            self._refresh()
            return self._trusting(greatest)

    # -- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, nested or not: of all threads and processes one has it. What was written is durable, and
        seen by others, at the end of the outermost; an exception takes nothing back that was appended before it."""
        with translated(self.path), self._locked():
            if self.read_only:
                raise StoreReadOnly(f"{self.path} was opened for reading only, or cannot be written")
            yield

    def put(self, *values: tuple[bytes, Buffer]) -> None:
        """Append values, replacing those of the same keys: together or not at all."""
        with self.writing():
            self._append([(VALUE, key, value) for key, value in values])

    def put_many(self, values: Iterable[tuple[bytes, Buffer]]) -> None:
        """Append values, replacing those of the same keys, all durable at the end; after an error any may be there."""
        with self.writing():
            group: list[tuple[int, bytes, Buffer]] = []
            room = most = min(_GROUP_BYTES, self.max_file_size // 8)
            for key, value in values:
                held = value if isinstance(value, bytes) else bytes(value)  # buffers may be used again meanwhile
                group.append((VALUE, key, held))
                room -= len(held) + RECORD.size + len(key)
                if room < 0:
                    self._append(group)
                    group, room = [], most
            self._append(group)

    def create(self, key: bytes, value: Buffer) -> bool:
        """Append a value unless the key is taken; False if it is."""
        with self.writing():
            if self.find(key) is not None:
                return False
            self._append([(VALUE, key, value)])
            return True

    def delete(self, keys: Iterable[bytes]) -> int:
        """Mark values as deleted; how many there were. Works on a full disk, too."""
        count = 0
        with self.writing():
            self._release_reserve()
            for key in keys:
                if self.find(key) is not None:
                    self._append([(MARK, key, b"")])
                    count += 1
        return count

    def move(self, key: bytes, to: bytes) -> bool:
        """Give a value another key, at once; False if there is none."""
        with self.writing():
            value = self.get(key)
            if value is None:
                return False
            if key != to:
                self._append([(VALUE, to, value), (MARK, key, b"")])
            return True

    def drop_dead(self) -> None:
        """Remove segments in which nothing lives any more."""
        with self.writing():
            self._commit()
            self._drop_dead()

    def reclaim(self) -> None:
        """Do that, and copy what lives out of those segments of which this process deleted more than half: at most as
        much as one segment may hold."""
        with self.writing():
            tail = self._tail
            if (
                tail is not None
                and self._is_half_dead(tail.number)
                and tail.end > min(_WORTH_SEALING_BYTES, self.max_file_size // 4)
            ):
                self._seal(tail)
                self._begin()
            self._drop_dead()
            most = self.max_file_size
            self._reclaiming = True
            try:
                for number in [number for number in self._closed_numbers() if self._is_half_dead(number)]:
                    size = self._file(number).size() - self._killed_bytes[number]
                    if size <= most and self._room() > 2 * size:
                        self._trusting(lambda number=number: self._copy_living(number))  # type: ignore[misc]
                        most -= size
            finally:
                self._reclaiming = False
            self._commit()
            self._drop_dead()
            self._make_reserve()

    def close(self) -> None:
        """Let go of everything; may be called again."""
        with self._writing, self._state:
            self._closed = True
            self._tail = None
            self._files.clear()
            self._sealed = Sealed(self.path)

    def destroy(self) -> None:
        """Remove all segments and, when nothing else is in it, the folder."""
        with self.writing(), self._state:
            with self._head.changing():
                for name in os.listdir(self.path):
                    if OWN_NAME.fullmatch(name) and name != os.path.basename(self._head.path):
                        os.unlink(os.path.join(self.path, name))
            os.unlink(self._head.path)
            try:
                os.rmdir(self.path)
            except OSError:
                pass  # something else lies there
            self.close()

    # -- appending, with the right to write

    def _append(self, writes: Sequence[tuple[int, bytes, Buffer]]) -> None:
        if not writes:
            return
        parts = []
        size = 0
        for kind, key, value in writes:
            if not 0 < len(key) <= MAX_KEY_BYTES or key.endswith(b"\0"):
                raise ValueError(f"not a key: {key!r}")
            flat = value.cast("B") if isinstance(value, memoryview) else value
            row = self._trusting(lambda key=key: self._newest(key))  # type: ignore[misc]
            parts.append((kind, key, flat, row))
            size += RECORD.size + len(key) + len(flat)
        tail = self._tail_for(size, only_marks=all(kind == MARK for kind, _, _ in writes))
        new = [Write(kind, row.first if row else tail.number, key, flat) for kind, key, flat, row in parts]
        with self._state:
            tail.append(new)
        for kind, key, _, row in parts:
            if row is not None:
                self._killed(row.segment, RECORD.size + len(key) + row.length)
            if kind == MARK:
                self._killed(tail.number, RECORD.size + len(key))

    def _tail_for(self, size: int, *, only_marks: bool) -> Tail:
        """The open segment, with room for `size` more bytes."""
        tail = self._tail
        if tail is not None and (not tail.entries or self._fits(tail, size)):
            return tail
        if self._is_full():
            self._commit()
            self._drop_dead()
            tail = self._tail
            if self._is_full():
                if only_marks and tail is not None:
                    return tail  # what frees space works where no room is left
                most = f"{self.max_files} files of {self.max_file_size} bytes"
                raise StoreFull(f"{self.path} holds {most}, as many as it may: delete something or raise max_files")
        if tail is not None:
            self._seal(tail)
        return self._begin()

    def _fits(self, tail: Tail, size: int) -> bool:
        return tail.end + size <= self.max_file_size and len(tail.entries) < _TAIL_ROWS

    def _is_full(self) -> bool:
        # What lives in segments that are to go needs a place for so long.
        return 0 < self.max_files <= len(self._sealed.view.numbers) - self._reclaiming

    def _begin(self) -> Tail:
        """A new open segment."""
        number = max(self._sealed.view.numbers, default=0) + 1
        if number > _LAST_NUMBER:
            raise StoreFull(f"{self.path} has used up the numbers of its segments: copy it to a new place")
        with self._head.changing():
            make_data_file(self._sealed.data_path(number), number)
            tail = self._open_tail(number)
            tail.recover(False)
            sync_folder(self.path)
            with self._state:
                self._tail = tail
                self._sealed.add_number(number)
        return tail

    def _seal(self, tail: Tail) -> None:
        self._commit()
        with self._head.changing():
            view = self._sealed.sealed(tail.number, tail.rows(), max(map(len, tail.entries), default=1))
            with self._state:
                self._tail = None
                self._sealed.view = view

    def _commit(self) -> None:
        if (tail := self._tail) is not None:
            try:
                tail.sync()
                with self._state:
                    tail.publish()
            except BaseException:
                with self._state:
                    self._head.generation = UNKNOWN  # look again: what stands in memory is not on disk
                    tail.roll_back()
                raise

    # -- freeing, with the right to write

    def _drop_dead(self) -> None:
        for number in self._closed_numbers():
            if self._trusting(lambda number=number: next(self._living(number), None)) is None:  # type: ignore[misc]
                with self._head.changing(), self._state:
                    self._sealed.drop(number)
                    self._files.pop(number, None)
                    self._alive.pop(number, None)
                    self._killed_bytes.pop(number, None)

    def _closed_numbers(self) -> tuple[int, ...]:
        """All but the newest, which stays so that no number is used twice."""
        return self._sealed.view.numbers[:-1]

    def _living(self, number: int) -> Iterator[tuple[bytes, Row]]:
        """The records of a sealed segment which are the newest of their keys and say anything."""
        known = self._alive.get(number)  # the key that lived last time tells most often all that is asked
        if known is not None:
            row = self._newest(known)
            if row is not None and row.segment == number and self._sealed.view.counts(row):
                yield known, row
        for key, packed in self._sealed.records_of(number):
            row = row_of(packed)
            if key != known and self._newest(key) == row and self._sealed.view.counts(row):
                self._alive[number] = key
                yield key, row

    def _copy_living(self, number: int) -> None:
        for key, row in self._living(number):
            try:
                value = self.read(key, row) if row.kind == VALUE else b""
            except CorruptData:
                continue  # it stays where it is, and so does its segment
            self._append([(row.kind, key, value)])

    def _killed(self, number: int, size: int) -> None:
        self._killed_bytes[number] = self._killed_bytes.get(number, 0) + size

    def _is_half_dead(self, number: int) -> bool:
        killed = self._killed_bytes.get(number, 0)
        return killed > 0 and 2 * killed > self._file(number).size()

    def _room(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def _make_reserve(self) -> None:
        """Keep some room, so that marks of deletion can be written when the disk is full."""
        if not self.read_only and self._room() > 4 * RESERVE_BYTES:
            make_reserve(os.path.join(self.path, RESERVE_NAME), RESERVE_BYTES)

    def _release_reserve(self) -> None:
        if self._room() < RESERVE_BYTES:
            try:
                os.unlink(os.path.join(self.path, RESERVE_NAME))
            except FileNotFoundError:
                pass  # it was released before

    # -- looking up

    def _newest(self, key: bytes) -> Row | None:
        with self._state:
            self._usable()
            if self._tail is not None and (fixed := self._tail.entries.get(key)) is not None:
                return row_of(fixed)
            view = self._sealed.view
        return view.newest(key)

    def _trusting(self, ask: Callable[[], R]) -> R:
        """What `ask` returns, after the indexes it found damaged were made again."""
        while True:
            try:
                return ask()
            except Damaged:
                self._repair()

    def _repair(self) -> None:
        with translated(self.path), self._locked(), self._state:
            self._commit()
            self._reload()

    def _file(self, number: int) -> File:
        with self._state:
            file = self._files.get(number)
            if file is None:
                file = self._files[number] = File(self._sealed.data_path(number))
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(number)
            return file

    # -- seeing what others do

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of threads and processes, shared for who only reads, and a view of all there is."""
        with self._writing:
            if self._depth == 0:
                self._usable()
                self._lock = self._head.lock()
            self._depth += 1
            try:
                if self._depth == 1:
                    self._catch_up()
                yield
            finally:
                try:
                    if self._depth == 1 and not self.read_only:
                        self._commit()
                finally:
                    self._depth -= 1
                    if self._depth == 0 and self._lock is not None:
                        unlock(self._lock)
                        self._lock = None

    def _catch_up(self) -> None:
        with self._state:
            self._head.settle()
            if self._head.now() != self._head.generation:
                self._reload()
            elif self._tail is not None and self._tail.recover(self.read_only):
                self.foreign += 1

    def _refresh(self) -> None:
        """See what others committed."""
        with self._state:
            self._usable()
            if self._head.is_current():
                if self._depth == 0 and self._tail is not None and self._tail.load():
                    self.foreign += 1
                return
        with self._locked():
            pass

    def _reload(self) -> None:
        self.foreign += 1
        self._files.clear()
        self._tail = None
        generation = self._head.now()
        number = self._sealed.load(self.read_only)
        if number is not None:
            self._tail = self._open_tail(number)
            self._tail.recover(self.read_only)
        self._head.generation = generation if self._tail is None or self._tail.index_sound else UNKNOWN

    def _open_tail(self, number: int) -> Tail:
        flags = os.O_RDONLY if self.read_only else os.O_RDWR
        path = self._sealed.index_path(number, number)
        if self.read_only and not os.path.exists(path):
            path = os.devnull  # which is as good as an empty one
        index = File(path, flags | (0 if self.read_only else os.O_CREAT))
        return Tail(number, File(self._sealed.data_path(number), flags), index)

    def _usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} was closed")


def _shown(key: bytes) -> str:
    return key.replace(b"\0", b"/").decode("ascii", "backslashreplace")
