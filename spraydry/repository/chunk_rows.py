"""The catalog's rows of chunks: where each chunk lies, in tables that grow without slowing down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import UnionType
from typing import Any, NamedTuple

from spraydry.repository.typed_rows import typed_rows
from spraydry.stores.database.database import Database

# Rows lie in levels, each a keyed table eight times the size of the one before, and are moved down in key order: one
# large keyed table costs a page write per row once it is larger than the cache (146 MB/s of ingest fell to 54).
LEVELS = 5
_FIRST_LEVEL_ROWS = 1 << 16

SCHEMA = "CREATE TABLE level(level INTEGER PRIMARY KEY, rows INTEGER NOT NULL) STRICT;\n" + "".join(
    f"CREATE TABLE chunk_{level}(digest BLOB NOT NULL, frame INTEGER NOT NULL, offset INTEGER NOT NULL,"
    f" length INTEGER NOT NULL, PRIMARY KEY(digest, frame)) STRICT, WITHOUT ROWID;\n"
    for level in range(LEVELS)
)

# What `verified` says of a frame: 1 decoded by this repository, 0 named by others. Condemned ones have 2 less: they can
# still be read, and count for nothing else. Of deleted ones the name is left, so that no run brings them back.
GONE = -3

_IN_ANY_LEVEL = " UNION ALL ".join(
    f"SELECT digest, frame, offset, length FROM chunk_{level} WHERE digest" + " {0}" for level in range(LEVELS)
)
_LOCATE = (
    "SELECT frame.name, chunk.offset, chunk.length FROM ("
    + _IN_ANY_LEVEL.format("= ?1")
    + f") AS chunk JOIN frame ON frame.id = chunk.frame WHERE frame.verified > {GONE}"
    " ORDER BY frame.verified DESC, frame.id DESC"
)
_BATCH = 128
_KNOWN = [
    f"SELECT chunk.digest FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
    f" WHERE chunk.digest IN ({', '.join(['?'] * _BATCH)}) AND frame.verified = 1"
    for level in range(LEVELS)
]
_CLAIMED = [
    f"SELECT frame.name FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
    f" WHERE chunk.digest IN ({', '.join(['?'] * _BATCH)}) AND frame.verified = 0"
    for level in range(LEVELS)
]
_PLACES = [
    "SELECT chunk.digest, frame.verified, frame.id, frame.name, chunk.offset, chunk.length"
    f" FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
    f" WHERE chunk.digest IN ({', '.join(['?'] * _BATCH)}) AND frame.verified > {GONE}"
    for level in range(LEVELS)
]


class Place(NamedTuple):
    """Where a chunk lies: `length` bytes at `offset` of the plain bytes of frame `frame` (its name)."""

    frame: bytes
    offset: int
    length: int


class ChunkRows:
    """Rows (chunk, frame, offset, length) in a SQLite database, beside the catalog's table of frames. Blocks; threads
    may share it. Raises CorruptData where the tables are damaged."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def locate(self, digest: bytes) -> list[Place]:
        """Where a chunk lies, the most trusted and newest place first; empty if nowhere."""
        return [Place(*row) for row in typed_rows(self._database, _LOCATE, (digest,), bytes, int, int)]

    def places(self, digests: Sequence[bytes]) -> dict[bytes, tuple[int, Place]]:
        """Of each of `digests` that lies anywhere, the first place that `locate` gives, with the id of its frame: ids
        rise in the order in which frames were taken in."""
        found: dict[bytes, tuple[int, int, Place]] = {}
        for digest, verified, number, *place in self._batched(_PLACES, digests, bytes, int, int, bytes, int, int):
            if digest not in found or found[digest][:2] < (verified, number):
                found[digest] = (verified, number, Place(*place))
        return {digest: (number, place) for digest, (_, number, place) in found.items()}

    def known(self, digests: Sequence[bytes]) -> set[bytes]:
        """Those of `digests` that need not be stored again: some verified frame holds them."""
        return self._in_batches(_KNOWN, digests)

    def claimed(self, digests: Sequence[bytes]) -> set[bytes]:
        """The frames of which others say that they hold some of `digests`, and which nobody here has verified."""
        return self._in_batches(_CLAIMED, digests)

    def rows_of(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Where chunks lie in frames that were decoded here, as (frame, chunk, offset, length)."""
        for digest, verified, _, *place in self._batched(_PLACES, digests, bytes, int, int, bytes, int, int):
            if verified == 1:
                yield place[0], digest, place[1], place[2]

    def between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Up to `most` chunks with digests from `low` to `high`, sorted."""
        found: set[bytes] = set()
        for level in range(LEVELS):
            sql = (
                f"SELECT DISTINCT chunk.digest FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
                " WHERE chunk.digest BETWEEN ? AND ? ORDER BY chunk.digest LIMIT ?"
            )
            found.update(row[0] for row in typed_rows(self._database, sql, (low, high, most), bytes))
        return sorted(found)[:most]

    def is_empty(self) -> bool:
        """Whether it knows no chunk at all."""
        return not self._database.rows("SELECT 1 FROM level WHERE rows > 0 LIMIT 1")

    def rows_count(self) -> int:
        """The number of its rows, a chunk in several frames counted for each."""
        return int(self._database.rows("SELECT coalesce(sum(rows), 0) FROM level")[0][0])

    def in_frames(self, names: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The chunks that lie in some of these frames, as (chunk, frame). Reads all rows for each hundred frames."""
        for at in range(0, len(names), 100):
            part = names[at : at + 100]
            wanted = ", ".join("?" * len(part))
            for level in range(LEVELS):
                sql = (
                    f"SELECT chunk.digest, frame.name FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
                )
                where = f" WHERE chunk.frame IN (SELECT id FROM frame WHERE name IN ({wanted}))"
                yield from (
                    (chunk, frame) for chunk, frame in typed_rows(self._database, sql + where, part, bytes, bytes)
                )

    def add(self, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        """Take in rows (chunk, id of its frame, offset, length); those that are there stay. To be called in a
        transaction."""
        packed = sorted(rows)
        level = 0
        while level < LEVELS - 1 and len(packed) > _FIRST_LEVEL_ROWS << 3 * level:
            level += 1
        with self._database.transaction() as connection:
            before = connection.total_changes()
            connection.executemany(f"INSERT OR IGNORE INTO chunk_{level} VALUES(?, ?, ?, ?)", packed)
            self._count(level, connection.total_changes() - before)
        self._move_down()

    def drop_dead_rows(self) -> None:
        """Take the rows of forgotten frames out of the tables; reads every row."""
        with self._database.transaction():
            for level in range(LEVELS):
                gone = self._database.execute(
                    f"DELETE FROM chunk_{level} WHERE frame NOT IN (SELECT id FROM frame WHERE verified > {GONE})"
                )
                self._count(level, -gone)

    def clear(self) -> None:
        """Forget everything."""
        with self._database.transaction():
            for table in ("level", *(f"chunk_{level}" for level in range(LEVELS))):
                self._database.execute(f"DELETE FROM {table}")

    def _in_batches(self, queries: Sequence[str], digests: Sequence[bytes]) -> set[bytes]:
        """The first column of `_batched`."""
        return {row[0] for row in self._batched(queries, digests, bytes)}

    def _batched(
        self, queries: Sequence[str], digests: Sequence[bytes], *types: type | UnionType
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of the query of each level, asked for _BATCH digests at a time."""
        filled = typed_rows(self._database, "SELECT level FROM level WHERE rows > 0 ORDER BY level DESC", (), int)
        for at in range(0, len(digests), _BATCH):
            part = list(digests[at : at + _BATCH])
            part += part[-1:] * (_BATCH - len(part))
            for (level,) in filled:
                yield from typed_rows(self._database, queries[level], part, *types)

    def _count(self, level: int, more: int) -> int:
        self._database.execute(
            "INSERT INTO level VALUES(?1, ?2) ON CONFLICT(level) DO UPDATE SET rows = rows + ?2", (level, more)
        )
        return int(self._database.rows("SELECT rows FROM level WHERE level = ?", (level,))[0][0])

    def _move_down(self) -> None:
        for level in range(LEVELS - 1):
            if self._count(level, 0) > _FIRST_LEVEL_ROWS << 3 * level:
                moved = self._database.execute(
                    f"INSERT OR IGNORE INTO chunk_{level + 1} SELECT * FROM chunk_{level}"
                    f" WHERE frame IN (SELECT id FROM frame WHERE verified > {GONE}) ORDER BY digest, frame"
                )
                self._database.execute(f"DELETE FROM chunk_{level}")
                self._database.execute("UPDATE level SET rows = 0 WHERE level = ?", (level,))
                self._count(level + 1, moved)
