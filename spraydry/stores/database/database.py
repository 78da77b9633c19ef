"""The Database that owns the connections to one SQLite file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import apsw

from spraydry.errors import CorruptData, FormatTooNew, NotARepository, StoreError, StoreNotFound, StoreReadOnly
from spraydry.stores.database.errors import translated
from spraydry.stores.database.files import is_cut_short, journal_mode, make_private_file
from spraydry.stores.database.schema import APPLICATION_ID, FORMAT, SEALED, identity, initialise, statements, tables_of

BUSY_TIMEOUT_MS = 30_000
_VACUUM_PAGES = 256

Row = tuple[Any, ...]


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError:
        raise StoreError(f"{path} cannot be opened: no permission to look into its folder") from None
    except OSError:
        return False
    return True


class Database:
    """One SQLite file: connections for reading, as many as threads read at once, and one for writing, taken in turn.

    All methods block; threads may share it. It must not be carried over a fork. `schema` (CREATE statements) is what
    the file must hold, beside what `extend` adds; a trigger or view in it is refused.
    """

    def __init__(self, path: str, schema: str, *, create: bool = False, read_only: bool = False) -> None:
        self.path = os.path.realpath(path)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._depth = 0
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []  # those no thread uses at the moment
        self._writer: apsw.Connection | None = None
        self._immutable = False
        self._closed = False
        if not _is_there(self.path):
            if not create:
                raise StoreNotFound(f"there is no repository at {path}: `spraydry ingest DIR` makes one")
            make_private_file(self.path)
        elif not os.path.isfile(self.path):
            raise NotARepository(f"{path} is not a spraydry repository: it is not a file")
        if not read_only and not os.access(self.path, os.W_OK):
            self.read_only = True
        try:
            with translated(self.path):
                self._open(schema, create)
        except BaseException:
            self.close()
            raise

    def _open(self, schema: str, create: bool) -> None:
        if self.read_only:
            self._immutable = not os.path.exists(self.path + "-wal") and not os.access(
                os.path.dirname(self.path), os.W_OK
            )
            connection = self._connect(apsw.SQLITE_OPEN_READONLY)
            self._readers.append(connection)
        else:
            connection = self._writer = self._connect(apsw.SQLITE_OPEN_READWRITE)
            if SEALED in tables_of(connection):
                connection.close()
                self.read_only, self._writer = True, None
                connection = self._connect(apsw.SQLITE_OPEN_READONLY)
                self._readers.append(connection)
        application, version, empty = identity(connection)
        if create and not self.read_only and application == 0 and empty:
            initialise(connection, schema)
            application, version, empty = identity(connection)
        if application != APPLICATION_ID:
            raise NotARepository(f"{self.path} is not a spraydry repository")
        elif version > FORMAT:
            raise FormatTooNew(f"{self.path} was written by a newer spraydry: install a current one")
        elif version != FORMAT or not tables_of(connection) >= statements(schema):
            raise CorruptData(f"{self.path} is damaged: its tables are not those of a spraydry repository")
        if is_cut_short(self.path, next(connection.execute("PRAGMA page_size"))[0]):
            raise CorruptData(f"{self.path} is damaged: it was cut short")
        if not self.read_only:
            self._set_journal_mode(connection)

    def _connect(self, flags: int) -> apsw.Connection:
        uri = "file:" + quote(os.fsencode(self.path)) + ("?immutable=1" if self._immutable else "")
        connection = apsw.Connection(uri, flags | apsw.SQLITE_OPEN_URI)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        for pragma in ("synchronous = FULL", "cell_size_check = ON", "cache_size = -4000", "mmap_size = 0"):
            connection.execute("PRAGMA " + pragma).fetchall()
        return connection

    def _set_journal_mode(self, connection: apsw.Connection) -> None:
        wanted = journal_mode(self.path)
        deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        while True:  # SQLite does not wait here for others by itself
            try:
                if next(connection.execute("PRAGMA journal_mode"))[0] != wanted:
                    connection.execute(f"PRAGMA journal_mode = {wanted}").fetchall()
                return
            except apsw.BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def extend(self, schema: str) -> bool:
        """Make the tables of `schema` unless they are there; False where they are missing and cannot be made."""
        wanted = statements(schema)
        with translated(self.path), self._reading() as connection:
            found = tables_of(connection)
        if not found & wanted:
            if self.read_only:
                return False
            with self.transaction() as connection:
                if not tables_of(connection) & wanted:  # otherwise another process was faster
                    connection.execute(schema)
        elif not found >= wanted:
            raise CorruptData(f"{self.path} is damaged: its tables are not those of a spraydry repository")
        return True

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """A connection for this thread alone. They are handed on, because threads come and go."""
        if self._closed:
            raise StoreError(f"{self.path} was closed")
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect(apsw.SQLITE_OPEN_READONLY)
        try:
            yield connection
        finally:
            if self._closed:
                connection.close(True)
            else:
                self._readers.append(connection)

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query: inside a transaction of this thread as that sees them, else as last committed."""
        with translated(self.path):
            try:
                if self._depth and getattr(self._local, "writing", False):
                    assert self._writer is not None
                    return self._writer.execute(sql, tuple(values)).fetchall()
                with self._reading() as connection:
                    return connection.execute(sql, tuple(values)).fetchall()
            except MemoryError:
                raise CorruptData(f"{self.path} is damaged: a value claims an impossible size") from None

    def beside(self, cache_bytes: int) -> apsw.Connection:
        """A private database for one thread that vanishes when closed, in memory up to `cache_bytes`, then on disk; it
        can read the tables of this one as `file.NAME`, each statement as last committed. Nothing there locks this."""
        with translated(self.path):
            connection = apsw.Connection(
                "", apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
            )
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            uri = "file:" + quote(os.fsencode(self.path)) + ("?immutable=1" if self._immutable else "?mode=ro")
            connection.execute("ATTACH ? AS file", (uri,))
            for pragma in (
                "main.journal_mode = OFF",
                "main.synchronous = OFF",
                f"main.cache_size = -{cache_bytes >> 10}",
                "file.cache_size = -8000",
                "temp_store = FILE",
            ):
                connection.execute("PRAGMA " + pragma).fetchall()
        return connection

    def execute(self, sql: str, values: Iterable[Any] = ()) -> int:
        """One statement that writes, in a transaction; the number of rows it changed."""
        with self.transaction() as connection:
            connection.execute(sql, tuple(values))
            return connection.changes()

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for many rows, in a transaction."""
        with self.transaction() as connection:
            connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """A write transaction, durable when it ends; inside another one of the same thread it is part of that."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.path} was closed")
            if self._writer is None:
                raise StoreReadOnly(f"{self.path} cannot be written (permissions, or a read-only medium)")
            with translated(self.path):
                if self._depth == 0:
                    if self._writer.in_transaction:  # a signal's exception came between a BEGIN and what follows it
                        self._writer.execute("ROLLBACK")
                    self._writer.execute("BEGIN IMMEDIATE")
                    self._local.writing = True
                self._depth += 1
                try:
                    yield self._writer
                    if self._depth == 1:
                        self._writer.execute("COMMIT")
                except BaseException:
                    if self._depth == 1 and self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
                finally:
                    self._depth -= 1
                    if self._depth == 0:
                        self._local.writing = False

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, as far as readers allow, and give free pages back."""
        with self._lock:
            if self._writer is not None and self._depth == 0:
                try:
                    with translated(self.path):
                        self._writer.set_busy_timeout(0)
                        while self._free_pages(self._writer):
                            # A step at a time: what is moved lies in the write-ahead log until it is folded in.
                            self._writer.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
                            busy = next(self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)"))[0]
                            if busy:
                                break
                        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                except StoreError:
                    pass  # a reader or writer is at work: theirs, or the next checkpoint, does it
                finally:
                    self._writer.set_busy_timeout(BUSY_TIMEOUT_MS)

    def room(self) -> tuple[int, int, int]:
        """Bytes: what can be stored without the file growing, what is free where it lies, and how large that is."""
        with self._lock, translated(self.path):
            found = os.statvfs(os.path.dirname(self.path))
            inside = 0
            if self._writer is not None:
                inside = self._free_pages(self._writer) * next(self._writer.execute("PRAGMA page_size"))[0]
            return inside, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    @staticmethod
    def _free_pages(connection: apsw.Connection) -> int:
        return int(next(connection.execute("PRAGMA freelist_count"))[0])

    def seal(self) -> None:
        """Fold everything into the one file, which can then be read from any medium, and is never written again. Nobody
        else may have it open."""
        self.execute(SEALED)
        self.checkpoint()
        with self._lock, translated(self.path):
            assert self._writer is not None
            for reader in self._readers:
                reader.close(True)
            self._readers.clear()
            self._writer.execute("PRAGMA journal_mode = DELETE").fetchall()

    def close(self) -> None:
        """Close every connection; the last one to close a file folds its write-ahead log in."""
        with self._lock:
            self._closed = True
            for connection in [*self._readers, *([self._writer] if self._writer else [])]:
                try:
                    connection.close(True)
                except apsw.Error:
                    pass  # nothing is lost: what was committed is in the log, which the next opener reads
            self._readers.clear()
            self._writer = None
