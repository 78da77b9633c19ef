"""The scan cache of this machine: what each directory held when it was last ingested, so that it need not be read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import msgspec

from spraydry.errors import CorruptData, FormatTooNew, NotARepository, SprayDryError
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.repository.local import cache_folder
from spraydry.repository.repository import Repository
from spraydry.stores.database.database import Database

_SCHEMA = """
CREATE TABLE base(id INTEGER PRIMARY KEY, slot INTEGER NOT NULL, record BLOB NOT NULL, spec TEXT NOT NULL,
    sources BLOB NOT NULL) STRICT;
CREATE TABLE directory(path BLOB NOT NULL, page INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY(path, page)) STRICT, WITHOUT ROWID;
"""
PAGE_ROWS = 2048
# A file system may stamp two changes within one tick of its clock with the same time: mostly of 10 ms; of a second
# where its inodes have no room for more (ext3, HFS+), of two on FAT.
_CLOCK_NS = 100_000_000
_COARSE_CLOCK_NS = 2_100_000_000
_AHEAD_PAGES = 32  # looked up together, for a walk asks in nearly their order: alone, each took 8 us more
_KEPT_BYTES = 1 << 20  # stored together: alone, each directory took 25 us more


def folded(time_ns: int) -> int:
    """A time as the cache keeps it, where it is only compared: far years do not fit 64 bits in ns."""
    return time_ns & ((1 << 63) - 1)


def is_settled(ctime_ns: int, began_ns: int) -> bool:
    """Whether what was last changed at `ctime_ns` shows it when it changes again after `began_ns`: its time differs."""
    whole_seconds = ctime_ns % 10**9 == 0
    return ctime_ns < began_ns - (_COARSE_CLOCK_NS if whole_seconds else _CLOCK_NS)


class Cached(msgspec.Struct, array_like=True, frozen=True):
    """One entry of a directory as it was found: valid while inode, size and times are the same.

    `entry` is the encoded Entry, None for a directory, whose own row says the rest.
    """

    name: bytes
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    entry: bytes | None


class CachedDirectory(msgspec.Struct, array_like=True, frozen=True):
    """A directory as it was found; `entry` is its encoded Entry with the Subtree it had. Pages after the first have
    further rows, sorted by name throughout, and no entry."""

    device: int
    inode: int
    ctime_ns: int
    entry: bytes
    rows: tuple[Cached, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CachedDirectory)


class ScanCache:
    """Used by one ingest of one root at a time. Losing it costs reading every file once more.

    What it says is tied to the version it was made with: it counts only while that is live in the log, because only
    then is all it names still stored. Changes are kept by `commit` and lost without it. Nothing that is wrong with its
    file (locked, damaged, a full disk) ends an ingest: it then does without, and a damaged file is made anew.
    """

    def __init__(
        self, repository: Repository, root: str, spec: str, sources: Sequence[bytes], *, create: bool = True
    ) -> None:
        self._spec = spec
        self._sources = _encoder.encode(list(sources))
        self._stack = ExitStack()
        self._database: Database | None = None
        self._use = False
        self._kept: list[tuple[bytes, int, bytes]] = []
        self._kept_bytes = 0
        # First pages of directories in a range of paths, up to the end where `_ahead_to` is None.
        self._ahead: dict[bytes, bytes] = {}
        self._ahead_from: bytes = b"\xff"
        self._ahead_to: bytes | None = b""
        self._path = os.path.join(cache_folder(repository.config.repository), f"scan-{root}.sqlite")
        for _ in range(2):
            try:
                self._database = Database(self._path, _SCHEMA, create=create)
                self._stack.enter_context(self._database.transaction())
                base = self._database.rows("SELECT slot, record, spec, sources FROM base")
                if base:
                    slot, record, spec_then, sources_then = base[0]
                    given = (spec_then, sources_then) == (spec, self._sources)
                    self._use = given and repository.log.live_slot(slot, record)
                if not self._use:
                    self._database.execute("DELETE FROM directory")
                return
            except (CorruptData, NotARepository, FormatTooNew) as error:
                self._do_without(error)
            except SprayDryError as error:  # locked by another ingest of this root, or no room
                self._do_without(error)
                return

    def _do_without(self, error: SprayDryError) -> None:
        self._use = False
        self.close()
        if isinstance(error, CorruptData | NotARepository | FormatTooNew):
            _remove(self._path)

    def _execute(self, sql: str, values: Sequence[object]) -> None:
        if self._database is not None:
            try:
                self._database.execute(sql, values)
            except SprayDryError as error:
                self._do_without(error)

    def _page(self, path: bytes, page: int) -> CachedDirectory | None:
        if not self._use or self._database is None:
            return None
        try:
            rows = self._database.rows("SELECT value FROM directory WHERE path = ? AND page = ?", (path, page))
        except SprayDryError as error:
            self._do_without(error)
            return None
        return self._decoded(rows[0][0] if rows else None)

    def _decoded(self, value: bytes | None) -> CachedDirectory | None:
        if value is None:
            return None
        try:
            # What it says goes into a version unread, so a flipped bit here would be one there.
            if digest(value[:-DIGEST_BYTES]) != value[-DIGEST_BYTES:]:
                raise CorruptData(f"{self._path} is damaged")
            return _decoder.decode(value[:-DIGEST_BYTES])
        except msgspec.MsgspecError:
            return None
        except SprayDryError as error:
            self._do_without(error)
            return None

    def find(self, path: bytes) -> CachedDirectory | None:
        """The first page of a directory, by its absolute path."""
        if not self._use or self._database is None:
            return None
        if not (self._ahead_from <= path and (self._ahead_to is None or path <= self._ahead_to)):
            try:
                rows = self._database.rows(
                    "SELECT path, value FROM directory WHERE path >= ? AND page = 0 ORDER BY path LIMIT ?",
                    (path, _AHEAD_PAGES),
                )
            except SprayDryError as error:
                self._do_without(error)
                return None
            self._ahead = dict(rows)
            self._ahead_from = path
            self._ahead_to = rows[-1][0] if len(rows) == _AHEAD_PAGES else None
        return self._decoded(self._ahead.pop(path, None))

    def rows(self, path: bytes, first: CachedDirectory) -> Iterator[Cached]:
        """All rows of a directory, from its first page on."""
        page = 0
        current: CachedDirectory | None = first
        while current is not None:
            yield from current.rows
            if len(current.rows) < PAGE_ROWS:
                return
            page += 1
            current = self._page(path, page)

    def keep(self, path: bytes, page: int, directory: CachedDirectory) -> None:
        """Replace one page of a directory."""
        if self._database is not None:
            value = _encoder.encode(directory)
            self._kept.append((path, page, value + digest(value)))
            self._kept_bytes += len(value)
            if self._kept_bytes >= _KEPT_BYTES:
                self._flush()

    def cut(self, path: bytes, pages: int) -> None:
        """A directory has only so many pages now."""
        if self._use:  # else there were none
            self._execute("DELETE FROM directory WHERE path = ? AND page >= ?", (path, pages))

    def _flush(self) -> None:
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        if self._database is not None:
            try:
                self._database.execute_many("INSERT OR REPLACE INTO directory VALUES(?, ?, ?)", kept)
            except SprayDryError as error:
                self._do_without(error)

    def forget(self, path: bytes) -> None:
        """A directory is gone, and all below it."""
        self._execute(
            "DELETE FROM directory WHERE path = ? OR (path > ? AND path < ?)", (path, path + b"/", path + b"0")
        )

    def commit(self, slot: int, record: bytes) -> None:
        """Keep what was said, as belonging to the version whose record is in `slot`."""
        self._flush()
        if self._database is not None:
            try:
                self._database.execute(
                    "INSERT OR REPLACE INTO base VALUES(1, ?, ?, ?, ?)", (slot, record, self._spec, self._sources)
                )
                self._stack.close()
            except SprayDryError:
                pass  # the next ingest reads every file again
            self._database.close()
            self._database = None

    def close(self) -> None:
        """Give up what was not committed."""
        if self._database is not None:
            with contextlib.suppress(_GiveUp, SprayDryError):
                self._stack.__exit__(_GiveUp, _GiveUp(), None)
            self._database.close()
            self._database = None


class _GiveUp(Exception):
    """Rolls the transaction back."""


def _remove(path: str) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(OSError):
            os.unlink(path + ending)
