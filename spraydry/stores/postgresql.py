"""A store in a table of a PostgreSQL database: `postgresql://[USER@]HOST[:PORT]/DATABASE[?schema=NAME]`."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

try:
    import psycopg
    from psycopg import errors, sql
except ImportError:
    psycopg = None  # type: ignore[assignment]

from spraydry.errors import NotARepository, StoreNotFound, StoreReadOnly, UsageError, ValueNotFound
from spraydry.stores.base import Stat, Store, Stored, Traits, check_key, check_namespace, check_range, is_key
from spraydry.stores.postgres.address import parsed
from spraydry.stores.postgres.connections import CONNECTIONS, Connections

TABLE = "spraydry_value"
_MAKING = 0x53447279  # the advisory lock of those that make tables
_PAGE = 1000
_LAST_BYTE = (1 << 31) - 2  # PostgreSQL counts with 32 bits, and holds no value of 1 GiB


class PostgresqlStore(Store):
    """Values as rows of one table, in a schema of its own. Blocks, at most two minutes without an answer; threads may
    share it, each statement or batch has a connection of its own. It must not be carried over a fork.

    A batch is a transaction. What was committed is as durable as the server's synchronous_commit says: `on`, the
    default, survives a power cut.
    """

    def __init__(self, connections: Connections, schema: str, url: str, *, read_only: bool) -> None:
        self.read_only = read_only
        self._connections = connections
        self._url = url
        self._schema = schema
        self._table = sql.Identifier(schema, TABLE)

    def enter(self, *, create: bool) -> None:
        """Look whether it is there, and make it if it is to be. Raises StoreNotFound, NotARepository."""
        found = self._rows("SELECT to_regclass({name}) IS NOT NULL", name=sql.Literal(self._table.as_string()))[0][0]
        began_s = time.monotonic()
        self._rows("SELECT 1")
        self.traits = Traits(CONNECTIONS, time.monotonic() - began_s)
        if not found:
            if not create or self.read_only:
                raise StoreNotFound(f"there is no repository at {self._url}")
            self._make()
        self._look()

    def _make(self) -> None:
        with self.batch() as connection:
            # Of two that make it at once, PostgreSQL would tell one that a name is taken.
            self._run(connection, "SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
            self._run(connection, "CREATE SCHEMA IF NOT EXISTS {schema}", schema=sql.Identifier(self._schema))
            self._run(
                connection,
                'CREATE TABLE IF NOT EXISTS {table}(namespace text COLLATE "C" NOT NULL,'
                ' name text COLLATE "C" NOT NULL, value bytea NOT NULL, PRIMARY KEY(namespace, name))',
            )
            # Values are compressed already; and a part of one is read without the rest.
            self._run(connection, "ALTER TABLE {table} ALTER COLUMN value SET STORAGE EXTERNAL")

    def _look(self) -> None:
        """Raises NotARepository where the table is not what it should be."""
        with self._connections.one() as connection, self._connections.translated():
            try:
                with connection.cursor(binary=True) as cursor:
                    cursor.execute(self._sql("SELECT namespace, name, value FROM {table} LIMIT 0"))
                    types = [column.type_code for column in cursor.description or ()]
            except errors.UndefinedColumn:
                types = []
        if types != [25, 25, 17]:  # text, text, bytea
            raise NotARepository(f"{self._url}: its table {TABLE} is not one of a spraydry repository")

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        column, values = "value", []
        if start or length is not None:
            column = "substring(value FROM %s FOR %s)"
            if start < 0:  # a start before the value would shorten the part
                column = "substring(value FROM greatest(octet_length(value) + %s, 0) + 1 FOR %s)"
            room = _LAST_BYTE - max(start, 0)
            values = [max(min(start, _LAST_BYTE), -_LAST_BYTE) + (start >= 0), max(min(length or 0, room), 0)]
            if length is None:
                values[1] = max(room, 0)
        query = f"SELECT {column} FROM {{table}} WHERE namespace = %s AND name = %s"
        rows = self._rows(query, (*values, namespace, name))
        if not rows:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        return bytes(rows[0][0])

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        if not self._connections.in_batch():
            yield from super().get_many(namespace, names)
            return
        for name in names:  # other threads would not see what this one's batch wrote
            try:
                yield name, self.get(namespace, name)
            except ValueNotFound:
                yield name, None

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        query = "SELECT octet_length(value) FROM {table} WHERE namespace = %s AND name = %s"
        rows = self._rows(query, (namespace, name))
        return Stored(name, rows[0][0]) if rows else None

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        query = (
            "SELECT name, octet_length(value) FROM {table} WHERE namespace = %s AND name > %s"
            f" ORDER BY name LIMIT {_PAGE}"
        )
        while True:
            rows = self._rows(query, (namespace, after))
            yield from (Stored(name, size) for name, size in rows if is_key(namespace, name))
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def stat(self) -> Stat:
        """The room left is not known: databases do not tell."""
        count, held = self._rows("SELECT count(*), coalesce(sum(octet_length(value)), 0)::bigint FROM {table}")[0]
        return Stat(count, held)

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()

        def rows() -> Iterator[tuple[str, str, bytes]]:
            for name, value in values:
                check_key(namespace, name)
                yield namespace, name, bytes(value)

        query = (
            "INSERT INTO {table}(namespace, name, value) VALUES(%s, %s, %b)"
            " ON CONFLICT(namespace, name) DO UPDATE SET value = excluded.value"
        )
        with self._connections.one() as connection, self._connections.translated(), ExitStack() as stack:
            if not self._connections.in_batch():  # its beginning and end wait for no answer
                stack.enter_context(connection.pipeline())
                stack.enter_context(connection.transaction())
            stack.enter_context(connection.cursor(binary=True)).executemany(self._sql(query), rows())

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        check_key(namespace, name)
        query = "INSERT INTO {table}(namespace, name, value) VALUES(%s, %s, %b) ON CONFLICT DO NOTHING"
        with self._connections.one() as connection:
            return self._run(connection, query, (namespace, name, bytes(value))) == 1

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        at = iter(names)
        with self.batch() as connection:
            while group := [name for name, _ in zip(at, range(_PAGE), strict=False)]:
                for name in group:
                    check_key(namespace, name)
                self._run(connection, "DELETE FROM {table} WHERE namespace = %s AND name = ANY(%s)", (namespace, group))

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._writable()
        check_key(namespace, name)
        check_key(to_namespace, to)
        here, there = (namespace, name), (to_namespace, to)
        with self.batch() as connection:
            if here == there:
                changed = 1 if self.info(*here) else 0
            else:
                source = "SELECT 1 FROM {table} WHERE namespace = %s AND name = %s"
                self._run(
                    connection,
                    "DELETE FROM {table} WHERE namespace = %s AND name = %s AND EXISTS(" + source + ")",
                    (*there, *here),
                )
                changed = self._run(
                    connection,
                    "UPDATE {table} SET namespace = %s, name = %s WHERE namespace = %s AND name = %s",
                    (*there, *here),
                )
            if not changed:
                raise ValueNotFound(f"{namespace}/{name} is not in the store")

    def destroy(self) -> None:
        """Its table goes, and its schema when nothing else is in it."""
        self._writable()
        with self.batch() as connection:
            self._run(connection, "DROP TABLE {table}")
            others = self._run(
                connection, "SELECT 1 FROM pg_class WHERE relnamespace = %s::regnamespace LIMIT 1", (self._schema,)
            )
            if not others and self._schema != "public":
                self._run(connection, "DROP SCHEMA {schema}", schema=sql.Identifier(self._schema))
        self.close()

    def batch(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A transaction of this thread; inside another one it is part of that."""
        return self._connections.batch()

    def close(self) -> None:
        self._connections.close()

    # -- statements

    def _sql(self, query: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(query).format(table=self._table, **parts)

    def _rows(self, query: str, values: Iterable[Any] = (), **parts: sql.Composable) -> builtins.list[tuple[Any, ...]]:
        with (
            self._connections.one() as connection,
            self._connections.translated(),
            connection.cursor(binary=True) as cursor,
        ):
            return cursor.execute(self._sql(query, **parts), tuple(values)).fetchall()

    def _run(
        self, connection: psycopg.Connection[Any], query: str, values: Iterable[Any] = (), **parts: sql.Composable
    ) -> int:
        """One statement; the number of rows it changed or gave."""
        with self._connections.translated(), connection.cursor(binary=True) as cursor:
            return cursor.execute(self._sql(query, **parts), tuple(values)).rowcount

    def _writable(self) -> None:
        if self.read_only:
            raise StoreReadOnly(f"{self._url} was opened for reading only")


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> PostgresqlStore:
    """The store at `[USER@]HOST[:PORT]/DATABASE[?schema=NAME]`; HOST may be empty, or a socket's folder with %2F.

    What the URL leaves out comes from libpq's variables ($PGHOST, $PGUSER, $PGSERVICE, $PGSSLMODE, ...), the password
    from $PGPASSWORD, ~/.pgpass or a service file. The schema, `spraydry` by default, is that of one repository.
    """
    if psycopg is None:
        raise UsageError(f"{scheme}: needs psycopg: pip install 'spraydry[postgresql]'")
    options, schema = parsed(rest, scheme)
    url = f"{scheme}://{rest}"
    store = PostgresqlStore(Connections(options, url, read_only=read_only), schema, url, read_only=read_only)
    try:
        store.enter(create=create)
        return store
    except BaseException:
        store.close()
        raise
