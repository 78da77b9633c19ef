"""When each frame was last read and compared with its name: a table of the catalog, and lost with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spraydry.errors import StoreError
from spraydry.repository.typed_rows import typed_rows
from spraydry.stores.database.database import Database

# Beside the catalog's own tables, not a column of one: a catalog made before stays one, and so does this to older
# programs. `looked_s` is when the run began that read the frame, in seconds since 1970: so a run is one date, and what
# is due lies in the order in which it was stored.
SCHEMA = "CREATE TABLE proof(frame INTEGER PRIMARY KEY, looked_s INTEGER NOT NULL, sound INTEGER NOT NULL) STRICT;"
_PAGE = 500
_UNSOUND = (
    "SELECT frame.id, frame.name, frame.stored FROM proof JOIN frame ON frame.id = proof.frame"
    " WHERE sound = 0 AND verified >= 0"
)
_NEVER = (
    "SELECT frame.id, frame.name, frame.stored FROM frame LEFT JOIN proof ON proof.frame = frame.id"
    " WHERE proof.frame IS NULL AND verified >= 0"
)
_OF_DATE = (
    "SELECT frame.id, frame.name, frame.stored FROM proof JOIN frame ON frame.id = proof.frame AND verified >= 0"
    " WHERE sound = 1 AND looked_s = {0}"
)


@dataclass(frozen=True)
class Due:
    """A frame that is to be looked at: its name, and the bytes it takes in the store."""

    name: bytes
    stored: int


@dataclass(frozen=True)
class Proofs:
    """How many of the frames that are indexed were proved sound, and since when (seconds since 1970; None: none was);
    `damaged` were not, when they were last looked at; `never` were not looked at."""

    frames: int
    proved: int
    damaged: int
    oldest_s: int | None

    @property
    def never(self) -> int:
        return self.frames - self.proved - self.damaged


class ProofTable:
    """Dates of frames by their ids in the catalog. Blocks; threads may share it.

    Not `kept`: the file cannot be written, so that nothing is remembered.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._there = database.extend(SCHEMA)
        self.kept = self._there and not database.read_only

    def note(self, looked_at: Iterable[tuple[bytes, bool]], began_s: int) -> None:
        """Remember of frames (name, and whether it was found sound) that they were looked at by the run that began
        then; those that are not indexed are passed over. Where that cannot be written, nothing is kept from then on."""
        if not self.kept:
            return
        try:
            self._database.execute_many(
                "INSERT OR REPLACE INTO proof SELECT id, ?2, ?3 FROM frame WHERE name = ?1",
                [(name, began_s, int(sound)) for name, sound in looked_at],
            )
        except StoreError:
            self.kept = False  # no room, or a medium that cannot be written: a check needs no memory

    def due(self, began_s: int) -> Iterator[Due]:
        """The frames that the run which began then has not looked at, each once: first those that nobody has, then by
        the age of their proof (one of the future, of a clock that was wrong, comes last); those of one age by rising
        id. Not those found damaged."""
        if not self._there:
            yield from self._by_id("SELECT id, name, stored FROM frame WHERE verified >= 0", "id")
            return
        yield from self._by_id(_NEVER)
        sql = "SELECT DISTINCT looked_s FROM proof WHERE sound = 1 AND looked_s <> ? ORDER BY looked_s"
        for (date,) in self._database.rows(sql, (began_s,)):
            yield from self._by_id(_OF_DATE.format(int(date)))

    def damaged(self) -> Iterator[Due]:
        """The frames that were found damaged when they were last looked at, by rising id."""
        if self._there:
            yield from self._by_id(_UNSOUND)

    def failed(self, name: bytes) -> bool:
        """Whether a frame was found damaged when it was last looked at."""
        return self._there and bool(self._database.rows(f"{_UNSOUND} AND frame.name = ?", (name,)))

    def damaged_before(self, began_s: int) -> int:
        """How many were found damaged, and not looked at by the run that began then."""
        sql = f"SELECT count(*) FROM ({_UNSOUND} AND looked_s <> ?)"
        return int(self._database.rows(sql, (began_s,))[0][0]) if self._there else 0

    def _by_id(self, sql: str, id: str = "frame.id") -> Iterator[Due]:
        after = 0
        page = f"{sql} AND {id} > ? ORDER BY {id} LIMIT {_PAGE}"
        while rows := typed_rows(self._database, page, (after,), int, bytes, int):
            yield from (Due(name, stored) for _, name, stored in rows)
            after = rows[-1][0]

    def summary(self) -> Proofs:
        """What is remembered of all frames."""
        frames = self._database.rows("SELECT count(*) FROM frame WHERE verified >= 0")[0][0]
        if not self._there:
            return Proofs(frames, 0, 0, None)
        proved, damaged, oldest_s = self._database.rows(
            "SELECT coalesce(sum(sound), 0), coalesce(sum(1 - sound), 0), min(CASE sound WHEN 1 THEN looked_s END)"
            " FROM proof WHERE frame IN (SELECT id FROM frame WHERE verified >= 0)"
        )[0]
        return Proofs(frames, proved, damaged, oldest_s)

    def tidy(self) -> None:
        """Forget the dates of frames that are not indexed any more."""
        if self.kept:
            self._database.execute("DELETE FROM proof WHERE frame NOT IN (SELECT id FROM frame WHERE verified >= 0)")

    def clear(self) -> None:
        """Forget everything: of a catalog made anew nothing is known."""
        if self.kept:
            self._database.execute("DELETE FROM proof")
