"""A set of segments in one folder: keys to values, by appending only. Layout: FORMAT.md."""

from __future__ import annotations

import os
import re
import threading
from binascii import crc32
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    NotARepository,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
)
from spraydry.format.digest import Buffer
from spraydry.segments.data import make_data_file, scan, sync_mark
from spraydry.segments.files import File, lock, sync_folder, translated
from spraydry.segments.index import SortedIndex, write_sorted
from spraydry.segments.layout import (
    FORMAT,
    GENERATION,
    GENERATION_AT,
    HEAD,
    HEAD_MAGIC,
    MARK,
    MAX_KEY_BYTES,
    RECORD,
    VALUE,
    Damaged,
    Row,
    check_of,
    row_of,
)
from spraydry.segments.merge import merged_rows
from spraydry.segments.tail import Tail, Write

R = TypeVar("R")

DEFAULT_FILE_BYTES = 1 << 30
_TAIL_ROWS = 16384  # what bounds the index in memory: a segment is sealed when it has as many
_OPEN_FILES = 64
_WORTH_SEALING_BYTES = 1 << 20
_MERGE_RATIO = 4  # a sorted index is merged with the one before unless that is so many times larger
_HEAD = "segments"
_NAME = re.compile(r"([0-9]{8})\.(data|index)|([0-9]{8})-([0-9]{8})\.merged|segments|.*\.tmp")
_MAX_SEGMENTS = 99_999_999


class Segments:
    """A map from keys (1 to MAX_KEY_BYTES bytes without NUL at their end) to values, in append-only files.

    All methods block; threads may share it, processes may each open the same folder (after any fork), and see what the
    others commit. Memory is bounded: the rows of the open segment, and of all others one key in 64 rows. A value is
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

        `max_file_size` (bytes; a longer value gets a segment of its own) and `max_files` (data files; 0: any number)
        are kept with the segments: what is given here replaces what was given before. Raises StoreNotFound.
        """
        self.path = os.path.realpath(path)
        self.read_only = read_only
        self._thread_lock = threading.RLock()
        self._state = threading.RLock()
        self._depth = 0
        self._lock: File | None = None
        self._closed = False
        self._generation = -1
        self._set_numbers(set())
        self._tables: tuple[SortedIndex, ...] = ()  # newest first
        self._mistrusted: set[tuple[int, int]] = set()
        self._tail: Tail | None = None
        self._files: OrderedDict[int, File] = OrderedDict()
        self._alive: dict[int, bytes] = {}
        self._killed_bytes: dict[int, int] = {}
        self.foreign = 0  # rises when something came from elsewhere
        with translated(self.path):
            self._head = self._open_head(create)
            self._load_options(max_file_size, max_files)
            with self._locked():
                pass

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
                    message = f"{self.path}: segment {row.segment}, which holds {_shown(key)}, is missing"
                    raise CorruptData(message) from None
        return None

    def rows(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, Row]]:
        """The keys that begin with `prefix` and are greater than `after`, in order, as they are when asked for."""
        after = max(after, prefix)
        while True:
            with translated(self.path):
                self._refresh()
            try:
                for key, row in self._rows(after):
                    if not key.startswith(prefix):
                        return
                    after = key
                    if row.kind == VALUE and row.segment in self._numbers:
                        yield key, row
                return
            except Damaged:
                with translated(self.path):
                    self._repair()

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix` and was ever there; deleted ones are forgotten in time."""

        def greatest() -> bytes | None:
            found = []
            for table in self._tables:
                with self._mistrusting(table):
                    found.append(table.last(prefix))
            if self._tail is not None:
                found.append(max((key for key in self._tail.entries if key.startswith(prefix)), default=None))
            return max((key for key in found if key is not None), default=None)

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

    def create(self, key: bytes, value: Buffer) -> bool:
        """Append a value unless the key is taken; False if it is."""
        with self.writing():
            if self.find(key) is not None:
                return False
            self._append([(VALUE, key, value)])
            return True

    def delete(self, keys: Iterable[bytes]) -> int:
        """Mark values as deleted; how many there were."""
        count = 0
        with self.writing():
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

    def reclaim(self) -> None:
        """Remove segments in which nothing lives any more, and copy what lives out of those of which this process
        deleted more than half, as much as one segment may hold at most."""
        with self.writing():
            if (tail := self._tail) is not None and self._is_half_dead(tail.number) and tail.end > _WORTH_SEALING_BYTES:
                self._seal(tail)
                self._new_tail()
            self._drop_dead()
            most = self.max_file_size
            for number in [number for number in self._killed_bytes if self._is_half_dead(number)]:
                size = self._file(number).size() - self._killed_bytes[number]
                if number in self._sealed() and size <= most and self._has_room_for(size):
                    self._trusting(lambda number=number: self._copy_living(number))  # type: ignore[misc]
                    most -= size
            self._commit()
            self._drop_dead()

    def close(self) -> None:
        """Let go of everything; may be called again."""
        with self._thread_lock, self._state:
            self._closed = True
            self._tables, self._tail = (), None
            self._files.clear()

    def destroy(self) -> None:
        """Remove all segments and, when nothing else is in it, the folder."""
        with self.writing(), self._state:
            for name in os.listdir(self.path):
                if _NAME.fullmatch(name) and name != _HEAD:
                    os.unlink(os.path.join(self.path, name))
            self._change()
            os.unlink(os.path.join(self.path, _HEAD))
            try:
                os.rmdir(self.path)
            except OSError:
                pass  # something else lies there
            self.close()

    # -- appending

    def _append(self, writes: Sequence[tuple[int, bytes, Buffer]]) -> None:
        parts = []
        size = 0
        for kind, key, value in writes:
            if not 0 < len(key) <= MAX_KEY_BYTES or key.endswith(b"\0"):
                raise ValueError(f"not a key: {key!r}")
            value = memoryview(value).cast("B") if isinstance(value, memoryview) else value
            parts.append((kind, key, value))
            size += RECORD.size + len(key) + len(value)
        if not parts:
            return
        tail = self._tail_for(size, only_marks=all(kind == MARK for kind, _, _ in parts))
        before = {key: self._trusting(lambda key=key: self._newest(key)) for _, key, _ in parts}  # type: ignore[misc]
        firsts = {key: tail.number if row is None else row.first for key, row in before.items()}
        with self._state:
            tail.append([Write(kind, firsts[key], key, value) for kind, key, value in parts])
        for key, row in before.items():
            if row is not None:
                dead = RECORD.size + len(key) + row.length
                self._killed_bytes[row.segment] = self._killed_bytes.get(row.segment, 0) + dead

    def _tail_for(self, size: int, *, only_marks: bool) -> Tail:
        """The open segment, with room for `size` more bytes."""
        tail = self._tail
        if tail is not None:
            empty = not tail.entries
            if empty or (tail.end + size <= self.max_file_size and len(tail.entries) < _TAIL_ROWS):
                return tail
            if self.max_files and len(self._numbers) >= self.max_files:
                self._commit()
                self._drop_dead()
                if len(self._numbers) >= self.max_files and only_marks:
                    return tail  # what frees space works also where no room is left
        if self.max_files and len(self._numbers) >= self.max_files:
            raise StoreFull(
                f"{self.path} holds {self.max_files} files of {self.max_file_size} bytes, as many as it may"
            )
        if tail is not None:
            self._seal(tail)
        return self._new_tail()

    def _new_tail(self) -> Tail:
        number = max(self._numbers, default=0) + 1
        if number > _MAX_SEGMENTS:
            raise StoreFull(f"{self.path} has used up the numbers of its segments: copy it to a new place")
        with self._changing():
            make_data_file(self._path(number, "data"), number)
            tail = self._open_tail(number)
            tail.recover(False)
            sync_folder(self.path)
            with self._state:
                self._tail = tail
                self._set_numbers(self._numbers | {number})
        return tail

    def _seal(self, tail: Tail) -> None:
        self._commit()
        with self._changing():
            width = max(map(len, tail.entries))
            index = write_sorted(self._path(tail.number, "index"), tail.rows(), tail.number, tail.number, width)
            tables = [index, *self._tables]
            try:
                while len(tables) > 1 and tables[1].header.rows < _MERGE_RATIO * tables[0].header.rows:
                    tables[:2] = [self._merge(tables[0], tables[1])]
            except Damaged:
                pass  # whoever looks something up there has it made again; then it is merged
            with self._state:
                self._tail = None
                self._tables = tuple(tables)

    def _merge(self, newer: SortedIndex, older: SortedIndex) -> SortedIndex:
        first, last = older.header.first, newer.header.last
        width = max(newer.header.key_bytes, older.header.key_bytes)
        sources = [self._rows_of(newer), self._rows_of(older)]
        rows = ((key, row) for key, row in merged_rows(sources) if self._counts(row_of(row)))
        path = os.path.join(self.path, f"{first:08d}-{last:08d}.merged")
        merged = write_sorted(path, rows, first, last, width)
        for header in (newer.header, older.header):
            if header.first < header.last:
                os.unlink(os.path.join(self.path, f"{header.first:08d}-{header.last:08d}.merged"))
        return merged

    def _commit(self) -> None:
        if (tail := self._tail) is not None:
            try:
                tail.sync()
                with self._state:
                    tail.publish()
            except BaseException:
                self._generation = -1
                tail.roll_back()
                raise

    # -- what is dead

    def _counts(self, row: Row) -> bool:
        """Whether the newest row of a key says anything: a mark only as long as there may be something older."""
        if row.kind == MARK:
            place = bisect_left(self._ordered, row.first)
            return place < len(self._ordered) and self._ordered[place] < row.segment
        return row.segment in self._numbers

    def _living(self, number: int) -> Iterator[tuple[bytes, Row]]:
        """The records of a sealed segment which are the newest of their keys and count."""
        index = self._open_index(number) or self._rebuilt(number)
        known = self._alive.get(number, b"")
        for start, stop in ((known, None), (b"", known)):  # what lived last time is asked first
            for key, packed in self._rows_of(index, start):
                if stop is not None and key > stop:
                    break
                row = row_of(packed)
                if self._newest(key) == row and self._counts(row):
                    self._alive[number] = key[:-1]
                    yield key, row

    def _is_half_dead(self, number: int) -> bool:
        return number in self._numbers and 2 * self._killed_bytes.get(number, 0) > self._file(number).size()

    def _set_numbers(self, numbers: set[int]) -> None:
        self._numbers, self._ordered = numbers, tuple(sorted(numbers))

    def _drop_dead(self) -> None:
        for number in self._sealed():
            if self._trusting(lambda number=number: next(self._living(number), None)) is None:  # type: ignore[misc]
                self._drop(number)

    def _sealed(self) -> tuple[int, ...]:
        """All but the newest, which stays so that numbers are not used twice."""
        return self._ordered[:-1]

    def _copy_living(self, number: int) -> None:
        for key, row in self._living(number):
            value = self.read(key, row) if row.kind == VALUE else b""
            self._append([(row.kind, key, value)])

    def _drop(self, number: int) -> None:
        with self._changing():
            with self._state:
                self._set_numbers(self._numbers - {number})
                self._tables = tuple(t for t in self._tables if not t.header.first == t.header.last == number)
                self._files.pop(number, None)
                self._alive.pop(number, None)
                self._killed_bytes.pop(number, None)
            for ending in ("index", "data"):  # data without an index are read again; an index without data is a loss
                try:
                    os.unlink(self._path(number, ending))
                except FileNotFoundError:
                    pass

    def _has_room_for(self, size: int) -> bool:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize > 2 * size

    # -- looking up (under _state, or with the right to write)

    def _newest(self, key: bytes) -> Row | None:
        with self._state:
            if self._closed:
                raise StoreError(f"{self.path} was closed")
            if self._tail is not None and (fixed := self._tail.entries.get(key)) is not None:
                return row_of(fixed)
            tables, numbers = self._tables, self._numbers
        for table in tables:
            try:
                packed = table.find(key)
            except Damaged:
                self._mistrusted.add((table.header.first, table.header.last))
                raise
            if packed is not None:
                row = row_of(packed)
                return row if row.segment in numbers else None
        return None

    def _rows(self, after: bytes) -> Iterator[tuple[bytes, Row]]:
        with self._state:
            if self._closed:
                raise StoreError(f"{self.path} was closed")
            sources: list[Iterator[tuple[bytes, bytes]]] = []
            if (tail := self._tail) is not None:
                fixed = [(key, tail.entries[key]) for key in tail.keys(after)]
                sources.append(iter(fixed))
            sources += (self._rows_of(table, after) for table in self._tables)
        return ((key, row_of(packed)) for key, packed in merged_rows(sources))

    def _rows_of(self, table: SortedIndex, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._mistrusting(table):
            yield from table.rows(after)

    @contextmanager
    def _mistrusting(self, table: SortedIndex) -> Iterator[None]:
        try:
            yield
        except Damaged:
            self._mistrusted.add((table.header.first, table.header.last))
            raise

    def _trusting(self, ask: Callable[[], R]) -> R:
        """What `ask` returns, after indexes it found damaged were made again."""
        while True:
            try:
                return ask()
            except Damaged:
                self._repair()

    def _repair(self) -> None:
        with self._locked(), self._state:
            self._commit()
            self._reload()

    def _file(self, number: int) -> File:
        with self._state:
            file = self._files.get(number)
            if file is None:
                file = self._files[number] = File(self._path(number, "data"))
                if len(self._files) > _OPEN_FILES:
                    self._files.popitem(last=False)
            else:
                self._files.move_to_end(number)
            return file

    # -- the folder

    def _open_head(self, create: bool) -> File:
        path = os.path.join(self.path, _HEAD)
        if create and not self.read_only:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            if not os.path.exists(path) and (other := [n for n in os.listdir(self.path) if not _NAME.fullmatch(n)]):
                raise NotARepository(f"{self.path} holds other things ({other[0]!r}): name an empty folder")
            head = File(path, os.O_RDWR | os.O_CREAT)
            held = lock(path, shared=False)
            if head.size() == 0:
                head.write([_pack_head(DEFAULT_FILE_BYTES, 0).ljust(GENERATION_AT + GENERATION.size, b"\0")], 0)
                os.fsync(head.fd)
                sync_folder(self.path)
                sync_folder(os.path.dirname(self.path))
            del held
            return head
        try:
            if not self.read_only:
                try:
                    return File(path, os.O_RDWR)
                except PermissionError:
                    self.read_only = True
                except OSError as error:
                    if error.errno != 30:  # EROFS
                        raise
                    self.read_only = True
            return File(path)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNotFound(f"there is no repository at {self.path}") from None

    def _load_options(self, max_file_size: int | None, max_files: int | None) -> None:
        packed = self._head.read(HEAD.size, 0)
        if not packed:
            raise StoreNotFound(f"there is no repository at {self.path}")
        if len(packed) < HEAD.size or not packed.startswith(HEAD_MAGIC):
            raise NotARepository(f"{self.path} holds no segments: its file {_HEAD!r} is another's")
        _, version, files, file_bytes, crc = HEAD.unpack(packed)
        if crc != crc32(packed[: HEAD.size - 4]):
            raise CorruptData(f"{self.path}/{_HEAD} is damaged: remove this file, and open the segments with `create`")
        if version > FORMAT:
            raise FormatTooNew(f"{self.path} was written by a newer spraydry (format {version}): update spraydry")
        self.max_file_size = max_file_size or file_bytes
        self.max_files = files if max_files is None else max_files
        if (self.max_file_size, self.max_files) != (file_bytes, files) and not self.read_only:
            self._head.write([_pack_head(self.max_file_size, self.max_files)], 0)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of threads and processes, and a view of all there is; shared for who only reads."""
        with self._thread_lock:
            if self._depth == 0:
                if self._closed:
                    raise StoreError(f"{self.path} was closed")
                self._lock = lock(os.path.join(self.path, _HEAD), shared=self.read_only)
            self._depth += 1
            try:
                if self._depth == 1:
                    self._catch_up()
                yield
            finally:
                try:
                    if self._depth == 1:
                        self._commit()
                finally:
                    self._depth -= 1
                    if self._depth == 0:
                        self._lock = None

    def _catch_up(self) -> None:
        with self._state:
            generation = self._read_generation()
            if generation % 2 and not self.read_only:  # whoever changed the files did not come to the end of it
                self._change()
                self._change()
                generation = -1
            if generation != self._generation:
                self._reload()
            elif self._tail is not None and self._tail.recover(self.read_only):
                self.foreign += 1

    def _refresh(self) -> None:
        """See what others committed."""
        with self._state:
            if self._closed:
                raise StoreError(f"{self.path} was closed")
            if self._read_generation() in (self._generation, self._generation + 1):  # it, or a change at work on it
                if self._depth == 0 and self._tail is not None and self._tail.load():
                    self.foreign += 1
                return
        with self._locked():
            pass

    def _reload(self) -> None:
        """Under the lock: find out what files there are; make again what is missing or damaged of what is derived."""
        self.foreign += 1
        generation = self._read_generation()
        data: set[int] = set()
        indexes: set[int] = set()
        merged = []
        for name in os.listdir(self.path):
            if match := _NAME.fullmatch(name):
                if match[1]:
                    (data if match[2] == "data" else indexes).add(int(match[1]))
                elif match[3]:
                    merged.append((int(match[3]), int(match[4])))
                elif name.endswith(".tmp") and not self.read_only:
                    os.unlink(os.path.join(self.path, name))
        self._set_numbers(data | indexes)
        self._files.clear()
        self._tail = None
        newest = max(data, default=0)
        covers = sorted(
            merged + [(number, number) for number in self._numbers], key=lambda cover: (cover[0], -cover[1])
        )
        tables: list[SortedIndex] = []
        covered = 0
        for first, last in covers:
            if first <= covered and first == last:
                continue
            table = None
            if first > covered:
                table = self._open_index(first) if first == last else self._open_merged(first, last)
            if first == last and table is None and first == newest:
                self._tail = self._open_tail(first)
                self._tail.recover(self.read_only)
            elif first == last and table is None:
                table = self._rebuilt(first)
            if table is not None:
                tables.insert(0, table)
                covered = last
            elif first < last and not self.read_only:
                os.unlink(os.path.join(self.path, f"{first:08d}-{last:08d}.merged"))
        self._tables = tuple(tables)
        self._generation = generation

    def _open_merged(self, first: int, last: int) -> SortedIndex | None:
        if (first, last) in self._mistrusted:
            return None
        try:
            table = SortedIndex(File(os.path.join(self.path, f"{first:08d}-{last:08d}.merged")))
        except Damaged:
            return None
        return table if (table.header.first, table.header.last) == (first, last) else None

    def _open_index(self, number: int) -> SortedIndex | None:
        """The sorted index of one segment; None if it has none, or a damaged one."""
        if (number, number) in self._mistrusted:
            return None
        try:
            table = SortedIndex(File(self._path(number, "index")))
        except (Damaged, FileNotFoundError):
            return None
        return table if (table.header.first, table.header.last) == (number, number) else None

    def _rebuilt(self, number: int) -> SortedIndex:
        """The sorted index of a segment whose own is gone or damaged, from its data; their values are not read."""
        newest: dict[bytes, bytes] = {}
        try:
            data = File(self._path(number, "data"))
        except FileNotFoundError:
            message = f"{self.path}: the data file of segment {number} is missing: remove its index to go on without it"
            raise CorruptData(message) from None
        for found in scan(data, number, sync_mark(data, number), verify=False):
            newest[found.key] = found.row.pack(found.key)
        path = None if self.read_only else self._path(number, "index")
        width = max(map(len, newest), default=1)
        table = write_sorted(path, sorted(newest.items()), number, number, width)
        if not self.read_only:
            self._mistrusted.discard((number, number))
        return table

    def _open_tail(self, number: int) -> Tail:
        flags = os.O_RDONLY if self.read_only else os.O_RDWR
        data, path = File(self._path(number, "data"), flags), self._path(number, "index")
        return Tail(number, data, File(path, flags | (0 if self.read_only else os.O_CREAT)))

    def _path(self, number: int, ending: str) -> str:
        return os.path.join(self.path, f"{number:08d}.{ending}")

    # -- the generation: odd while the set of files is being changed

    def _read_generation(self) -> int:
        packed = self._head.read(GENERATION.size, GENERATION_AT)
        return GENERATION.unpack(packed)[0] if len(packed) == GENERATION.size else 0

    def _change(self) -> int:
        generation = self._read_generation() + 1
        self._head.write([GENERATION.pack(generation % (1 << 64))], GENERATION_AT)
        return generation

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._state:
            self._generation = self._change()
        yield
        with self._state:
            self._generation = self._change()


def _pack_head(max_file_size: int, max_files: int) -> bytes:
    head = HEAD.pack(HEAD_MAGIC, FORMAT, max_files, max_file_size, 0)[:-4]
    return head + crc32(head).to_bytes(4, "little")


def _shown(key: bytes) -> str:
    return key.replace(b"\0", b"/").decode("ascii", "backslashreplace")
