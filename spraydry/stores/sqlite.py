"""The default store, in one SQLite file. Layout: FORMAT.md §8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from spraydry.errors import CorruptData, StoreFull, ValueNotFound
from spraydry.stores.base import Stat, Store, Stored, check_key, check_namespace, check_range
from spraydry.stores.database.database import Database
from spraydry.stores.database.files import remove_files

_SCHEMA = """
CREATE TABLE value(id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL,
                   UNIQUE(namespace, name)) STRICT;
"""

# Frames are not stored in the last room of a disk: what removes and collects is a transaction, too, and needs some. Of
# a small disk it is the 16th part.
_KEPT_BYTES = 8 << 20


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
        if namespace == "frames":
            values = [*values]
            self._check_room(sum(len(value) for _, value in values))
        with self.database.transaction() as connection:
            for name, value in values:
                check_key(namespace, name)
                connection.execute(
                    "INSERT INTO value(namespace, name, value) VALUES(?, ?, ?)"
                    " ON CONFLICT(namespace, name) DO UPDATE SET value = excluded.value",
                    (namespace, name, value),
                )

    def _check_room(self, size: int) -> None:
        """Raises StoreFull unless values of that size fit into the journal and then into the file, and some is left."""
        inside, free, of_all = self.database.room()
        if free < size + max(0, size - inside) + min(_KEPT_BYTES, of_all // 16):
            path = self.database.path
            raise StoreFull(f"no room is left for {path}: free some space and run the command again")

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
        _, free, _ = self.database.room()
        return Stat(count, held, free)

    def destroy(self) -> None:
        with self.database.transaction():
            pass  # raises if it cannot be written
        self.database.close()
        remove_files(self.database.path)

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
    return SqliteStore(Database(rest, _SCHEMA, create=create, read_only=read_only))
