"""SQLite files: the Database that owns the connections to one, and the default store in one. Layout: FORMAT.md §8."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import apsw

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    NotARepository,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    ValueNotFound,
)
from spraydry.stores.base import Stat, Store, Stored, check_key, check_namespace, check_range

APPLICATION_ID = 0x53447279  # "SDry"
FORMAT = 1
PAGE_BYTES = 8192
BUSY_TIMEOUT_MS = 30_000

_STORE_SCHEMA = """
CREATE TABLE value(id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
                   UNIQUE(namespace, name)) STRICT;
"""

# WAL needs shared memory between its users, which network file systems do not give, nor most of what FUSE serves.
_NETWORK = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "gpfs", "beegfs", "virtiofs"}

_OCTAL = re.compile(r"\\([0-7]{3})")  # how blanks and backslashes in mount points are written

Row = tuple[Any, ...]


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """SQLite's errors as ours, in one line each."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError):
        raise StoreUnavailable(f"{path} is locked by another process; try again when it has finished") from None
    except apsw.FullError:
        raise StoreFull(f"no room is left for {path}: free some space and run the command again") from None
    except (apsw.ReadOnlyError, apsw.PermissionsError):
        raise StoreReadOnly(f"{path} cannot be written (permissions, or a read-only medium)") from None
    except apsw.NotADBError:
        raise NotARepository(f"{path} is not a spraydry repository") from None
    except (apsw.CorruptError, apsw.FormatError, apsw.SchemaChangeError, apsw.ConstraintError) as error:
        raise CorruptData(f"{path} is damaged: {error}") from None
    except apsw.CantOpenError as error:
        raise StoreError(f"{path} cannot be opened: {error}") from None
    except apsw.IOError as error:
        if _is_full(path):  # of its shared memory, SQLite does not say that the disk is full
            raise StoreFull(f"no room is left for {path}: free some space and run the command again") from None
        raise StoreError(f"{path} cannot be read or written: {error}") from None
    except (apsw.Error, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {type(error).__name__}: {error}") from None


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
        if not os.path.exists(self.path):
            if not create:
                raise StoreNotFound(f"there is no repository at {path}: `spraydry ingest DIR` makes one")
            _make_private_file(self.path)
        elif not os.path.isfile(self.path):
            raise NotARepository(f"{path} is not a spraydry repository: it is not a file")
        if not read_only and not os.access(self.path, os.W_OK):
            self.read_only = True
        try:
            with _translated(self.path):
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
        application, version, empty = _identity(connection)
        if create and not self.read_only and application == 0 and empty:
            self._initialise(connection, schema)
            application, version, empty = _identity(connection)
        if application != APPLICATION_ID:
            raise NotARepository(f"{self.path} is not a spraydry repository")
        elif version > FORMAT:
            raise FormatTooNew(f"{self.path} was written by a newer spraydry: install a current one")
        elif version != FORMAT or not self._schema_of(connection) >= _statements(schema):
            raise CorruptData(f"{self.path} is damaged: its tables are not those of a spraydry repository")
        self._check_length(connection)
        if not self.read_only:
            self._set_journal_mode(connection)

    def _check_length(self, connection: apsw.Connection) -> None:
        """SQLite notices that whole pages are missing, not a part of the last one, for which it gives zeros."""
        waiting = _size(self.path + "-wal") + _size(self.path + "-journal")
        if not waiting and _size(self.path) % next(connection.execute("PRAGMA page_size"))[0]:
            raise CorruptData(f"{self.path} is damaged: it was cut short")

    def _connect(self, flags: int) -> apsw.Connection:
        uri = "file:" + quote(os.fsencode(self.path)) + ("?immutable=1" if self._immutable else "")
        connection = apsw.Connection(uri, flags | apsw.SQLITE_OPEN_URI)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        for pragma in ("synchronous = FULL", "cell_size_check = ON", "cache_size = -4000", "mmap_size = 0"):
            connection.execute("PRAGMA " + pragma).fetchall()
        return connection

    def _journal_mode(self) -> str:
        kind = _file_system(self.path)
        return "truncate" if kind in _NETWORK or kind.startswith("fuse.") else "wal"

    def _set_journal_mode(self, connection: apsw.Connection) -> None:
        wanted = self._journal_mode()
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

    def _initialise(self, connection: apsw.Connection, schema: str) -> None:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():  # otherwise another process was faster
            connection.execute(schema)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")

    @staticmethod
    def _schema_of(connection: apsw.Connection) -> set[str]:
        rows = connection.execute("SELECT type, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'")
        found = set()
        for kind, sql in rows:
            if kind != "table" or not isinstance(sql, str):
                raise apsw.CorruptError(f"it holds a {kind} of its own")
            found.add(_folded(sql))
        return found

    def extend(self, schema: str) -> bool:
        """Make the tables of `schema` unless they are there; False where they are missing and cannot be made."""
        wanted = _statements(schema)
        with _translated(self.path), self._reading() as connection:
            found = self._schema_of(connection)
        if not found & wanted:
            if self.read_only:
                return False
            with self.transaction() as connection:
                if not self._schema_of(connection) & wanted:  # otherwise another process was faster
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
        with _translated(self.path):
            try:
                if self._depth and getattr(self._local, "writing", False):
                    assert self._writer is not None
                    return self._writer.execute(sql, tuple(values)).fetchall()
                with self._reading() as connection:
                    return connection.execute(sql, tuple(values)).fetchall()
            except MemoryError:
                raise CorruptData(f"{self.path} is damaged: a value claims an impossible size") from None

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
            with _translated(self.path):
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
                    with _translated(self.path):
                        self._writer.set_busy_timeout(0)
                        self._writer.execute("PRAGMA incremental_vacuum").fetchall()
                        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                except StoreError:
                    pass  # a reader or writer is at work: theirs, or the next checkpoint, does it
                finally:
                    self._writer.set_busy_timeout(BUSY_TIMEOUT_MS)

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


def scratch(cache_bytes: int) -> apsw.Connection:
    """A private database for one thread that vanishes when closed: in memory up to `cache_bytes`, then on disk."""
    connection = apsw.Connection("")
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "temp_store = FILE"):
        connection.execute("PRAGMA " + pragma).fetchall()
    connection.execute(f"PRAGMA cache_size = -{cache_bytes >> 10}").fetchall()
    connection.execute("BEGIN")
    return connection


@contextmanager
def scratch_errors() -> Iterator[None]:
    """Around the use of scratch databases: their errors as ours."""
    with _translated("temporary files ($SQLITE_TMPDIR, $TMPDIR, /var/tmp)"):
        yield


class SqliteStore(Store):
    """Values as rows of one table. Blocks; threads may share it. `database` is there for a catalog in the same file."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.read_only = database.read_only

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        # A part of nothing is NULL to SQLite.
        column = "value" if start == 0 and length is None else "coalesce(substr(value, ?3, ?4), x'')"
        values: list[Any] = [namespace, name]
        if start < 0:  # to SQLite, a start before the value shortens the part
            column = "coalesce(substr(value, max(length(value) + ?3, 0) + 1, ?4), x'')"
        if column != "value":
            values += [start + (start >= 0), (1 << 62) if length is None else length]
        rows = self.database.rows(f"SELECT {column} FROM value WHERE namespace = ?1 AND name = ?2", values)
        if not rows:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        value = rows[0][0]
        if not isinstance(value, bytes):
            raise CorruptData(f"{self.database.path} is damaged: {namespace}/{name} is not a value")
        return value

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        with self.database.transaction() as connection:
            for name, value in values:
                check_key(namespace, name)
                connection.execute(
                    "INSERT INTO value(namespace, name, value) VALUES(?, ?, ?)"
                    " ON CONFLICT(namespace, name) DO UPDATE SET value = excluded.value",
                    (namespace, name, value),
                )

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        check_key(namespace, name)
        sql = "INSERT INTO value(namespace, name, value) VALUES(?, ?, ?) ON CONFLICT DO NOTHING"
        return self.database.execute(sql, (namespace, name, value)) == 1

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        with self.database.transaction() as connection:
            for name in names:
                check_key(namespace, name)
                connection.execute("DELETE FROM value WHERE namespace = ? AND name = ?", (namespace, name))

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        while True:
            rows = self.database.rows(
                "SELECT name, length(value) FROM value WHERE namespace = ? AND name > ? ORDER BY name LIMIT 1000",
                (namespace, after),
            )
            for name, size in rows:
                if not isinstance(name, str) or not isinstance(size, int):
                    raise CorruptData(f"{self.database.path} is damaged: a name in {namespace}/ is not text")
                yield Stored(name, size)
            if len(rows) < 1000:
                return
            after = rows[-1][0]

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        rows = self.database.rows("SELECT length(value) FROM value WHERE namespace = ? AND name = ?", (namespace, name))
        return Stored(name, rows[0][0]) if rows else None

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        check_key(namespace, name)
        check_key(to_namespace, to)
        with self.database.transaction() as connection:
            sql = "UPDATE OR REPLACE value SET namespace = ?, name = ? WHERE namespace = ? AND name = ?"
            connection.execute(sql, (to_namespace, to, namespace, name))
            if not connection.changes():
                raise ValueNotFound(f"{namespace}/{name} is not in the store")

    def stat(self) -> Stat:
        count, held = self.database.rows("SELECT count(*), coalesce(sum(length(value)), 0) FROM value")[0]
        room = os.statvfs(os.path.dirname(self.database.path))
        return Stat(count, held, room.f_bavail * room.f_frsize)

    def destroy(self) -> None:
        with self.database.transaction():
            pass  # raises if it cannot be written
        self.database.close()
        for ending in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(self.database.path + ending)

    @contextmanager
    def batch(self) -> Iterator[object]:
        with self.database.transaction() as connection:
            yield connection

    def flush(self) -> None:
        self.database.checkpoint()

    def close(self) -> None:
        self.database.close()

    def location(self) -> str | None:
        return self.database.path


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> SqliteStore:
    """The store in the file at path `rest`."""
    return SqliteStore(Database(rest, _STORE_SCHEMA, create=create, read_only=read_only))


def _folded(sql: str) -> str:
    return " ".join(sql.split())


def _statements(schema: str) -> set[str]:
    return {_folded(statement) for statement in schema.split(";") if statement.strip()}


def _identity(connection: apsw.Connection) -> tuple[int, int, bool]:
    """Application id, format, and whether there are no tables, all at one moment."""
    connection.execute("BEGIN")
    try:
        application, version = (
            next(connection.execute(f"PRAGMA {name}"))[0] for name in ("application_id", "user_version")
        )
        return application, version, not connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    finally:
        connection.execute("ROLLBACK")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _make_private_file(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except PermissionError:
        raise StoreReadOnly(f"{path} cannot be made: no permission") from None
    except OSError as error:
        raise _of_os(error, path) from None


def _of_os(error: OSError, path: str) -> SprayDryError:
    import errno

    kind = {errno.ENOSPC: StoreFull, errno.EDQUOT: StoreFull, errno.EROFS: StoreReadOnly}.get(
        error.errno or 0, StoreError
    )
    return kind(f"{path} cannot be made: {error.strerror}")


def _is_full(path: str) -> bool:
    try:
        found = os.statvfs(os.path.dirname(path))
    except (OSError, AttributeError):
        return False
    return found.f_bavail * found.f_frsize < 64 << 10


def _file_system(path: str) -> str:
    """The type of the file system `path` lies on, as /proc/self/mounts names it; empty where that is unknown."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            return _type_in(mounts, path)
    except (OSError, ValueError):
        return ""


def _type_in(mounts: Iterable[str], path: str) -> str:
    best, kind = "", ""
    for line in mounts:
        _, point, found = line.split(" ", 3)[:3]
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), point)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind
