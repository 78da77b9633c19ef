"""The catalog: which frame holds which chunk. Derived from the store's index runs, rebuildable from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from types import UnionType
from typing import Any, NamedTuple

import apsw

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.run import FrameInfo
from spraydry.repository.proofs import ProofTable
from spraydry.stores.database.database import Database

# Rows lie in levels, each a keyed table eight times the size of the one before, and are moved down in key order: one
# large keyed table costs a page write per row once it is larger than the cache (146 MB/s of ingest fell to 54).
LEVELS = 5
_FIRST_LEVEL_ROWS = 1 << 16

SCHEMA = """
CREATE TABLE frame(id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, class TEXT NOT NULL,
    codec INTEGER NOT NULL, level INTEGER NOT NULL, dictionary BLOB, plain INTEGER NOT NULL, stored INTEGER NOT NULL,
    verified INTEGER NOT NULL) STRICT;
CREATE TABLE run(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE level(level INTEGER PRIMARY KEY, rows INTEGER NOT NULL) STRICT;
CREATE TABLE state(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
""" + "".join(
    f"CREATE TABLE chunk_{level}(digest BLOB NOT NULL, frame INTEGER NOT NULL, offset INTEGER NOT NULL,"
    f" length INTEGER NOT NULL, PRIMARY KEY(digest, frame)) STRICT, WITHOUT ROWID;\n"
    for level in range(LEVELS)
)

_IN_ANY_LEVEL = " UNION ALL ".join(
    f"SELECT digest, frame, offset, length FROM chunk_{level} WHERE digest" + " {0}" for level in range(LEVELS)
)
# What `verified` says of a frame: 1 decoded by this repository, 0 named by others. Condemned ones have 2 less: they can
# still be read, and count for nothing else. Of deleted ones the name is left, so that no run brings them back.
GONE = -3
_DROPPED = "dropped-dictionaries"
_LOCATE = (
    "SELECT frame.name, chunk.offset, chunk.length FROM ("
    + _IN_ANY_LEVEL.format("= ?1")
    + f") AS chunk JOIN frame ON frame.id = chunk.frame WHERE frame.verified > {GONE}"
    " ORDER BY frame.verified DESC, frame.id DESC"
)
_BATCH = 128
_TAKING_CACHE_BYTES = 64 << 20
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
_INFO = "name, class, codec, level, dictionary, plain, stored"
_INFO_TYPES = (bytes, str, int, int, bytes | None, int, int)


class Place(NamedTuple):
    """Where a chunk lies: `length` bytes at `offset` of the plain bytes of frame `frame` (its name)."""

    frame: bytes
    offset: int
    length: int


class Usage(NamedTuple):
    """Frames of one class with one dictionary (None: without), summed up."""

    frame_class: str
    dictionary: bytes | None
    frames: int
    plain: int
    stored: int


class Catalog:
    """Rows in a SQLite database, which may be the store's own. Blocks; threads may share it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.usable = database.extend(SCHEMA)
        self.proofs = ProofTable(database)
        self._unverified: bool | None = None  # whether there are such frames, once that was asked: it reads all rows

    # -- asking

    def locate(self, digest: bytes) -> list[Place]:
        """Where a chunk lies, the most trusted and newest place first; empty if nowhere."""
        return [Place(*row) for row in self._rows(_LOCATE, (digest,), bytes, int, int)]

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
        if self._unverified is None:
            self._unverified = bool(self.database.rows("SELECT 1 FROM frame WHERE verified = 0 LIMIT 1"))
        return self._in_batches(_CLAIMED, digests) if self._unverified else set()

    def rows_of(self, digests: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Where chunks lie in frames that were decoded here, as (frame, chunk, offset, length)."""
        for digest, verified, _, *place in self._batched(_PLACES, digests, bytes, int, int, bytes, int, int):
            if verified == 1:
                yield place[0], digest, place[1], place[2]

    def _in_batches(self, queries: Sequence[str], digests: Sequence[bytes]) -> set[bytes]:
        """The first column of `_batched`."""
        return {row[0] for row in self._batched(queries, digests, bytes)}

    def _batched(
        self, queries: Sequence[str], digests: Sequence[bytes], *types: type | UnionType
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of the query of each level, asked for _BATCH digests at a time."""
        filled = self._rows("SELECT level FROM level WHERE rows > 0 ORDER BY level DESC", (), int)
        for at in range(0, len(digests), _BATCH):
            part = list(digests[at : at + _BATCH])
            part += part[-1:] * (_BATCH - len(part))
            for (level,) in filled:
                yield from self._rows(queries[level], part, *types)

    def chunks_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Up to `most` chunks with digests from `low` to `high`, sorted."""
        found: set[bytes] = set()
        for level in range(LEVELS):
            sql = (
                f"SELECT DISTINCT chunk.digest FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
                " WHERE chunk.digest BETWEEN ? AND ? ORDER BY chunk.digest LIMIT ?"
            )
            found.update(row[0] for row in self._rows(sql, (low, high, most), bytes))
        return sorted(found)[:most]

    def frames_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Up to `most` frames with names from `low` to `high`, sorted."""
        sql = "SELECT name FROM frame WHERE verified >= 0 AND name BETWEEN ? AND ? ORDER BY name LIMIT ?"
        return [row[0] for row in self._rows(sql, (low, high, most), bytes)]

    def is_empty(self) -> bool:
        """Whether it knows no chunk at all."""
        return not self.database.rows("SELECT 1 FROM level WHERE rows > 0 LIMIT 1")

    def rows_count(self) -> int:
        """The number of its rows, a chunk in several frames counted for each."""
        return int(self.database.rows("SELECT coalesce(sum(rows), 0) FROM level")[0][0])

    def frames(self, after: int = 0) -> Iterator[tuple[int, FrameInfo]]:
        """All frames that are not condemned by rising id, from the one behind `after`."""
        while True:
            sql = f"SELECT id, {_INFO} FROM frame WHERE id > ? AND verified >= 0 ORDER BY id LIMIT 500"
            rows = self._rows(sql, (after,), int, *_INFO_TYPES)
            for row in rows:
                yield row[0], FrameInfo(*row[1:])
            if len(rows) < 500:
                return
            after = rows[-1][0]

    def names(self) -> Iterator[bytes]:
        """The names of all frames, sorted."""
        after = b""
        while rows := self._rows(
            "SELECT name FROM frame WHERE verified >= 0 AND name > ? ORDER BY name LIMIT 500", (after,), bytes
        ):
            yield from (row[0] for row in rows)
            after = rows[-1][0]

    def frames_count(self) -> int:
        """The number of frames it knows, without those that are condemned."""
        return int(self.database.rows("SELECT count(*) FROM frame WHERE verified >= 0")[0][0])

    def newest_frame(self) -> int:
        """The id of the frame that was taken in last; 0 if there is none."""
        return int(self.database.rows("SELECT coalesce(max(id), 0) FROM frame")[0][0])

    def chunks_in(self, names: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The chunks that lie in some of these frames, as (chunk, frame). Reads all rows for each hundred frames."""
        for at in range(0, len(names), 100):
            part = names[at : at + 100]
            wanted = ", ".join("?" * len(part))
            for level in range(LEVELS):
                sql = (
                    f"SELECT chunk.digest, frame.name FROM chunk_{level} AS chunk JOIN frame ON frame.id = chunk.frame"
                )
                where = f" WHERE chunk.frame IN (SELECT id FROM frame WHERE name IN ({wanted}))"
                yield from ((chunk, frame) for chunk, frame in self._rows(sql + where, part, bytes, bytes))

    def has_frame(self, name: bytes) -> bool:
        """Whether a frame of that name is indexed, and not condemned."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified >= 0", (name,)))

    def is_condemned(self, name: bytes) -> bool:
        """Whether a frame was condemned, as far as this catalog was told, or is deleted."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified < 0", (name,)))

    def frame(self, name: bytes) -> FrameInfo | None:
        """What it knows of a frame."""
        rows = self._rows(f"SELECT {_INFO} FROM frame WHERE name = ? AND verified >= 0", (name,), *_INFO_TYPES)
        return FrameInfo(*rows[0]) if rows else None

    def trusts(self, name: bytes) -> bool:
        """Whether what lies in that frame counts for deduplication."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified = 1", (name,)))

    def usage(self) -> list[Usage]:
        """All frames that are not condemned, summed up by class and dictionary."""
        return [
            Usage(*row)
            for row in self._rows(
                "SELECT class, dictionary, count(*), sum(plain), sum(stored) FROM frame"
                " WHERE verified >= 0 GROUP BY class, dictionary ORDER BY class, dictionary",
                (),
                str,
                bytes | None,
                int,
                int,
                int,
            )
        ]

    def runs(self) -> set[str]:
        """The names of the runs that were taken in."""
        return {row[0] for row in self._rows("SELECT name FROM run", (), str)}

    def state(self, key: str) -> bytes | None:
        """A remembered value."""
        rows = self._rows("SELECT value FROM state WHERE key = ?", (key,), bytes)
        return rows[0][0] if rows else None

    def _rows(self, sql: str, values: Iterable[object], *types: type | UnionType) -> list[tuple[Any, ...]]:
        """Rows of which each value is of its column's type: SQLite does not look when it reads, and flipped bits may
        have made text of bytes. Raises CorruptData."""
        rows = self.database.rows(sql, values)
        for row in rows:
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                where = f"{self.database.path} is damaged: its index has a row that cannot be"
                raise CorruptData(f"{where}; `spraydry verify --rebuild` makes it anew")
        return rows

    # -- writing

    @contextmanager
    def taking(self) -> Iterator[None]:
        """A transaction in which runs of many frames are taken in: their names come in no order, so with the usual
        cache of 4 MB nearly each of them is a page read and written (of a million frames: 2.2 GB)."""
        with self.database.transaction() as connection:
            usual = next(connection.execute("PRAGMA cache_size"))[0]
            connection.execute(f"PRAGMA cache_size = {-_TAKING_CACHE_BYTES // 1024}")
            try:
                yield
            finally:
                connection.execute(f"PRAGMA cache_size = {usual}")

    def add_run(
        self, name: str | None, frames: Sequence[FrameInfo], rows: Iterable[tuple[bytes, int, int, int]], verified: bool
    ) -> None:
        """Take in a run, or (None) frames that were read. `verified`: this process encoded or decoded its frames, so
        they count for deduplication. `rows` are those of a Row.

        What was said of a frame unverified is replaced by what is said verified, never the other way round.
        """
        if not verified:
            self._unverified = True
        with self.database.transaction() as connection:
            ids = self._take_frames(connection, frames, verified)
            packed = [
                (digest, number, offset, length)
                for digest, place, offset, length in rows
                if (number := ids[place]) is not None
            ]
            packed.sort()
            level = 0
            while level < LEVELS - 1 and len(packed) > _FIRST_LEVEL_ROWS << 3 * level:
                level += 1
            before = connection.total_changes()
            connection.executemany(f"INSERT OR IGNORE INTO chunk_{level} VALUES(?, ?, ?, ?)", packed)
            self._count(level, connection.total_changes() - before)
            self._move_down()
            self._condemn_users(frame.name for frame in frames if frame.dictionary is not None)
            if name is not None:
                connection.execute("INSERT OR IGNORE INTO run VALUES(?)", (name,))

    def _take_frames(
        self, connection: apsw.Connection, frames: Sequence[FrameInfo], verified: bool
    ) -> Sequence[int | None]:
        """The ids of frames, by their places; None for those whose rows do not count."""
        names = [(frame.name,) for frame in frames]
        if verified:
            # What was said of them unverified may be wrong: under their new ids only these rows count.
            connection.executemany("DELETE FROM frame WHERE name = ? AND verified = 0", names)
        newest = next(connection.execute("SELECT coalesce(max(id), 0) FROM frame"))[0]
        before = connection.total_changes()
        connection.executemany(
            f"INSERT INTO frame({_INFO}, verified) VALUES(?, ?, ?, ?, ?, ?, ?, {verified:d}) ON CONFLICT DO NOTHING",
            map(_fields, frames),
        )
        if connection.total_changes() - before == len(frames):  # all new, so their ids rise as they came
            return [row[0] for row in connection.execute("SELECT id FROM frame WHERE id > ? ORDER BY id", (newest,))]
        found = connection.executemany("SELECT id, verified FROM frame WHERE name = ?", names)
        # Of a verified frame all is known; what another writer says of it must not count as verified.
        return [None if trusted and not verified else known for known, trusted in found]

    def _count(self, level: int, more: int) -> int:
        self.database.execute(
            "INSERT INTO level VALUES(?1, ?2) ON CONFLICT(level) DO UPDATE SET rows = rows + ?2", (level, more)
        )
        return int(self.database.rows("SELECT rows FROM level WHERE level = ?", (level,))[0][0])

    def _move_down(self) -> None:
        for level in range(LEVELS - 1):
            if self._count(level, 0) > _FIRST_LEVEL_ROWS << 3 * level:
                moved = self.database.execute(
                    f"INSERT OR IGNORE INTO chunk_{level + 1} SELECT * FROM chunk_{level}"
                    f" WHERE frame IN (SELECT id FROM frame WHERE verified > {GONE}) ORDER BY digest, frame"
                )
                self.database.execute(f"DELETE FROM chunk_{level}")
                self.database.execute("UPDATE level SET rows = 0 WHERE level = ?", (level,))
                self._count(level + 1, moved)

    def condemn(self, names: Iterable[bytes]) -> None:
        """Frames that are condemned: what is said of them can be read, and counts for nothing. So for those that no
        run named yet, when one does."""
        with self.database.transaction() as connection:
            for name in names:
                connection.execute("UPDATE frame SET verified = verified - 2 WHERE name = ? AND verified >= 0", (name,))
                if not connection.changes():
                    self._note(connection, name, -2)

    def pardon(self, names: Iterable[bytes]) -> None:
        """Frames that are condemned no more."""
        self._unverified = None
        with self.database.transaction() as connection:
            rows = [(name,) for name in names]
            connection.executemany("DELETE FROM frame WHERE name = ? AND verified < 0 AND class = ''", rows)
            connection.executemany(
                f"UPDATE frame SET verified = verified + 2 WHERE name = ? AND verified < 0 AND verified > {GONE}", rows
            )
            self._condemn_users(name for (name,) in rows)

    def dropped(self) -> set[bytes]:
        """The dictionaries that were given up: see `drop`."""
        names = self.state(_DROPPED) or b""
        return {names[at : at + DIGEST_BYTES] for at in range(0, len(names), DIGEST_BYTES)}

    def drop(self, dictionaries: Set[bytes], condemned: Set[bytes]) -> None:
        """Which dictionaries are given up now: the frames that use one of them are condemned, also such as are taken in
        later. Those that are so no more pardon theirs, but for the frames that are `condemned` themselves. To be
        called in a transaction."""
        before = self.dropped()
        if dictionaries == before:
            return
        with self.database.transaction() as connection:
            self._unverified = None
            self.remember(_DROPPED, b"".join(sorted(dictionaries)))
            self._condemn_users(self.users(dictionaries - before))
            connection.executemany(
                "UPDATE frame SET verified = verified + 2 WHERE name = ? AND verified < 0",
                [(name,) for name in self.users(before - dictionaries).keys() - condemned],
            )

    def _condemn_users(self, names: Iterable[bytes]) -> None:
        """Those of these frames that use a dictionary which was given up."""
        if dropped := self.dropped():
            uses = f"dictionary IN ({', '.join('?' * len(dropped))})"
            self.database.execute_many(
                f"UPDATE frame SET verified = verified - 2 WHERE name = ? AND verified >= 0 AND {uses}",
                ((name, *dropped) for name in names),
            )

    def users(self, dictionaries: Iterable[bytes]) -> dict[bytes, bytes]:
        """The frames that use some of these dictionaries, without those that are deleted, each with the one it uses."""
        users = f"SELECT name FROM frame WHERE dictionary = ? AND verified > {GONE}"
        return {row[0]: name for name in dictionaries for row in self._rows(users, (name,), bytes)}

    def forget_frames(self, names: Iterable[bytes]) -> None:
        """Frames that are not there: their rows count no more (and leave the tables when these are next moved down)."""
        self.database.execute_many("DELETE FROM frame WHERE name = ?", ((name,) for name in names))

    def bury(self, names: Iterable[bytes]) -> None:
        """Frames that were collected: as `forget_frames`, and no run that names them brings them back."""
        with self.database.transaction() as connection:
            for name in names:
                connection.execute(f"UPDATE frame SET verified = {GONE} WHERE name = ?", (name,))
                if not connection.changes():
                    self._note(connection, name, GONE)

    @staticmethod
    def _note(connection: apsw.Connection, name: bytes, verified: int) -> None:
        connection.execute(
            f"INSERT INTO frame({_INFO}, verified) VALUES(?, '', 0, 0, NULL, 0, 0, ?) ON CONFLICT DO NOTHING",
            (name, verified),
        )

    def distrust(self, names: Iterable[bytes]) -> None:
        """Frames that may be gone: what is said of them stays, and counts for deduplication once it was verified."""
        self._unverified = None
        self.database.execute_many(
            "UPDATE frame SET verified = 0 WHERE name = ? AND verified = 1", ((name,) for name in [*names])
        )

    def forget_runs(self) -> None:
        """Which runs were taken in, so that all are taken in again; what they said stays."""
        self.database.execute("DELETE FROM run")

    def drop_dead_rows(self) -> None:
        """Take the rows of forgotten frames out of the tables; reads every row."""
        with self.database.transaction():
            for level in range(LEVELS):
                gone = self.database.execute(
                    f"DELETE FROM chunk_{level} WHERE frame NOT IN (SELECT id FROM frame WHERE verified > {GONE})"
                )
                self._count(level, -gone)

    def replace_runs(self, gone: Iterable[str], name: str) -> None:
        """Remember that run `name` now holds what the runs `gone` held: it counts as taken in if all of them were."""
        with self.database.transaction() as connection:
            taken = True
            for run in gone:
                connection.execute("DELETE FROM run WHERE name = ?", (run,))
                taken = taken and bool(connection.changes())
            if taken:
                connection.execute("INSERT OR IGNORE INTO run VALUES(?)", (name,))

    def remember(self, key: str, value: bytes) -> None:
        """Keep a small value."""
        self.database.execute(
            "INSERT INTO state VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = ?2", (key, value)
        )

    def clear(self) -> None:
        """Forget everything, before a rebuild."""
        with self.database.transaction():
            for table in ("frame", "run", "level", "state", *(f"chunk_{level}" for level in range(LEVELS))):
                self.database.execute(f"DELETE FROM {table}")
            self.proofs.clear()

    def close(self) -> None:
        """Close the database; the store's own stays open for the store."""
        self.database.close()


def _fields(frame: FrameInfo) -> tuple[object, ...]:
    if len(frame.name) != 32:
        raise CorruptData("a frame's name is not a digest")
    return (frame.name, frame.frame_class, frame.codec, frame.level, frame.dictionary, frame.plain, frame.stored)
