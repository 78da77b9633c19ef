"""What versions hold, each content once: where, and from which version to which, in a scratch database."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from spraydry.actions.compare import compare
from spraydry.actions.history import distinct
from spraydry.actions.progress import Done, Report
from spraydry.errors import PathNotFound
from spraydry.format.entry import FILE, Entry, Runs, Subtree, decode_entry, encode_entry
from spraydry.repository.address import Address, parse, resolve
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 32 << 20
_BUFFERED_ROWS = 2000
_TOLD_EVERY = 128
_STILL = -1  # the last version of what the newest of the scope has

# `first` and `last` number the versions of the root. Rows come in path order, so the table grows at its end.
_SCHEMA = """
CREATE TABLE span(scope INTEGER, root INTEGER, path BLOB, first INTEGER, last INTEGER, content BLOB, entry BLOB,
    PRIMARY KEY(scope, path, first)) WITHOUT ROWID;
CREATE TABLE lead(content BLOB PRIMARY KEY, root INTEGER, path BLOB, first INTEGER, entry BLOB) WITHOUT ROWID;
CREATE TABLE marked(content BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_LEAD = """
INSERT INTO lead SELECT content, root, path, first, entry FROM (
    SELECT *, row_number() OVER (PARTITION BY content ORDER BY root, path, first) AS place FROM span)
WHERE place = 1 ORDER BY content
"""


class Scope(NamedTuple):
    """Where to look: versions of a root, the oldest first, the first of them being number `start` of all its versions,
    and a path in them."""

    root: str
    versions: list[Version]
    start: int
    path: bytes


@dataclass(frozen=True)
class Place:
    """A path of a root, and the versions that hold something there: from one to another, as it were in one piece."""

    root: str
    path: bytes
    versions: tuple[tuple[str, str], ...]

    @property
    def where(self) -> str:
        """The versions, without the path: `photos@v1-v7,v9`."""
        return f"{self.root}@{','.join(one if one == other else f'{one}-{other}' for one, other in self.versions)}"


class Content(NamedTuple):
    """Something held, by a name that only what is the same has, and one of the entries that hold it."""

    name: bytes
    entry: Entry


Enough = Callable[[], bool]


def never() -> bool:
    """Enough for who wants all there is."""
    return False


@dataclass(frozen=True)
class Wanted:
    """`fits(path, entry)` says what is wanted, by path (of a root itself: its name), kind and content; if `by_time`,
    also by other attributes, and more has to be gone through."""

    fits: Callable[[bytes, Entry], bool]
    by_time: bool = False


def scopes(repository: Repository, addresses: Sequence[str]) -> list[Scope]:
    """What addresses name, each `ROOT[@VERSION][:PATH]`: without a version all of the root; without any, all roots.

    Raises UsageError, RootNotFound, VersionNotFound, and PathNotFound where none of the versions holds the path.
    """
    parsed = [parse(address) for address in addresses] or [Address(root) for root in repository.roots()]
    found = []
    for address in parsed:
        versions, start = distinct(repository, address.root), 0
        if address.version is not None:
            made_in = repository.log.find(address.root, address.version).made_in
            start = next(place for place, version in enumerate(versions) if version.made_in == made_in)
            versions = versions[start : start + 1]
        if all(_at(repository, version, address.path) is None for version in versions):
            resolve(repository, address)  # says what there is instead
        found.append(Scope(address.root, versions, start, address.path))
    return found


def _at(repository: Repository, version: Version, path: bytes) -> Entry | None:
    try:
        return resolve(repository, Address(version.root, version.name, path)).entry
    except PathNotFound:
        return None


class Contents:
    """All that is wanted in some scopes. A context manager; for one thread.

    From one version to the next only what differs is gone through. Memory is bounded by the scratch database's cache.
    """

    def __init__(
        self,
        repository: Repository,
        scopes: Sequence[Scope],
        wanted: Wanted,
        progress: Report,
        enough: Enough = never,
    ) -> None:
        """Goes through all of it, or as far as it came when there was `enough`. Raises CorruptData, ChunkNotFound where
        a tree cannot be read."""
        self._database = scratch(_CACHE_BYTES)
        self._scopes = scopes
        self._roots = list(dict.fromkeys(scope.root for scope in scopes))
        self._names = [[version.name for version in distinct(repository, root)] for root in self._roots]
        self._rows: list[tuple[int, int, bytes, int, int, bytes, bytes]] = []
        self._ends: list[tuple[int, int, bytes, int, int]] = []
        self._looked = 0
        self._enough = enough
        self._reached = [scope.start - 1 for scope in scopes]  # the last version that was gone through, of each scope
        try:
            with scratch_errors():
                self._database.execute(_SCHEMA)
                for number, scope in enumerate(scopes):
                    self._add(repository, number, scope, wanted, progress)
                self._database.execute("CREATE INDEX span_content ON span(content, root, path, first)")
                self._database.execute(_LEAD)
        except BaseException:
            self._database.close(True)
            raise

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close(True)

    def _add(self, repository: Repository, number: int, scope: Scope, wanted: Wanted, progress: Report) -> None:
        prefix = scope.path + b"/" if scope.path else b""
        own, fits = scope.root.encode(), wanted.fits
        differ = operator.ne if wanted.by_time else _hold_others
        before: Entry | None = None
        looked = self._looked
        for place, version in enumerate(scope.versions, scope.start):
            if self._enough():
                break
            after = _at(repository, version, scope.path)
            for pair in compare(before, after, repository.page, repository.page, differ):
                path = prefix + pair.path if pair.path else scope.path
                old, new = pair.before, pair.after
                if old is not None and not fits(path or own, old):
                    old = None
                if new is not None and not fits(path or own, new):
                    new = None
                if old is None or new is None or not _same(old, new):
                    if old is not None:
                        self._end(number, path, place - 1)
                    if new is not None:
                        self._begin(number, path, place, new)
                looked += 1
                if not looked % _TOLD_EVERY:
                    progress(Done("looking through versions", looked, counted="entries"))
                    if self._enough():
                        break
            else:
                self._reached[number] = place
            before = after
        self._looked = looked
        self._flush()

    def _begin(self, scope: int, path: bytes, place: int, entry: Entry) -> None:
        root = self._roots.index(self._scopes[scope].root)
        self._rows.append((scope, root, path, place, _STILL, content_name(entry), encode_entry(entry)))
        if len(self._rows) >= _BUFFERED_ROWS:
            self._flush()

    def _end(self, scope: int, path: bytes, place: int) -> None:
        self._ends.append((place, scope, path, _STILL, place))
        if len(self._ends) >= _BUFFERED_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO span VALUES(?, ?, ?, ?, ?, ?, ?)", self._rows)
        self._database.executemany(
            "UPDATE span SET last = ? WHERE scope = ? AND path = ? AND last = ? AND first <= ?", self._ends
        )
        self._rows.clear()
        self._ends.clear()

    def by_name(self) -> Iterator[Content]:
        """Each content once, in an order that means nothing."""
        return self._contents("SELECT content, entry FROM lead ORDER BY content")

    def by_place(self) -> Iterator[Content]:
        """Each content once, by the first path that has it."""
        return self._contents("SELECT content, entry FROM lead ORDER BY root, path, first")

    def mark(self, name: bytes) -> None:
        """Say that `marked` is to tell of a content."""
        with scratch_errors():
            self._database.execute("INSERT INTO marked VALUES(?)", (name,))

    def marked(self) -> Iterator[Content]:
        """Each marked content once, by the first path that has it."""
        return self._contents("SELECT content, entry FROM marked JOIN lead USING(content) ORDER BY root, path, first")

    def _contents(self, sql: str) -> Iterator[Content]:
        with scratch_errors():
            for name, entry in self._database.execute(sql):
                assert isinstance(name, bytes) and isinstance(entry, bytes)
                yield Content(name, decode_entry(entry))

    def places(self, name: bytes) -> Iterator[Place]:
        """Where a content is, by root and path; where scopes overlap, once."""
        rows = self._database.execute(
            "SELECT root, path, scope, first, last FROM span WHERE content = ? ORDER BY root, path, first", (name,)
        )
        with scratch_errors():
            for (root, path), spans in groupby(rows, lambda row: row[:2]):
                assert isinstance(root, int) and isinstance(path, bytes)
                joined: list[tuple[int, int]] = []
                for _, _, scope, first, last in spans:
                    assert isinstance(scope, int) and isinstance(first, int) and isinstance(last, int)
                    if last == _STILL:
                        last = max(first, self._reached[scope])
                    if joined and first <= joined[-1][1] + 1:
                        joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
                    else:
                        joined.append((first, last))
                names = self._names[root]
                yield Place(self._roots[root], path, tuple((names[first], names[last]) for first, last in joined))


def _hold_others(one: Entry, other: Entry) -> bool:
    return one.content != other.content or one.kind != other.kind


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries hold the same."""
    if one.content == other.content and one.kind == other.kind:
        return True
    return content_name(one) == content_name(other)


def content_name(entry: Entry) -> bytes:
    """A name for what an entry holds, equal for those that hold the same."""
    content = entry.content
    if entry.kind == FILE and (name := entry.file_digest) is not None:
        return name
    if isinstance(content, Runs):
        return b"manifest " + content.manifest
    if isinstance(content, Subtree):
        return b"tree " + content.digest
    return b"%d " % entry.kind + (content if isinstance(content, bytes) else b"%d" % (content or 0))
