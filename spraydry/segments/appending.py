"""Appending to the open segment, and sealing it when it is full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spraydry.errors import StoreFull
from spraydry.segments.data import make_data_file
from spraydry.segments.files import sync_folder
from spraydry.segments.folder import Folder
from spraydry.segments.layout import MARK, MAX_KEY_BYTES, RECORD, VALUE, Row, Totals
from spraydry.segments.living import Living
from spraydry.segments.tail import Tail, Write

Appended = tuple[int, bytes, bytes | memoryview]  # kind, key, value: of bytes, so that its length is in bytes

_GROUP_BYTES = 64 << 10
_TAIL_ROWS = 8192  # what bounds the index in memory: a segment is sealed when it has as many
_LAST_NUMBER = 99_999_999


class Appender:
    """Appends records to the segments of a folder. Blocks; only for who has the right to write (`Folder.locked`).

    `max_file_size` in bytes; `max_files`, 0: any number.
    """

    def __init__(self, folder: Folder, living: Living, max_file_size: int, max_files: int) -> None:
        self.max_file_size = max_file_size
        self.max_files = max_files
        self.spare_files = 0  # beyond max_files: what lives in segments that are to go needs a place for so long
        self.appended = 0  # rises
        self._folder = folder
        self._living = living

    def append(self, records: Sequence[Appended]) -> None:
        """Append records that are there together or not at all. Raises StoreFull, and ValueError for what is no key."""
        newest = self._folder.newest
        before = self._folder.trusting(lambda: [newest(key) for _, key, _ in records])
        self.append_over(records, before)

    def append_all(self, records: Iterable[Appended]) -> None:
        """Append any number of records, in groups of which each is there as a whole or not at all."""
        group: list[Appended] = []
        left = most = min(_GROUP_BYTES, self.max_file_size // 8)
        for kind, key, value in records:
            group.append((kind, key, value))
            left -= len(value) + RECORD.size + len(key)
            if left < 0:
                self.append(group)
                group, left = [], most
        self.append(group)

    def append_over(self, records: Sequence[Appended], before: Sequence[Row | None]) -> None:
        """As `append`, to who knows the newest rows of their keys: `before`."""
        if not records:
            return
        size = 0
        for _, key, value in records:
            if not 0 < len(key) <= MAX_KEY_BYTES or key.endswith(b"\0"):
                raise ValueError(f"not a key: {key!r}")
            size += RECORD.size + len(key) + len(value)
        tail = self._tail_for(size, only_marks=all(kind == MARK for kind, _, _ in records))
        number = tail.number
        writes = [
            (kind, number if row is None else row.first, key, value)
            for (kind, key, value), row in zip(records, before, strict=True)
        ]
        with self._folder.state:
            self.appended += 1
            tail.append(writes)
            self._account(tail, writes, {key: row for (_, key, _), row in zip(records, before, strict=True)})

    def _account(self, tail: Tail, writes: Sequence[Write], before: dict[bytes, Row | None]) -> None:
        """Of what was appended: what is of no use any more, and how many values there are now."""
        values = size = 0
        repeated = len(before) < len(writes)
        for kind, first, key, value in writes:
            row = before[key]
            if row is not None:
                self._living.killed(row.segment, RECORD.size + len(key) + row.length)
                values -= row.kind == VALUE
                size -= row.length
            if kind == MARK:
                self._living.killed(tail.number, RECORD.size + len(key))
            values += kind == VALUE
            size += len(value)
            if repeated:
                before[key] = Row(kind, tail.number, first, 0, len(value), b"")
        if (totals := self._folder.totals) is not None:
            self._folder.totals = Totals(totals.values + values, totals.bytes + size)

    def renew(self) -> None:
        """Seal the open segment, and begin another."""
        if self._folder.tail is not None:
            self._seal(self._folder.tail)
        self._begin()

    def _tail_for(self, size: int, *, only_marks: bool) -> Tail:
        """The open segment, with room for `size` more bytes."""
        tail = self._folder.tail
        if tail is not None and (not tail.entries or self._fits(tail, size)):
            return tail
        if self._is_full():
            self._folder.commit()
            self._living.drop_dead()
            tail = self._folder.tail
            if self._is_full():
                if only_marks and tail is not None:
                    return tail  # what frees space works where no room is left
                most = f"{self.max_files} files of {self.max_file_size} bytes"
                advice = "delete something or raise max_files"
                raise StoreFull(f"{self._folder.path} holds {most}, as many as it may: {advice}")
        if tail is not None:
            self._seal(tail)
        return self._begin()

    def _fits(self, tail: Tail, size: int) -> bool:
        return tail.end + size <= self.max_file_size and len(tail.entries) < _TAIL_ROWS

    def _is_full(self) -> bool:
        return 0 < self.max_files <= len(self._folder.sealed.view.numbers) - self.spare_files

    def _begin(self) -> Tail:
        """A new open segment."""
        folder = self._folder
        number = max(folder.sealed.view.numbers, default=0) + 1
        if number > _LAST_NUMBER:
            raise StoreFull(f"{folder.path} has used up the numbers of its segments: copy it to a new place")
        with folder.head.changing():
            make_data_file(folder.sealed.data_path(number), number)
            tail = folder.open_tail(number)
            tail.recover(False)
            sync_folder(folder.path)
            with folder.state:
                folder.tail = tail
                folder.sealed.add_number(number)
        return tail

    def _seal(self, tail: Tail) -> None:
        folder = self._folder
        folder.commit()
        with folder.head.changing():
            view = folder.sealed.sealed(tail.number, tail.rows())
            with folder.state:
                folder.tail = None
                folder.sealed.view = view
