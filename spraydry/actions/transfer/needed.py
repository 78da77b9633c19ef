"""What a version needs that another one does not: both are walked side by side, equal subtrees are passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from spraydry.actions.compare import differing
from spraydry.errors import ChunkCorrupt, ChunkNotFound
from spraydry.format.entry import Entry, Runs, Subtree
from spraydry.format.links import Links
from spraydry.format.manifest import Manifest
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page
from spraydry.format.version import VersionRecord
from spraydry.repository.repository import Repository

T = TypeVar("T")


class Needed(NamedTuple):
    """A chunk that a version needs; `content` of a file, and `part` of one that has several."""

    chunk: bytes
    content: bool
    part: bool


class Reader:
    """Pages that are in either of two repositories, from the nearer one where both have them: a version may build on
    what the other side has, and the far side is spared.

    Blocks; threads may share it.
    """

    def __init__(self, source: Repository, target: Repository) -> None:
        by_distance = sorted((source, target), key=lambda one: one.store.traits.round_trip_s)
        self._near, self._far = by_distance
        self._source = source

    def read(self, name: bytes) -> bytes:
        """A chunk, verified. Raises ChunkNotFound, ChunkCorrupt."""
        return bytes(self._from_either(name, Repository.read_chunk))

    def page(self, name: bytes) -> Page:
        """A tree page, decoded and checked. Raises also CorruptData."""
        return self._from_either(name, Repository.page)

    def _from_either(self, name: bytes, read: Callable[[Repository, bytes], T]) -> T:
        holder = next((one for one in (self._near, self._far) if one.catalog.chunks.locate(name)), self._source)
        try:
            return read(holder, name)
        except (ChunkNotFound, ChunkCorrupt):
            if holder is self._source:
                raise
        return read(self._source, name)


def needed_by_files(reader: Reader, files: Iterable[Entry]) -> Iterator[Needed]:
    """The chunks of files; some come more than once. Raises as `needed`."""
    for file in files:
        if isinstance(file.xattrs, bytes):
            yield Needed(file.xattrs, False, False)
        yield from _of_file(reader, file)


def _of_file(reader: Reader, entry: Entry) -> Iterator[Needed]:
    content = entry.content
    if isinstance(content, Runs):
        manifest = Manifest(content.manifest, entry.size, reader.read)
        yield from (Needed(name, False, False) for name in manifest.pages())
        yield from (Needed(span.chunk, True, True) for span in manifest.spans() if span.chunk is not None)
    elif entry.file_digest is not None and entry.size:
        yield Needed(entry.file_digest, True, False)


def needed(
    reader: Reader, record: VersionRecord, base: VersionRecord | None, first: Callable[[Subtree], bool]
) -> Iterator[Needed]:
    """The chunks of a version but for those that stand at the same place in `base`; some come more than once.

    `first` says whether a subtree was not met before: others are passed over. Raises ChunkNotFound,
    ChunkCorrupt, CorruptData where a tree or a list cannot be read.
    """
    if record.links is not None and (base is None or record.links != base.links):
        yield from (Needed(page, False, False) for page in Links(record.links, reader.read).pages())
    asked: list[bytes] = []  # pages of the version's trees, but not those that are in the base's, too

    def page(name: bytes) -> Page:
        asked.append(name)
        return reader.page(name)

    stack: list[Iterator[tuple[Entry | None, Entry | None]]] = [iter([(base.entry if base else None, record.entry)])]
    while stack:  # not recursive: trees may be deeper than Python's stack
        pair = next(stack[-1], None)
        yield from (Needed(name, False, False) for name in asked)
        asked.clear()
        if pair is None:
            stack.pop()
            continue
        other, entry = pair
        if entry is None:
            continue
        content = entry.content
        if isinstance(entry.xattrs, bytes):
            yield Needed(entry.xattrs, False, False)
        if other is not None and (other.kind, other.size, other.content) == (entry.kind, entry.size, content):
            continue
        if isinstance(content, Subtree):
            if first(content):
                below = other.content if other is not None else None
                before = Tree(below, reader.page) if isinstance(below, Subtree) else None
                stack.append(differing(before, Tree(content, page)))
        else:
            yield from _of_file(reader, entry)
