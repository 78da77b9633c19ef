"""An open folder of segments: what it holds as this process sees it now, and the locks of threads and processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from spraydry.errors import CorruptData, StoreError, StoreNotFound
from spraydry.segments.files import File, as_ours, translated, unlock
from spraydry.segments.head import UNKNOWN, Head
from spraydry.segments.layout import (
    TOTALS,
    Damaged,
    Row,
    Totals,
    check_of,
    pack_totals,
    row_of,
    shown_key,
    unpack_totals,
)
from spraydry.segments.sealed import Sealed
from spraydry.segments.tail import Tail

R = TypeVar("R")

_OPEN_FILES = 128


class Folder:
    """The segments in one folder. All methods block; threads may share it.

    `tail` (the open segment, None before the first record) and `sealed.view` are replaced under `state`, by who is
    `locked`; `foreign` rises when something may have come from elsewhere. `totals` is kept up by who appends, and kept
    in the head, so that nobody has to count again; None where it is not known.
    """

    def __init__(self, path: str, create: bool, read_only: bool, memory_bytes: int) -> None:
        """Raises StoreNotFound, NotARepository. Nothing is read yet but the head."""
        self.path = path
        self.head = Head(path, create, read_only)
        self.read_only = self.head.read_only
        self.sealed = Sealed(path, memory_bytes)
        self.tail: Tail | None = None
        self.foreign = 0
        self.totals: Totals | None = None
        self._kept_totals: bytes | None = None
        # The first is held while writing, the second for moments; whoever wants both takes them in this order.
        self._writing = threading.RLock()
        self.state = threading.RLock()
        self._depth = 0
        self._lock: File | None = None
        self._up_to_date = False  # nobody else can change anything meanwhile
        self._closed = False
        self._files: dict[int, File] = {}

    # -- looking up

    def newest(self, key: bytes) -> Row | None:
        """The row of the newest record of `key`, which may be a mark. Raises Damaged."""
        with self.state:
            self._usable()
            if self.tail is not None and (fixed := self.tail.entries.get(key)) is not None:
                return row_of(fixed)
            view = self.sealed.view
        return view.newest(key)

    def trusting(self, ask: Callable[[], R]) -> R:
        """What `ask` returns, after the indexes it found damaged were made again."""
        while True:
            try:
                return ask()
            except Damaged:
                self.repair()

    def repair(self) -> None:
        """Make again what was found damaged."""
        with translated(self.path), self.locked(), self.state:
            self.commit()
            self._reload()

    def file(self, number: int) -> File:
        """The data file of a segment."""
        file = self._files.get(number)
        if file is None:
            file = File(self.sealed.data_path(number))
            with self.state:
                self._files[number] = file
                if len(self._files) > _OPEN_FILES:
                    del self._files[next(iter(self._files))]
        return file

    def read(self, key: bytes, row: Row, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes (default: all) from byte `start` of the value `row` tells of; a whole value is checked.

        Raises CorruptData, and StoreNotFound when its segment has gone since `find`.
        """
        stop = row.length if length is None else min(start + length, row.length)
        try:
            file = self.file(row.segment)
            value = file.read(stop - start, row.offset + start) if start < stop else b""
            short = len(value) != max(stop - start, 0)
            if short and os.fstat(file.fd).st_nlink == 0:
                raise StoreNotFound(f"{self.path}: segment {row.segment} was removed")
        except OSError as error:
            raise as_ours(error, self.path) from None
        if short or (len(value) == row.length and check_of(value) != row.check):
            raise CorruptData(f"{self.path}: the value {shown_key(key)} in segment {row.segment} is damaged")
        return value

    # -- seeing what others do

    def refresh(self) -> None:
        """See what others committed."""
        with self.state:
            self._usable()
            if self._up_to_date:
                return
            if self.head.is_current():
                if self._depth == 0 and self.tail is not None and self.tail.load():
                    self._changed()
                return
        with self.locked():
            pass

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The lock of threads and processes, shared for who only reads, and a view of all there is. What was appended
        is committed at the end of the outermost."""
        with self._writing:
            if self._depth == 0:
                self._usable()
                self._lock = self.head.lock()
            self._depth += 1
            try:
                if self._depth == 1:
                    self._catch_up()
                    self._up_to_date = True
                yield
            finally:
                try:
                    if self._depth == 1 and not self.read_only:
                        self.commit()
                        self._keep_totals()
                finally:
                    self._depth -= 1
                    self._up_to_date = self._depth > 0
                    if self._depth == 0 and self._lock is not None:
                        unlock(self._lock)
                        self._lock = None

    def commit(self) -> None:
        """Make durable what was appended, and show it to others."""
        if (tail := self.tail) is not None:
            try:
                tail.sync()
                with self.state:
                    tail.publish()
            except BaseException:
                with self.state:
                    self.head.generation = UNKNOWN  # look again: what stands in memory is not on disk
                    tail.roll_back()
                raise

    def _catch_up(self) -> None:
        with self.state:
            self.head.settle()
            if self.head.now() != self.head.generation:
                self._reload()
            elif self.tail is not None and self.tail.recover(self.read_only):
                self._changed()
            if self.totals is None:
                self.totals = self.kept_totals()

    def _changed(self) -> None:
        self.foreign += 1
        self.totals = None

    def kept_totals(self) -> Totals | None:
        """The totals as whoever wrote last has kept them; None if they are not those of what is here."""
        if not self.sealed.view.numbers:
            return Totals(0, 0)
        # Of what was found again, some may be damaged and not there any more.
        found_again = self.sealed.rebuilt or (self.tail is not None and self.tail.recovered)
        if found_again or self.head.generation == UNKNOWN:
            return None
        packed = self.head.kept_totals()
        totals = unpack_totals(packed)
        return totals if totals is not None and packed == self._packed(totals) else None

    def _keep_totals(self) -> None:
        """Under the lock: for who opens the folder later."""
        known = self.totals is not None and self.head.generation != UNKNOWN
        packed = self._packed(self.totals) if self.totals is not None and known else bytes(TOTALS.size)
        if packed != self._kept_totals:
            self.head.keep_totals(packed)
            self._kept_totals = packed

    def _packed(self, totals: Totals) -> bytes:
        tail = self.tail
        number, end = (0, 0) if tail is None else (tail.number, tail.end)
        return pack_totals(totals, self.head.generation, self.sealed.view.fingerprint, number, end)

    def _reload(self) -> None:
        self._changed()
        self._files.clear()
        self.tail = None
        generation = self.head.now()
        number = self.sealed.load(self.read_only)
        if number is not None:
            self.tail = self.open_tail(number)
            self.tail.recover(self.read_only)
        self.head.generation = generation if self.tail is None or self.tail.index_sound else UNKNOWN

    def open_tail(self, number: int) -> Tail:
        """The segment `number` as one to append to; to be recovered."""
        flags = os.O_RDONLY if self.read_only else os.O_RDWR
        path = self.sealed.index_path(number, number)
        if self.read_only and not os.path.exists(path):
            path = os.devnull  # which is as good as an empty one
        index = File(path, flags | (0 if self.read_only else os.O_CREAT))
        return Tail(number, File(self.sealed.data_path(number), flags), index)

    # -- removing

    def drop(self, number: int) -> None:
        """Remove a sealed segment in which nothing counts any more; to whoever has the right to write."""
        with self.head.changing(), self.state:
            self.sealed.drop(number)
            self._files.pop(number, None)

    def close(self) -> None:
        """Let go of everything; may be called again."""
        with self._writing, self.state:
            self._closed = True
            self.tail = None
            self._files.clear()
            self.sealed = Sealed(self.path, 0)

    def _usable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} was closed")
