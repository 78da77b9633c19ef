"""Checking what versions name: every page, manifest, attribute and chunk is there, in a sound frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

import msgspec

from spraydry.actions.verify.chunks import Sound
from spraydry.errors import CorruptData, SprayDryError, StoreUnavailable
from spraydry.format.entry import Entry, Runs, Subtree
from spraydry.format.links import Links
from spraydry.format.manifest import Manifest
from spraydry.format.tree_page import Page
from spraydry.repository.ahead import read_ahead
from spraydry.repository.hoards import View
from spraydry.repository.stream import hash_of, spans
from spraydry.repository.versions import Version

MAX_HOLES_HASHED_BYTES = 1 << 30
_BATCH_ENTRIES = 500
_LINKS = "the list of hardlinks: "


@dataclass(frozen=True)
class Damage:
    """Something a version needs and does not have: the path there (empty: the version itself), and why. Of a hoard
    (`is_key`), `version` is its name and `path` the key, empty where nobody knows which."""

    version: str
    path: bytes
    reason: str
    is_key: bool = False

    @property
    def where(self) -> bytes:
        """What lacks it, as one writes it: ROOT@VERSION:PATH, or HOARD/KEY."""
        return self.version.encode() + (b"/" if self.is_key else b":") + self.path

    @property
    def is_links(self) -> bool:
        """Whether it is the version's list of hardlinks, and no entry."""
        return not self.path and self.reason.startswith(_LINKS)


@dataclass
class _Level:
    """A directory on the way down: its path in the version, and what was found wrong below it, by relative path."""

    digest: bytes
    name: bytes
    entries: Iterator[Entry]
    wrong: list[tuple[bytes, str]] = field(default_factory=list)


class TreeChecker:
    """Goes through versions; what several share is looked at once. Blocks; for one thread.

    `chunks` says what can be had. With `hash_files` the digest of each file of several chunks is computed again. At
    most `limit` paths are kept of a directory with damage in it. `looked` hears of each file's size.
    """

    def __init__(
        self,
        chunks: Sound,
        hash_files: bool,
        limit: int,
        looked: Callable[[int], None],
    ) -> None:
        self._chunks = chunks
        self._hash_files = hash_files
        self._limit = limit
        self._looked = looked
        self._seen: set[bytes] = set()  # subtrees found sound
        self._files: set[tuple[int, Runs]] = set()  # sizes and contents found sound
        self._wrong: dict[bytes, list[tuple[bytes, str]]] = {}  # subtrees found damaged

    def check(self, version: Version) -> list[Damage]:
        """What is wrong with a version, sorted by path."""
        record = version.record
        wrong = [(b"", reason) for reason in self._links(record.links)]
        wrong += self._tree(record.entry) if isinstance(record.entry.content, Subtree) else []
        wrong += self._entries([record.entry])
        return [Damage(str(version), path, reason) for path, reason in sorted(wrong)]

    def check_hoard(self, hoard: str, view: View) -> list[Damage]:
        """What is wrong with a hoard, sorted by key."""
        wrong: list[tuple[bytes, str]] = []
        changes = dict(view.changes)
        files: Iterator[Entry] = (
            _named(name, change.entry) for name, change in changes.items() if change.entry is not None
        )
        try:
            if view.base is not None and isinstance(view.base.content, Subtree):
                base = self._readable(view.base.content, wrong)
                files = chain((entry for entry in base if entry.name not in changes), files)
            while batch := list(islice(files, _BATCH_ENTRIES)):
                wrong += self._entries(batch)
        except StoreUnavailable:
            raise
        except SprayDryError as error:
            wrong.append((b"", str(error)))
        return [Damage(hoard, name.replace(b"\1", b"/"), reason, True) for name, reason in sorted(wrong)]

    def is_sound(self, subtree: bytes) -> bool:
        """Whether the tree of that digest was looked at, and nothing is wrong in it."""
        return subtree in self._seen

    def of_entries(self, entries: Sequence[Entry]) -> dict[bytes, str]:
        """What is wrong with the contents and attributes of entries themselves, by their names."""
        return dict(reversed(self._entries(list(entries))))

    def _links(self, name: bytes | None) -> list[str]:
        try:
            pages = list(Links(name, lambda page: bytes(self._chunks.read(page))).pages())
        except StoreUnavailable:
            raise
        except SprayDryError as error:
            return [f"{_LINKS}{error}"]
        return [f"{_LINKS}chunk {page.hex()} {why}" for page, why in self._chunks.unsound(pages).items()]

    def _tree(self, top: Entry) -> list[tuple[bytes, str]]:
        assert isinstance(top.content, Subtree)
        known = self._known(top.content.digest)
        if known is not None:
            return known
        levels = [self._level(top.content, b"")]
        while True:
            level = levels[-1]
            below = self._step(level)
            if below is not None:
                levels.append(below)
                continue
            levels.pop()
            if level.wrong:
                self._wrong[level.digest] = level.wrong[: self._limit]
            else:
                self._seen.add(level.digest)
            if not levels:
                return self._wrong.get(level.digest, [])
            levels[-1].wrong += _under(level.name, level.wrong)

    def _level(self, subtree: Subtree, name: bytes) -> _Level:
        level = _Level(subtree.digest, name, iter(()))
        level.entries = self._readable(subtree, level.wrong)
        return level

    def _readable(self, subtree: Subtree, wrong: list[tuple[bytes, str]]) -> Iterator[Entry]:
        """The entries of a directory that can be read; `wrong` gets the pages that cannot."""
        for page in self._chunks.tree(subtree).leaves(lambda name: self._chunks.lost_page(name) is not None):
            if isinstance(page, Page):
                yield from page.entries
            else:
                wrong.append((b"", f"tree page {page.digest.hex()} {self._chunks.lost_page(page.digest)}"))

    def _known(self, subtree: bytes) -> list[tuple[bytes, str]] | None:
        return [] if subtree in self._seen else self._wrong.get(subtree)

    def _step(self, level: _Level) -> _Level | None:
        """Check entries of a directory up to the next one to go down into; None at its end."""
        batch: list[Entry] = []
        below = None
        try:
            for entry in level.entries:
                batch.append(entry)
                if isinstance(entry.content, Subtree):
                    known = self._known(entry.content.digest)
                    if known is None:
                        below = self._level(entry.content, entry.name)
                        break
                    level.wrong += _under(entry.name, known)
                if len(batch) >= _BATCH_ENTRIES:
                    level.wrong += self._entries(batch)
                    batch = []
        except StoreUnavailable:
            raise
        except SprayDryError as error:
            level.wrong.append((b"", str(error)))
        level.wrong += self._entries(batch)
        return below

    def _entries(self, entries: list[Entry]) -> list[tuple[bytes, str]]:
        """What is wrong with the contents and attributes of entries themselves."""
        needs: list[tuple[Entry, bytes]] = []
        wrong: list[tuple[bytes, str]] = []
        for entry in entries:
            if isinstance(entry.xattrs, bytes):
                needs.append((entry, entry.xattrs))
            if isinstance(entry.content, Runs):
                if (entry.size, entry.content) in self._files:
                    continue
                try:
                    needs += [(entry, name) for name in self._parts(entry, entry.content)]
                except StoreUnavailable:
                    raise
                except SprayDryError as error:
                    wrong.append((entry.name, str(error)))
            elif entry.size and (name := entry.file_digest):
                needs.append((entry, name))
            self._looked(entry.size)
        unsound = self._chunks.unsound([name for _, name in needs])
        bad = {id(entry) for entry, name in needs if name in unsound}
        for entry, name in needs:
            if name in unsound:
                wrong.append((entry.name, f"chunk {name.hex()} {unsound[name]}"))
        failed = {name for name, _ in wrong}
        for entry in entries:
            runs = entry.content
            if not isinstance(runs, Runs) or id(entry) in bad or entry.name in failed:
                continue
            if (entry.size, runs) not in self._files:
                try:
                    self._hash(entry, runs)
                    self._files.add((entry.size, runs))
                except StoreUnavailable:
                    raise
                except SprayDryError as error:
                    wrong.append((entry.name, str(error)))
        return wrong

    def _parts(self, entry: Entry, runs: Runs) -> list[bytes]:
        """What a file of several chunks needs: the pages of its manifest, and the chunks these name."""
        read_chunk = self._chunks.read
        parts = [span for span in spans(entry, read_chunk) if span.chunk is not None]
        if sum(span.length for span in parts) != runs.filled:
            raise CorruptData("its manifest has another length in chunks than it claims")
        pages = Manifest(runs.manifest, entry.size, lambda name: bytes(read_chunk(name))).pages()
        return [*pages, *(span.chunk for span in parts if span.chunk is not None)]

    def _hash(self, entry: Entry, runs: Runs) -> None:
        hashed = self._hash_files and runs.digest is not None and entry.size - runs.filled <= MAX_HOLES_HASHED_BYTES
        if hashed and hash_of(read_ahead(self._chunks.repository, entry)) != runs.digest:
            raise CorruptData("its chunks are whole, but together they are not what its digest names")


def _named(name: bytes, file: Entry) -> Entry:
    made: Entry = msgspec.structs.replace(file, name=name)
    return made


def _under(name: bytes, wrong: list[tuple[bytes, str]]) -> list[tuple[bytes, str]]:
    return [(name + b"/" + path if path else name, reason) for path, reason in wrong]
