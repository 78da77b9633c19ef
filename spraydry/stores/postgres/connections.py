"""Connections to a PostgreSQL server: one for each thread that asks, one for a batch, errors as ours."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

try:
    import psycopg
    from psycopg import errors
except ImportError:
    psycopg = None  # type: ignore[assignment]

from spraydry.errors import (
    CorruptData,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from psycopg.abc import PQGen

CONNECTIONS = 8
ANSWER_WITHIN_S = 120.0  # of one statement, also a large one
# Who waits for a lock, or holds one and says nothing, must not stop others for good.
_SETTINGS = "SET statement_timeout = '110s'; SET lock_timeout = '60s'; SET idle_in_transaction_session_timeout = '100s'"

# It warns on the terminal, unless somebody listens, of what is an error here anyway.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

if psycopg is not None:

    class _Connection(psycopg.Connection[Any]):
        """One whose server must answer in time, also when it is halted and its kernel acknowledges what it is sent."""

        def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, timeout or ANSWER_WITHIN_S)
            except BaseException:
                _end(gen)
                raise


class Connections:
    """At most CONNECTIONS at a time to one server, handed on from thread to thread. All methods block, at most two
    minutes without an answer; threads may share it. It must not be carried over a fork.

    `options` are libpq's; `url` is what errors name.
    """

    def __init__(self, options: dict[str, Any], url: str, *, read_only: bool) -> None:
        self._options = options
        self._url = url
        self._read_only = read_only
        self._local = threading.local()  # the connection of this thread's batch
        self._places = threading.BoundedSemaphore(CONNECTIONS)
        self._idle: list[psycopg.Connection[Any]] = []
        self._closed = False

    def in_batch(self) -> bool:
        """Whether this thread has begun a transaction."""
        return getattr(self._local, "connection", None) is not None

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection[Any]]:
        """The one of this thread's batch, or else one for this block alone; they are handed on."""
        if (inside := getattr(self._local, "connection", None)) is not None:
            yield inside
            return
        with self._places:
            connection = self._take()
            try:
                yield connection
            finally:
                idle = psycopg.pq.TransactionStatus.IDLE
                if self._closed or connection.closed or connection.info.transaction_status != idle:
                    connection.close()
                else:
                    self._idle.append(connection)

    def _take(self) -> psycopg.Connection[Any]:
        while True:
            if self._closed:
                raise StoreError(f"{self._url} was closed")
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if not connection.closed:
                return connection

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = _Connection.connect(**self._options, autocommit=True)
        except psycopg.Error as error:
            raise self._of_connecting(error) from None
        try:
            with self.translated():
                read_only = "; SET default_transaction_read_only = on" if self._read_only else ""
                connection.execute((_SETTINGS + read_only).encode())
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def batch(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction of this thread; inside another one it is part of that."""
        inside = getattr(self._local, "connection", None)
        if inside is not None:
            yield inside
            return
        with self.one() as connection:
            self._local.connection = connection
            try:
                with self.translated(), connection.transaction():
                    yield connection
            finally:
                self._local.connection = None

    def close(self) -> None:
        """Close those that are idle, and each that is in use when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """PostgreSQL's errors as ours, in one line each."""
        try:
            yield
        except errors.DiskFull:
            raise StoreFull(f"no room is left for the database of {self._url}: free some space there") from None
        except (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege) as error:
            raise StoreReadOnly(f"{self._url} cannot be written: {_line(error)}") from None
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            raise StoreNotFound(f"{self._url} is gone: its table was dropped") from None
        except (errors.DataCorrupted, errors.IndexCorrupted) as error:
            raise CorruptData(f"{self._url} is damaged: {_line(error)}") from None
        except (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable):
            raise StoreUnavailable(f"{self._url}: another writer was in the way; try again") from None
        except errors.QueryCanceled:
            raise StoreUnavailable(f"{self._url}: the server took too long; try again") from None
        except (errors.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable(f"the connection to {self._url} was lost ({_line(error)}); try again") from None
        except psycopg.Error as error:
            raise StoreError(f"{self._url}: {_line(error)}") from None

    def _of_connecting(self, error: psycopg.Error) -> SprayDryError:
        """What the server says on being connected to has no code to tell it by, only words."""
        text = _line(error)
        if re.search(r'database ".*" does not exist', text):
            return StoreNotFound(f"there is no database for {self._url}: `createdb` makes one")
        if re.search("password|role .* does not exist|authentication failed|pg_hba", text):
            return StoreError(f"{self._url} does not let you in: {text}; passwords belong in ~/.pgpass or $PGPASSWORD")
        return StoreUnavailable(f"{self._url} cannot be reached: {text}; try again later")


def _end(gen: PQGen[Any]) -> None:
    """End what was given up, while the connection is there: left to Python, it would try to go on when that is gone,
    and complain on the terminal."""
    for _ in range(3):  # it may insist on asking for more
        with suppress(psycopg.Error, RuntimeError):
            gen.close()
            return


def _line(error: Exception) -> str:
    """The server's message without the statement, or the library's."""
    told = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((told or str(error)).split())[:300]
