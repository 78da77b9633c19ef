"""What a database must hold: its application id, its format, and tables that are exactly ours."""

from __future__ import annotations

from typing import NamedTuple

import apsw

APPLICATION_ID = 0x53447279  # "SDry"
FORMAT = 1
SEALED = "CREATE TABLE sealed(sealed INTEGER) STRICT"  # a file that has it is only read
PAGE_BYTES = 8192


class Identity(NamedTuple):
    """What a database says it is."""

    application: int
    version: int
    empty: bool  # no tables


def identity(connection: apsw.Connection) -> Identity:
    """All of it at one moment."""
    connection.execute("BEGIN")
    try:
        application, version = (
            next(connection.execute(f"PRAGMA {name}"))[0] for name in ("application_id", "user_version")
        )
        return Identity(application, version, not connection.execute("SELECT 1 FROM sqlite_schema").fetchall())
    finally:
        connection.execute("ROLLBACK")


def initialise(connection: apsw.Connection, schema: str) -> None:
    """Make an empty database one of ours, with the tables of `schema`."""
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT 1 FROM sqlite_schema").fetchall():  # otherwise another process was faster
        connection.execute(schema)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def tables_of(connection: apsw.Connection) -> set[str]:
    """The statements that made its tables. Raises apsw.CorruptError where there is anything else, such as a trigger."""
    rows = connection.execute("SELECT type, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'")
    found = set()
    for kind, sql in rows:
        if kind != "table" or not isinstance(sql, str):
            raise apsw.CorruptError(f"it holds a {kind} of its own")
        found.add(_folded(sql))
    return found


def statements(schema: str) -> set[str]:
    """Those of a schema, as `tables_of` gives them."""
    return {_folded(statement) for statement in schema.split(";") if statement.strip()}


def _folded(sql: str) -> str:
    return " ".join(sql.split())
