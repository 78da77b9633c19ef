"""What a transfer will send: the chunks that are missing, by the frames that hold them, in a scratch database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, cast

from spraydry.actions.transfer.needed import Needed
from spraydry.format.entry import Subtree
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.repository.repository import Repository
from spraydry.stores.database.scratch import scratch

# A frame is copied as it is where so much of it is missing, by plain bytes; of others what is missing is encoded anew.
# So what is sent is at most a tenth more than what is missing takes.
WHOLE_SHARE = 0.91
_BATCH = 2048
_CACHE_BYTES = 32 << 20
_SCHEMA = """
CREATE TABLE subtree(claim BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked(digest BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE frame(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, plain INTEGER NOT NULL, stored INTEGER NOT NULL,
    level INTEGER NOT NULL, needed INTEGER NOT NULL, item INTEGER NOT NULL, whole INTEGER NOT NULL);
CREATE TABLE missing(item INTEGER, frame INTEGER, digest BLOB, part INTEGER, PRIMARY KEY(item, frame, digest))
    WITHOUT ROWID;
CREATE INDEX by_frame ON missing(frame);
"""


class Totals(NamedTuple):
    """What will be sent: `frames` as they are, and `chunks` in new ones; `bytes` (stored) of both, the latter an
    estimate."""

    frames: int
    chunks: int
    bytes: int


class Some(NamedTuple):
    """Chunks (digest, part of a file that has several) of one frame that are encoded anew; `frame` None: they are in no
    frame of the source."""

    frame: bytes | None
    chunks: list[tuple[bytes, bool]]


class Plan:
    """Takes what items need, in their order, and says what to send for each. Blocks; for one thread.

    `unknown` gives those of some chunks that the target lacks. Memory is bounded: the rest is on disk.
    """

    def __init__(self, source: Repository, unknown: Callable[[list[bytes]], set[bytes]]) -> None:
        self._source = source
        self._unknown = unknown
        self._database = scratch(_CACHE_BYTES)
        self._database.execute(_SCHEMA)

    def first(self, subtree: Subtree) -> bool:
        """Whether a subtree was not met before: one of other totals is another, which must not be."""
        key = subtree.digest + repr(subtree.totals).encode()
        self._database.execute("INSERT OR IGNORE INTO subtree VALUES(?)", (key,))
        return self._database.changes() == 1

    def assume(self, chunks: Iterable[Needed]) -> None:
        """Chunks that whoever this is for has, whatever `unknown` says. To be told before anything is added."""
        with_names = ((one.chunk,) for one in chunks)
        self._database.executemany("INSERT OR IGNORE INTO asked VALUES(?)", with_names)

    def add(self, item: int, chunks: Iterable[Needed]) -> None:
        """What item `item` needs, those with lower numbers first."""
        chunks = iter(chunks)
        while some := list(islice(chunks, _BATCH)):
            parts = {one.chunk: one.part for one in some}
            fresh = [
                row[0]
                for row in self._database.executemany(
                    "INSERT INTO asked VALUES(?) ON CONFLICT DO NOTHING RETURNING digest", ((name,) for name in parts)
                )
            ]
            missing = sorted(self._unknown(fresh)) if fresh else []
            places = self._source.catalog.chunks.places(missing)
            needed: dict[bytes, int] = {}
            for _, place in places.values():
                needed[place.frame] = needed.get(place.frame, 0) + place.length
            numbers = {frame: self._frame(frame, length, item) for frame, length in needed.items()}
            self._database.executemany(
                "INSERT INTO missing VALUES(?, ?, ?, ?)",
                (
                    (item, numbers[places[name][1].frame] if name in places else 0, name, parts[name])
                    for name in missing
                ),
            )

    def _frame(self, name: bytes, needed: int, item: int) -> int:
        """The number of a frame, of which so many more bytes are needed; 0 where it counts for nothing any more."""
        rows = self._rows("UPDATE frame SET needed = needed + ? WHERE name = ? RETURNING id", needed, name)
        if rows:
            return int(rows[0][0])
        info = self._source.catalog.frame(name)
        if info is None:
            return 0
        self._database.execute(
            "INSERT INTO frame(name, plain, stored, level, needed, item, whole) VALUES(?, ?, ?, ?, ?, ?, 0)",
            (info.name, info.plain, info.stored, info.level, needed, item),
        )
        return self._database.last_insert_rowid()

    def settle(self) -> Totals:
        """Decide which frames are copied as they are, when all was added."""
        self._database.execute("UPDATE frame SET whole = (needed >= plain * ?)", (WHOLE_SHARE,))
        frames, whole_bytes, some_bytes = self._rows(
            "SELECT coalesce(sum(whole), 0), coalesce(sum(whole * stored), 0),"
            " coalesce(sum((1 - whole) * stored * min(needed, plain) / plain), 0) FROM frame"
        )[0]
        chunks = self._rows(
            "SELECT count(*) FROM missing LEFT JOIN frame ON frame.id = missing.frame WHERE coalesce(whole, 0) = 0"
        )[0][0]
        return Totals(frames, chunks, whole_bytes + some_bytes)

    @property
    def nowhere(self) -> int:
        """How many chunks are in no frame of the source."""
        return int(self._rows("SELECT count(*) FROM missing WHERE frame = 0")[0][0])

    @property
    def level(self) -> int:
        """The zstd level most of what is encoded anew had."""
        rows = self._rows("SELECT level FROM frame WHERE whole = 0 GROUP BY level ORDER BY sum(needed) DESC LIMIT 1")
        return int(rows[0][0]) if rows else DEFAULT_LEVEL

    def whole(self, item: int) -> Iterator[bytes]:
        """The frames to be copied as they are that no item before needed."""
        after = 0
        sql = "SELECT id, name FROM frame WHERE item = ? AND whole AND id > ? ORDER BY id LIMIT 500"
        while rows := self._rows(sql, item, after):
            yield from (name for _, name in rows)
            after = rows[-1][0]

    def wanted(self, frame: bytes) -> set[bytes]:
        """The chunks that are to come with a frame."""
        rows = self._rows("SELECT digest FROM missing WHERE frame = (SELECT id FROM frame WHERE name = ?)", frame)
        return {row[0] for row in rows}

    def break_up(self, frame: bytes) -> None:
        """A frame is not what it should be: what is wanted of it is looked for one by one, when its item comes."""
        self._database.execute("UPDATE frame SET whole = 0 WHERE name = ?", (frame,))

    def parts(self, item: int) -> Iterator[Some]:
        """What is to be encoded anew for an item."""
        after = -1
        sql = "SELECT DISTINCT frame FROM missing WHERE item = ? AND frame > ? ORDER BY frame LIMIT 500"
        while rows := self._rows(sql, item, after):
            for (number,) in rows:
                named = self._rows("SELECT name, whole FROM frame WHERE id = ?", number)
                if named and named[0][1]:
                    continue
                chunks = self._rows("SELECT digest, part FROM missing WHERE item = ? AND frame = ?", item, number)
                yield Some(named[0][0] if named else None, [(name, bool(part)) for name, part in chunks])
            after = rows[-1][0]

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return self._database.execute(sql, cast(Any, values)).fetchall()

    def close(self) -> None:
        """Let go of the scratch database."""
        self._database.close(True)
