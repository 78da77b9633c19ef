"""Which files moved: contents that are gone at one path and there at another, matched in a scratch database."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.actions.compare import Pair
from spraydry.format.entry import Entry, decode_entry, encode_entry
from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 16 << 20
_BUFFERED_ROWS = 2000

_SCHEMA = """
CREATE TABLE old(digest BLOB, name BLOB, folder BLOB, path BLOB, entry BLOB);
CREATE TABLE new(digest BLOB, name BLOB, folder BLOB, path BLOB);
CREATE TABLE moved(new BLOB PRIMARY KEY, old BLOB UNIQUE, entry BLOB) WITHOUT ROWID;
"""
# The n-th of a content (and name, or folder) on one side goes with the n-th of it on the other, by path: one with one.
_MATCH = """
INSERT INTO moved SELECT new.path, old.path, old.entry
FROM (SELECT *, row_number() OVER (PARTITION BY {0} ORDER BY path) AS place FROM old
    WHERE path NOT IN (SELECT old FROM moved)) AS old
JOIN (SELECT *, row_number() OVER (PARTITION BY {0} ORDER BY path) AS place FROM new
    WHERE path NOT IN (SELECT new FROM moved)) AS new
USING ({0}, place)
"""


class Renames:
    """Made from all pairs of a comparison, asked about them when they come again. A context manager; for one thread.

    Empty files and those without a digest do not move. Memory is bounded by the scratch database's cache.
    """

    def __init__(self, pairs: Iterator[Pair]) -> None:
        with scratch_errors():
            self._database = scratch(_CACHE_BYTES)
            try:
                self._database.execute(_SCHEMA)
                self._any = self._collect(pairs)
                if self._any:
                    for same in ("digest, name", "digest, folder", "digest"):
                        self._database.execute(_MATCH.format(same))
            except BaseException:
                self._database.close(True)
                raise

    def __enter__(self) -> Renames:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close(True)

    def _collect(self, pairs: Iterator[Pair]) -> bool:
        """Whether something may have moved."""
        old: list[tuple[bytes, bytes, bytes, bytes, bytes]] = []
        new: list[tuple[bytes, bytes, bytes, bytes]] = []
        came = went = 0
        for pair in pairs:
            one = pair.after or pair.before
            if one is None or (pair.before is not None and pair.after is not None) or not _tells(one):
                continue
            folder, _, name = pair.path.rpartition(b"/")
            digest = one.file_digest or b""
            if pair.after is None:
                old.append((digest, name, folder, pair.path, encode_entry(one)))
                went += 1
            else:
                new.append((digest, name, folder, pair.path))
                came += 1
            if len(old) + len(new) >= _BUFFERED_ROWS:
                self._write(old, new)
        self._write(old, new)
        return bool(came and went)

    def _write(
        self, old: list[tuple[bytes, bytes, bytes, bytes, bytes]], new: list[tuple[bytes, bytes, bytes, bytes]]
    ) -> None:
        self._database.executemany("INSERT INTO old VALUES(?, ?, ?, ?, ?)", old)
        self._database.executemany("INSERT INTO new VALUES(?, ?, ?, ?)", new)
        old.clear()
        new.clear()

    def moved_away(self, pair: Pair) -> bool:
        """Whether what was removed is somewhere else now."""
        if not self._any or pair.before is None or not _tells(pair.before):
            return False
        with scratch_errors():
            return bool(self._database.execute("SELECT 1 FROM moved WHERE old = ?", (pair.path,)).fetchall())

    def source(self, pair: Pair) -> tuple[bytes, Entry] | None:
        """Where what was added was before, and its entry there; None for what is new."""
        if not self._any or pair.after is None or not _tells(pair.after):
            return None
        with scratch_errors():
            rows = self._database.execute("SELECT old, entry FROM moved WHERE new = ?", (pair.path,)).fetchall()
        for was, entry in rows:
            assert isinstance(was, bytes) and isinstance(entry, bytes)
            return was, decode_entry(entry)
        return None


def _tells(entry: Entry) -> bool:
    return bool(entry.size) and entry.file_digest is not None
