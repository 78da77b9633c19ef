"""Pages that were made and are not stored: trees are put together in several steps, of which only the last counts."""

from __future__ import annotations

import threading

from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 16 << 20


class NewPages:
    """Pages by their digests, in memory up to a bound, then in a file that vanishes with this. Threads may share it."""

    def __init__(self) -> None:
        with scratch_errors():
            self._database = scratch(_CACHE_BYTES)
            self._database.execute(
                "CREATE TABLE page(name BLOB PRIMARY KEY, plain BLOB, taken INTEGER NOT NULL DEFAULT 0)"
            )
        self._lock = threading.Lock()

    def put(self, name: bytes, plain: bytes) -> None:
        """Keep a page."""
        with self._lock, scratch_errors():
            self._database.execute("INSERT INTO page(name, plain) VALUES(?, ?) ON CONFLICT DO NOTHING", (name, plain))

    def get(self, name: bytes) -> bytes | None:
        """A page; None if it is not here."""
        return self._one("SELECT plain FROM page WHERE name = ?", name)

    def take(self, name: bytes) -> bytes | None:
        """As `get`, but each page only once."""
        return self._one("UPDATE page SET taken = 1 WHERE name = ? AND NOT taken RETURNING plain", name)

    def _one(self, sql: str, name: bytes) -> bytes | None:
        plain: bytes | None = None
        with self._lock, scratch_errors():
            for (found,) in self._database.execute(sql, (name,)):
                plain = found
        return plain

    def close(self) -> None:
        """Let them vanish."""
        with self._lock:
            self._database.close(True)
