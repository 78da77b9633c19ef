"""What was found, kept in a scratch database until it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spraydry.actions.grep.search import Line
from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 32 << 20
_SCHEMA = """
CREATE TABLE content(name BLOB PRIMARY KEY, binary INTEGER, problem TEXT) WITHOUT ROWID;
CREATE TABLE line(name BLOB, number INTEGER, text BLOB, fits INTEGER, PRIMARY KEY(name, number)) WITHOUT ROWID;
"""


class Hits:
    """Lines by the content they are of. A context manager; for one thread. Memory is bounded by the cache."""

    def __init__(self) -> None:
        self._database = scratch(_CACHE_BYTES)
        with scratch_errors():
            self._database.execute(_SCHEMA)

    def __enter__(self) -> Hits:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close(True)

    def add(self, name: bytes, binary: bool, lines: Sequence[Line], problem: str | None) -> bool:
        """More of a content; True the first time that anything is told of it."""
        with scratch_errors():
            self._database.execute("INSERT OR IGNORE INTO content VALUES(?, ?, NULL)", (name, binary))
            new = self._database.changes() == 1
            if problem is not None:
                self._database.execute("UPDATE content SET problem = ? WHERE name = ?", (problem, name))
            self._database.executemany("INSERT INTO line VALUES(?, ?, ?, ?)", ((name, *line) for line in lines))
        return new

    def about(self, name: bytes) -> tuple[bool, str | None]:
        """Of a content whether it is binary, and why it could not be read."""
        with scratch_errors():
            rows = self._database.execute("SELECT binary, problem FROM content WHERE name = ?", (name,)).fetchall()
        binary, problem = rows[0]
        return bool(binary), None if problem is None else str(problem)

    def lines(self, name: bytes) -> Iterator[Line]:
        """The lines of a content, in order."""
        with scratch_errors():
            for number, text, fits in self._database.execute(
                "SELECT number, text, fits FROM line WHERE name = ? ORDER BY number", (name,)
            ):
                assert isinstance(number, int) and isinstance(text, bytes)
                yield Line(number, text, bool(fits))
