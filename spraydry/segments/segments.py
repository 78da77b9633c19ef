"""A set of segments in one folder: keys to values, by appending only. Layout: FORMAT.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from spraydry.errors import CorruptData, StoreNotFound, StoreReadOnly
from spraydry.format.digest import Buffer
from spraydry.segments.appending import Appender
from spraydry.segments.files import as_ours, translated
from spraydry.segments.folder import Folder
from spraydry.segments.head import OWN_NAME, check_limits
from spraydry.segments.layout import MARK, VALUE, Damaged, Row, Totals, row_length, row_of, shown_key
from spraydry.segments.living import Living
from spraydry.segments.merge import Block, merged
from spraydry.segments.reclaiming import Reclaimer
from spraydry.segments.reserve import make_reserve, release_reserve

_MARKS = 256  # so many deletions are appended at once


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
        index_memory: int = 64 << 20,
    ) -> None:
        """Open the segments in the folder `path`; with `create` an absent folder is made.

        `max_file_size` (bytes of a data file; a longer value gets one of its own) and `max_files` (data files; 0: any
        number) are kept with the segments: what is given here replaces what was. `index_memory` bounds the bytes that
        the indexes of sealed segments take; with little, look-ups read more. Raises StoreNotFound, UsageError.
        """
        check_limits(max_file_size, max_files)
        self.path = os.path.realpath(path)
        with translated(self.path):
            self._folder = Folder(self.path, create, read_only, index_memory)
            self.read_only = self._folder.read_only
            self.max_file_size, max_files = self._folder.head.limits(max_file_size, max_files)
            self._living = Living(self._folder)
            self._appender = Appender(self._folder, self._living, self.max_file_size, max_files)
            self._reclaimer = Reclaimer(self._folder, self._living, self._appender)
            with self._folder.locked():
                if not self.read_only:
                    make_reserve(self.path)

    @property
    def foreign(self) -> int:
        """Rises when something may have come from elsewhere."""
        return self._folder.foreign

    # -- reading

    def find(self, key: bytes) -> Row | None:
        """Where the value of `key` is; None if there is none."""
        folder = self._folder
        while True:
            try:
                folder.refresh()
                row = folder.newest(key)
                return None if row is None or row.kind == MARK else row
            except Damaged:
                folder.repair()
            except OSError as error:
                raise as_ours(error, self.path) from None

    def get(self, key: bytes, start: int = 0, length: int | None = None) -> bytes | None:
        """`length` bytes (default: all) from byte `start` of a value; below 0, `start` counts from the end. None if
        there is no such value. A whole value is checked: CorruptData."""
        while (row := self.find(key)) is not None:
            try:
                return self._folder.read(key, row, max(start + row.length, 0) if start < 0 else start, length)
            except StoreNotFound:
                with self._folder.locked():  # perhaps another process moved it
                    now = self.find(key)
                if now == row:
                    message = (
                        f"{self.path}: the data of segment {row.segment}, which holds {shown_key(key)}, are missing"
                    )
                    raise CorruptData(message) from None
        return None

    def rows(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, Row]]:
        """The keys that begin with `prefix` and are greater than `after`, in order, as they are when asked for."""
        for keys, rows in self._blocks(prefix, after):
            for key, packed in zip(keys, rows, strict=True):
                if not key.startswith(prefix):
                    return
                row = row_of(packed)
                if row.kind == VALUE:
                    yield key, row

    def totals(self) -> Totals:
        """How many values there are, and their length together: counted where nobody has kept that."""
        folder = self._folder
        with translated(self.path):
            folder.refresh()
            with folder.state:
                known = folder.totals = folder.totals or folder.kept_totals()
        if known is not None:
            return known
        before = folder.foreign, self._appender.appended
        values = size = 0
        for _, rows in self._blocks(b"", b""):
            lengths = [row_length(row) for row in rows if row[4] == VALUE]
            values += len(lengths)
            size += sum(lengths)
        with folder.state:
            if (folder.foreign, self._appender.appended) == before:
                folder.totals = Totals(values, size)
        return Totals(values, size)

    def _blocks(self, prefix: bytes, after: bytes) -> Iterator[Block]:
        """Rows of keys greater than `prefix` and `after`, in order; marks too, but nothing of segments that went."""
        folder = self._folder
        after = max(after, prefix)
        while True:
            with translated(self.path):
                folder.refresh()
                with folder.state:
                    view = folder.sealed.view
                    sources = view.sources(after)
                    if folder.tail is not None:
                        sources.insert(0, folder.tail.blocks(prefix, after))
            try:
                for keys, rows in view.counting(merged(sources)):
                    yield keys, rows
                    after = keys[-1]
                return
            except Damaged:
                folder.repair()

    def last(self, prefix: bytes) -> bytes | None:
        """The greatest key that begins with `prefix` and was ever there; deleted ones are forgotten in time."""

        def greatest() -> bytes | None:
            with self._folder.state:
                in_tail = self._folder.tail.keys(prefix)[-1:] if self._folder.tail else []
                view = self._folder.sealed.view
            return max([*in_tail, view.last(prefix) or b""]) or None

        with translated(self.path):
            self._folder.refresh()
            return self._folder.trusting(greatest)

    # -- writing

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to write, nested or not: of all threads and processes one has it. What was written is durable, and
        seen by others, at the end of the outermost; an exception takes nothing back that was appended before it."""
        with translated(self.path), self._folder.locked():
            if self.read_only:
                raise StoreReadOnly(f"{self.path} was opened for reading only, or cannot be written")
            yield

    def put(self, *values: tuple[bytes, Buffer]) -> None:
        """Append values, replacing those of the same keys: together or not at all."""
        with self.writing():
            self._appender.append([(VALUE, key, memoryview(value).cast("B")) for key, value in values])

    def put_many(self, values: Iterable[tuple[bytes, Buffer]]) -> None:
        """Append values, replacing those of the same keys, all durable at the end; after an error any may be there."""
        with self.writing():
            # Buffers may be used again meanwhile.
            self._appender.append_all(
                (VALUE, key, value if isinstance(value, bytes) else bytes(value)) for key, value in values
            )

    def create(self, key: bytes, value: Buffer) -> bool:
        """Append a value unless the key is taken; False if it is."""
        with self.writing():
            if self.find(key) is not None:
                return False
            self._appender.append([(VALUE, key, memoryview(value).cast("B"))])
            return True

    def delete(self, keys: Iterable[bytes]) -> int:
        """Mark values as deleted; how many there were. Works on a full disk, too."""
        count = 0
        with self.writing():
            release_reserve(self.path)
            newest = self._folder.newest
            for some in map(dict.fromkeys, _batched(keys, max(min(_MARKS, self.max_file_size // 2048), 1))):
                before = self._folder.trusting(lambda some=some: [newest(key) for key in some])  # type: ignore[misc]
                rows = zip(some, before, strict=True)
                there = [(key, row) for key, row in rows if row is not None and row.kind == VALUE]
                self._appender.append_over([(MARK, key, b"") for key, _ in there], [row for _, row in there])
                count += len(there)
        return count

    def move(self, key: bytes, to: bytes) -> bool:
        """Give a value another key, at once; False if there is none."""
        with self.writing():
            value = self.get(key)
            if value is None:
                return False
            if key != to:
                self._appender.append([(VALUE, to, value), (MARK, key, b"")])
            return True

    def drop_dead(self) -> None:
        """Remove segments in which nothing lives any more."""
        with self.writing():
            self._folder.commit()
            self._living.drop_dead()

    def reclaim(self) -> None:
        """Do that, and copy what lives out of those segments of which this process deleted more than half: at most as
        much as one segment may hold."""
        with self.writing():
            self._reclaimer.reclaim()
            make_reserve(self.path)

    def close(self) -> None:
        """Let go of everything; may be called again."""
        self._folder.close()

    def destroy(self) -> None:
        """Remove all segments and, when nothing else is in it, the folder."""
        with self.writing(), self._folder.state:
            with self._folder.head.changing():
                for name in os.listdir(self.path):
                    if OWN_NAME.fullmatch(name) and name != os.path.basename(self._folder.head.path):
                        os.unlink(os.path.join(self.path, name))
            os.unlink(self._folder.head.path)
            try:
                os.rmdir(self.path)
            except OSError:
                pass  # something else lies there
            self.close()


def _batched(keys: Iterable[bytes], count: int) -> Iterator[list[bytes]]:
    left = iter(keys)
    while some := list(islice(left, count)):
        yield some
