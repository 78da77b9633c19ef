"""The catalog: which frame holds which chunk. Derived from the store's index runs, rebuildable from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import NamedTuple

import apsw

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.run import FrameInfo
from spraydry.repository import chunk_rows
from spraydry.repository.chunk_rows import GONE, ChunkRows
from spraydry.repository.proofs import ProofTable
from spraydry.repository.typed_rows import typed_rows
from spraydry.stores.database.database import Database

SCHEMA = """
CREATE TABLE frame(id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB NOT NULL UNIQUE, class TEXT NOT NULL,
    codec INTEGER NOT NULL, level INTEGER NOT NULL, dictionary BLOB, plain INTEGER NOT NULL, stored INTEGER NOT NULL,
    verified INTEGER NOT NULL) STRICT;
CREATE TABLE run(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE state(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
_DROPPED = "dropped-dictionaries"
_TAKING_CACHE_BYTES = 64 << 20
_INFO = "name, class, codec, level, dictionary, plain, stored"
_INFO_TYPES = (bytes, str, int, int, bytes | None, int, int)


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
        self.usable = database.extend(SCHEMA + chunk_rows.SCHEMA)
        self.chunks = ChunkRows(database)
        self.proofs = ProofTable(database)
        self._unverified: bool | None = None  # whether there are such frames, once that was asked: it reads all rows

    # -- asking

    def claimed(self, digests: Sequence[bytes]) -> set[bytes]:
        """As `chunks.claimed`, which is not asked where all frames are verified."""
        if self._unverified is None:
            self._unverified = bool(self.database.rows("SELECT 1 FROM frame WHERE verified = 0 LIMIT 1"))
        return self.chunks.claimed(digests) if self._unverified else set()

    def frames_between(self, low: bytes, high: bytes, most: int) -> list[bytes]:
        """Up to `most` frames with names from `low` to `high`, sorted."""
        sql = "SELECT name FROM frame WHERE verified >= 0 AND name BETWEEN ? AND ? ORDER BY name LIMIT ?"
        return [row[0] for row in typed_rows(self.database, sql, (low, high, most), bytes)]

    def frames(self, after: int = 0) -> Iterator[tuple[int, FrameInfo]]:
        """All frames that are not condemned by rising id, from the one behind `after`."""
        while True:
            sql = f"SELECT id, {_INFO} FROM frame WHERE id > ? AND verified >= 0 ORDER BY id LIMIT 500"
            rows = typed_rows(self.database, sql, (after,), int, *_INFO_TYPES)
            for row in rows:
                yield row[0], FrameInfo(*row[1:])
            if len(rows) < 500:
                return
            after = rows[-1][0]

    def names(self) -> Iterator[bytes]:
        """The names of all frames, sorted."""
        after = b""
        while rows := typed_rows(
            self.database,
            "SELECT name FROM frame WHERE verified >= 0 AND name > ? ORDER BY name LIMIT 500",
            (after,),
            bytes,
        ):
            yield from (row[0] for row in rows)
            after = rows[-1][0]

    def frames_count(self) -> int:
        """The number of frames it knows, without those that are condemned."""
        return int(self.database.rows("SELECT count(*) FROM frame WHERE verified >= 0")[0][0])

    def newest_frame(self) -> int:
        """The id of the frame that was taken in last; 0 if there is none."""
        return int(self.database.rows("SELECT coalesce(max(id), 0) FROM frame")[0][0])

    def has_frame(self, name: bytes) -> bool:
        """Whether a frame of that name is indexed, and not condemned."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified >= 0", (name,)))

    def is_condemned(self, name: bytes) -> bool:
        """Whether a frame was condemned, as far as this catalog was told, or is deleted."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified < 0", (name,)))

    def frame(self, name: bytes) -> FrameInfo | None:
        """What it knows of a frame."""
        rows = typed_rows(
            self.database, f"SELECT {_INFO} FROM frame WHERE name = ? AND verified >= 0", (name,), *_INFO_TYPES
        )
        return FrameInfo(*rows[0]) if rows else None

    def trusts(self, name: bytes) -> bool:
        """Whether what lies in that frame counts for deduplication."""
        return bool(self.database.rows("SELECT 1 FROM frame WHERE name = ? AND verified = 1", (name,)))

    def usage(self) -> list[Usage]:
        """All frames that are not condemned, summed up by class and dictionary."""
        return [
            Usage(*row)
            for row in typed_rows(
                self.database,
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
        return {row[0] for row in typed_rows(self.database, "SELECT name FROM run", (), str)}

    def state(self, key: str) -> bytes | None:
        """A remembered value."""
        rows = typed_rows(self.database, "SELECT value FROM state WHERE key = ?", (key,), bytes)
        return rows[0][0] if rows else None

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
            self.chunks.add(
                (digest, number, offset, length)
                for digest, place, offset, length in rows
                if (number := ids[place]) is not None
            )
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
        return {row[0]: name for name in dictionaries for row in typed_rows(self.database, users, (name,), bytes)}

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
            for table in ("frame", "run", "state"):
                self.database.execute(f"DELETE FROM {table}")
            self.chunks.clear()
            self.proofs.clear()

    def close(self) -> None:
        """Close the database; the store's own stays open for the store."""
        self.database.close()


def _fields(frame: FrameInfo) -> tuple[object, ...]:
    if len(frame.name) != 32:
        raise CorruptData("a frame's name is not a digest")
    return (frame.name, frame.frame_class, frame.codec, frame.level, frame.dictionary, frame.plain, frame.stored)
