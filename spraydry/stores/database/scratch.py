"""Databases that vanish when they are closed, for what is sorted or looked up on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from spraydry.stores.database.errors import translated


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
    with translated("temporary files ($SQLITE_TMPDIR, $TMPDIR, /var/tmp)"):
        yield
