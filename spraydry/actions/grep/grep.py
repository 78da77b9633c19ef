"""Searching the files of versions for a pattern: what they hold is gathered, read frame by frame, told by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spraydry.actions.contents import Content, Contents, Enough, Place, Wanted, never, scopes
from spraydry.actions.grep.hits import Hits
from spraydry.actions.grep.order import Order
from spraydry.actions.grep.search import Line, Pattern
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import SprayDryError
from spraydry.format.entry import FILE, Entry
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import read_ahead, threads_of
from spraydry.repository.repository import Repository
from spraydry.repository.stream import parts

WHOLE_BYTES = 16 << 20  # longer files are searched piece by piece; so is a line that is longer
_LOOKED_AT_BYTES = 32 << 10  # a zero byte in so many at the beginning says that a file is no text


@dataclass(frozen=True)
class Matched:
    """A content with lines that fit, as one of the entries that have it tells, and the places where it is.

    Of a `binary` file no lines are told; one that could not be read has a `problem` instead.
    """

    entry: Entry
    places: Iterator[Place]
    binary: bool
    lines: Iterator[Line]
    problem: str | None


class _Searched(NamedTuple):
    content: Content
    binary: bool
    lines: list[Line]
    problem: str | None


@dataclass(frozen=True)
class _Search:
    """Reads contents and searches them. Threads may share it."""

    repository: Repository
    pattern: Pattern
    before: int
    after: int
    only_names: bool

    def group(self, contents: list[Content]) -> list[_Searched]:
        """Those of contents that fit or cannot be read. Raises only what may be otherwise when it is tried again."""
        searched = (self._one(content) for content in contents)
        return [one for one in searched if one is not None]

    def _one(self, content: Content) -> _Searched | None:
        try:
            text = self._text(content.entry)
        except SprayDryError as error:
            if error.retryable:
                raise
            return _Searched(content, False, [], str(error))
        if not self.pattern.may_fit(text):
            return None
        binary = is_binary(text)
        if binary or self.only_names:
            return _Searched(content, binary, [], None) if self.pattern.fits(text) else None
        lines = list(self.pattern.lines(text, self.before, self.after))
        return _Searched(content, False, lines, None) if lines else None

    def _text(self, entry: Entry) -> bytes:
        if isinstance(entry.content, bytes):
            return bytes(self.repository.read_chunk(entry.content))
        read = parts(entry, self.repository.read_chunk)
        return b"".join(bytes(span.length) if chunk is None else bytes(chunk) for span, chunk in read)

    def long(self, content: Content) -> Iterator[_Searched]:
        """As `group`, of one content of any length, some lines at a time. Lines around a match are not told across the
        pieces of WHOLE_BYTES in which it is read."""
        try:
            binary: bool | None = None
            number = 1
            for text in pieces(self.repository, content.entry):
                binary = is_binary(text) if binary is None else binary
                if not binary and not self.only_names:
                    if lines := list(self.pattern.lines(text, self.before, self.after, number)):
                        yield _Searched(content, False, lines, None)
                    number += text.count(b"\n")
                elif self.pattern.fits(text):
                    yield _Searched(content, binary, [], None)
                    return
        except SprayDryError as error:
            if error.retryable:
                raise
            yield _Searched(content, False, [], str(error))


def is_binary(text: bytes) -> bool:
    """Whether the beginning of a file, or all of it, looks like no text."""
    return b"\0" in text[:_LOOKED_AT_BYTES]


def pieces(repository: Repository, entry: Entry) -> Iterator[bytes]:
    """A long file in pieces that end with a line; of a line that is longer than a piece, each is taken for one."""
    held = bytearray()
    for span, chunk in read_ahead(repository, entry):
        left = span.length
        while left:  # a hole may be longer than memory
            more = bytes(min(left, WHOLE_BYTES)) if chunk is None else bytes(chunk)
            left -= len(more)
            held += more
            if len(held) >= WHOLE_BYTES:
                end = held.rfind(b"\n") + 1 or len(held)
                yield bytes(held[:end])
                del held[:end]
    if held:
        yield bytes(held)


def grep(
    repository: Repository,
    pattern: Pattern,
    addresses: Sequence[str] = (),
    *,
    wanted: Wanted,
    before: int = 0,
    after: int = 0,
    only_names: bool = False,
    progress: Report = unheard,
    enough: Enough = never,
) -> Iterator[Matched]:
    """The files with lines that fit, of the versions and paths named (none: all of all roots), each content once, by
    its first path, with so many lines before and after each. With `only_names` no lines are told.

    `wanted` says which files to look into. What they hold is read in the order in which it is stored, each once, in
    threads, before the first is told: results wait in a scratch database. Once there is `enough`, what was found until
    then is told. What is given of one is to be used before the
    next is taken. Raises UsageError, NotFound, and CorruptData where a tree cannot be read.
    """
    search = _Search(repository, pattern, before, after, only_names)

    def looked_into(path: bytes, entry: Entry) -> bool:
        return entry.kind == FILE and entry.size > 0 and wanted.fits(path, entry)

    with (
        Contents(
            repository, scopes(repository, addresses), Wanted(looked_into, wanted.by_time), progress, enough
        ) as contents,
        Hits() as hits,
    ):
        with Order(repository, contents.by_name(), progress, enough) as order:
            files = size = 0
            for searched in _all(search, order):
                files += searched.files
                size += searched.bytes
                for one in searched.found:
                    if hits.add(one.content.name, one.binary, one.lines, one.problem):
                        contents.mark(one.content.name)
                progress(Done("searching", files, size, order.files, order.bytes))
                if enough():
                    break
        for name, entry in contents.marked():
            binary, problem = hits.about(name)
            yield Matched(entry, contents.places(name), binary, hits.lines(name), problem)


class _Step(NamedTuple):
    files: int
    bytes: int
    found: list[_Searched]


def _all(search: _Search, order: Order) -> Iterator[_Step]:
    """Short files group by group in threads, then long ones, whose chunks are read in threads."""

    def step(contents: list[Content]) -> _Step:
        return _Step(len(contents), sum(one.entry.size for one in contents), search.group(contents))

    yield from ordered_map(step, order.groups(WHOLE_BYTES), threads_of(search.repository))
    for content in order.longer(WHOLE_BYTES):
        for found in search.long(content):
            yield _Step(0, 0, [found])
        yield _Step(1, content.entry.size, [])
