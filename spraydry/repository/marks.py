"""Marks: which chunks something names, in a database that vanishes, and what of each frame lives by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from spraydry.format.run import FrameInfo
from spraydry.repository.catalog import Catalog
from spraydry.repository.chunk_rows import GONE, LEVELS
from spraydry.stores.database.database import Row
from spraydry.stores.database.errors import translated

# Its pages, and as much again while rows are sorted: of a million chunks most marks fit.
_CACHE_BYTES = 32 << 20
_TOGETHER = 50_000

_SCHEMA = """
CREATE TABLE mark(digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE walked(page BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE alive(frame INTEGER NOT NULL, digest BLOB, length INTEGER NOT NULL, best INTEGER NOT NULL,
    PRIMARY KEY(frame, digest)) WITHOUT ROWID;
CREATE TABLE life(frame INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
CREATE TABLE spared(name BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE stored(name BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
"""
# Rows of frames that are not condemned, in all levels.
_ROWS = " UNION ALL ".join(
    f"SELECT chunk.digest, chunk.frame, chunk.length FROM file.chunk_{level} AS chunk" for level in range(LEVELS)
)
# One place for each chunk: in the newest of the frames this repository has decoded, else in the newest of those that
# others named; then all of these keep it, for such a claim may be wrong.
_BEST = f"""
SELECT digest, frame, length, max(frame.verified * 0x1000000000000 + frame.id) AS rank, count(*) AS places
    FROM ({_ROWS}) AS chunk JOIN file.frame AS frame ON frame.id = chunk.frame AND frame.verified >= 0
    WHERE {{0}} (SELECT 1 FROM mark WHERE mark.digest = chunk.digest) GROUP BY chunk.digest
"""
_DEAD_ROWS = f"SELECT * FROM ({_ROWS}) AS chunk WHERE NOT EXISTS (SELECT 1 FROM mark WHERE digest = chunk.digest)"
_ALIVE = _BEST.format("EXISTS")
_DEAD = _BEST.format("frame.name NOT IN (SELECT name FROM spared) AND NOT EXISTS")


class Life(NamedTuple):
    """A frame, and how many of its plain bytes something names and has nowhere else."""

    id: int
    info: FrameInfo
    bytes: int


class Marks:
    """Chunks that are named by something. Not thread-safe; blocks. Bounded memory: what does not fit is on disk.

    What it says of frames is as the catalog knew them at the last `weigh`.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._connection = catalog.database.beside(_CACHE_BYTES)
        self._path = catalog.database.path
        self._sql(_SCHEMA)

    def _sql(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        with translated(self._path):
            found: list[Row] = self._connection.execute(sql, tuple(values)).fetchall()
        return found

    def _many(self, sql: str, rows: Iterable[Sequence[Any]]) -> list[Row]:
        with translated(self._path), self._connection:
            found: list[Row] = self._connection.executemany(sql, rows).fetchall()
        return found

    # -- marking

    def add(self, names: Iterable[bytes]) -> None:
        """Mark chunks."""
        held: set[bytes] = set()
        for name in names:
            held.add(name)
            if len(held) >= _TOGETHER:
                self._mark(held)
        self._mark(held)

    def _mark(self, held: set[bytes]) -> None:
        self._many("INSERT OR IGNORE INTO mark VALUES(?)", [(name,) for name in sorted(held)])
        held.clear()

    def unwalked(self, pages: Sequence[bytes]) -> set[bytes]:
        """Those of these keys that were not given before."""
        rows = self._many("INSERT OR IGNORE INTO walked VALUES(?) RETURNING page", [(page,) for page in sorted(pages)])
        return {bytes(row[0]) for row in rows}

    def forget_walked(self, pages: Iterable[bytes]) -> None:
        """These keys were not given, after all."""
        self._many("DELETE FROM walked WHERE page = ?", ((page,) for page in pages))

    def has(self, names: Sequence[bytes]) -> set[bytes]:
        """Those of these chunks that are marked."""
        rows = self._many("SELECT digest FROM mark WHERE digest = ?", [(name,) for name in names])
        return {bytes(row[0]) for row in rows}

    def names(self) -> Iterator[bytes]:
        """All marked chunks, sorted."""
        after = b""
        while rows := self._sql(
            f"SELECT digest FROM mark WHERE digest > ? ORDER BY digest LIMIT {_TOGETHER}", (after,)
        ):
            yield from (row[0] for row in rows)
            after = rows[-1][0]

    def without(self, others: Marks, names: Iterable[bytes]) -> None:
        """Mark those of these chunks that are not marked in `others`."""
        held: list[bytes] = []
        for name in names:
            held.append(name)
            if len(held) >= _TOGETHER:
                self._mark(set(held) - others.has(held))
                held.clear()
        self._mark(set(held) - others.has(held))

    def spare(self, frames: Iterable[bytes]) -> None:
        """Count these frames as living whatever is in them."""
        self._many("INSERT OR IGNORE INTO spared VALUES(?)", ((name,) for name in frames))

    # -- weighing

    def weigh(self) -> None:
        """Find what lives in each frame."""
        self._sql("DELETE FROM life")
        self._sql("DELETE FROM alive")
        # Once, and in the order of the table: of a million chunks this takes seconds, and all else is asked of it.
        self._sql(f"INSERT INTO alive SELECT frame, digest, length, 1 FROM ({_ALIVE}) ORDER BY frame, digest")
        if self._sql("SELECT 1 FROM file.frame WHERE verified = 0 LIMIT 1"):
            self._sql(
                f"""INSERT OR IGNORE INTO alive SELECT chunk.frame, chunk.digest, chunk.length, 0
                FROM ({_ALIVE} HAVING rank < 0x1000000000000 AND count(*) > 1) AS best
                JOIN ({_ROWS}) AS chunk ON chunk.digest = best.digest AND chunk.frame != best.frame
                JOIN file.frame AS frame ON frame.id = chunk.frame AND frame.verified >= 0"""
            )
        self._sql("INSERT INTO life SELECT frame, sum(length) FROM alive GROUP BY frame")

    def dead_bytes(self) -> int:
        """The plain bytes of all chunks in frames that are neither marked nor spared, each counted once."""
        return self._number(f"SELECT coalesce(sum(length), 0) FROM ({_DEAD})")

    def staying_bytes(self, below: float) -> int:
        """As `dead_bytes`, of those that are in some frame of which at least the part `below` lives."""
        return self._number(
            f"SELECT coalesce(sum(length), 0) FROM (SELECT max(length) AS length FROM ({_DEAD_ROWS}) AS dead"
            " JOIN life ON life.frame = dead.frame JOIN file.frame AS frame ON frame.id = dead.frame"
            f" WHERE life.bytes >= {below} * frame.plain GROUP BY dead.digest)"
        )

    def living_bytes(self) -> int:
        """The plain bytes of all marked chunks that are in some frame, each counted once, as of the last `weigh`."""
        return self._number("SELECT coalesce(sum(length), 0) FROM alive WHERE best")

    def missing(self) -> int:
        """The number of marked chunks that are in no frame, as of the last `weigh`."""
        return self._number("SELECT count(*) FROM mark") - self._number("SELECT count(*) FROM alive WHERE best")

    def frames(self, below: float = 1.0, at_least: int = 0) -> Iterator[Life]:
        """The frames of whose plain bytes a smaller part than `below` lives, but at least so many bytes; by rising id.
        Those that are spared are left out."""
        after = 0
        while True:
            rows = self._sql(
                """SELECT frame.id, frame.name, class, codec, level, dictionary, plain, stored, coalesce(bytes, 0)
                FROM file.frame AS frame LEFT JOIN life ON life.frame = frame.id
                WHERE frame.id > ? AND verified >= 0 AND coalesce(bytes, 0) < ? * plain AND coalesce(bytes, 0) >= ?
                AND frame.name NOT IN (SELECT name FROM spared) ORDER BY frame.id LIMIT 500""",
                (after, below, at_least),
            )
            for row in rows:
                yield Life(row[0], FrameInfo(*row[1:8]), row[8])
            if len(rows) < 500:
                return
            after = rows[-1][0]

    def stored_share(self) -> int:
        """What the marked chunks take up: of each frame the part of its stored bytes that they are of its plain
        ones, as of the last `weigh`."""
        return self._number(
            "SELECT cast(coalesce(sum(1.0 * stored * bytes / plain), 0) AS INTEGER)"
            " FROM life JOIN file.frame AS frame ON frame.id = life.frame"
        )

    def chunks(self, frame: int) -> set[bytes]:
        """The chunks that live in a frame, and are not taken to live in another one."""
        rows = self._sql("SELECT digest FROM alive WHERE frame = ? AND best", (frame,))
        return {bytes(row[0]) for row in rows}

    # -- beside the catalog

    def note_stored(self, values: Iterable[tuple[bytes, int]]) -> None:
        """Which frames the store holds, with their sizes."""
        self._sql("DELETE FROM stored")
        self._many("INSERT OR IGNORE INTO stored VALUES(?, ?)", values)

    def forget_stored(self, names: Iterable[bytes]) -> None:
        """The store does not hold these frames any more."""
        self._many("DELETE FROM stored WHERE name = ?", ((name,) for name in names))

    def orphans(self) -> list[tuple[bytes, int]]:
        """The frames in the store of which the catalog never heard, and which are not spared."""
        rows = self._sql(
            "SELECT name, size FROM stored WHERE name NOT IN (SELECT name FROM spared)"
            " AND NOT EXISTS (SELECT 1 FROM file.frame WHERE frame.name = stored.name)"
        )
        return [(bytes(row[0]), int(row[1])) for row in rows]

    def dictionaries(self, going: Iterable[bytes]) -> set[bytes] | None:
        """The dictionaries used by frames that are stored, or named by some run and not deleted, but for frames that
        are `going`; None where the catalog cannot tell of one of them."""
        self._sql("CREATE TABLE IF NOT EXISTS going(name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._sql("DELETE FROM going")
        self._many("INSERT OR IGNORE INTO going VALUES(?)", ((name,) for name in going))
        staying = "name NOT IN (SELECT name FROM going)"
        unknown = self._number(
            f"SELECT EXISTS(SELECT 1 FROM stored WHERE {staying} AND NOT EXISTS"
            " (SELECT 1 FROM file.frame WHERE frame.name = stored.name AND frame.class != '')) OR"
            f" EXISTS(SELECT 1 FROM file.frame WHERE class = '' AND verified > {GONE} AND {staying})"
        )
        if unknown:
            return None
        rows = self._sql(
            f"SELECT DISTINCT dictionary FROM file.frame WHERE dictionary IS NOT NULL AND {staying}"
            f" AND (verified > {GONE} OR name IN (SELECT name FROM stored))"
        )
        return {bytes(row[0]) for row in rows}

    def stored(self, names: Iterable[bytes]) -> dict[bytes, int]:
        """Those of these frames that the store holds, and their sizes."""
        rows = self._many("SELECT name, size FROM stored WHERE name = ?", ((name,) for name in names))
        return {bytes(row[0]): int(row[1]) for row in rows}

    def _number(self, sql: str) -> int:
        return int(self._sql(sql)[0][0])

    def close(self) -> None:
        """Let go of it all."""
        self._connection.close(True)

    def __enter__(self) -> Marks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
