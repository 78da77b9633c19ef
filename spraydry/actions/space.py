"""Where the space of a directory goes: what each entry in it takes, and what only it takes."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from spraydry.actions.closure import chunks_of
from spraydry.actions.collect import mark_hoards, mark_versions
from spraydry.actions.du import beside
from spraydry.actions.listing import size_of
from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.entry import Entry, Subtree
from spraydry.repository.address import Found
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository
from spraydry.stores.database.scratch import scratch, scratch_errors

_CACHE_BYTES = 32 << 20
_TOGETHER = 2000


@dataclass(frozen=True)
class Part:
    """What one entry of a directory takes, in bytes: `stored_bytes` is the share of what its chunks' frames take,
    `exclusive_bytes` what of that no other entry, path or version has; both are estimates, for frames hold several
    chunks."""

    entry: Entry
    apparent_bytes: int
    stored_bytes: int
    exclusive_bytes: int


@dataclass(frozen=True)
class Largest:
    """The largest entries of a directory, and what the `others`, so many, come to."""

    entries: list[Entry]
    others: int
    others_bytes: int


def largest(repository: Repository, found: Found, most: int) -> Largest:
    """The entries of a directory that have the most bytes, by falling size. Reads its pages, nothing below."""
    assert isinstance(found.entry.content, Subtree)
    counted = 0

    def sized() -> Iterator[tuple[Entry, int]]:
        nonlocal counted
        assert isinstance(found.entry.content, Subtree)
        for entry, _ in repository.tree(found.entry.content).entries():
            counted += 1
            yield entry, entry.totals.size

    kept = heapq.nlargest(most, sized(), key=lambda pair: pair[1])
    entries = [entry for entry, size in kept if size]
    return Largest(
        entries, counted - len(entries), found.entry.content.size - sum(entry.totals.size for entry in entries)
    )


def space(repository: Repository, found: Found, entries: Sequence[Entry], report: Report = unheard) -> list[Part]:
    """What each of these entries of a directory takes. All versions are gone through, each tree page once; memory is
    bounded. Raises CorruptData, ChunkNotFound."""
    living = repository.log.living()
    own = living.pop(found.version.made_in, None)
    with Marks(repository.catalog) as others, scratch_errors(), closing(scratch(_CACHE_BYTES)) as database:
        mark_versions(repository, others, living, report)
        mark_hoards(repository, others, repository.log.hoards.views(), report)
        if own is not None and found.path:
            others.add(beside(repository, own.entry, [found.path]))
        database.execute(
            "CREATE TABLE has(digest BLOB, entry INTEGER, PRIMARY KEY(digest, entry)) WITHOUT ROWID"
        ).fetchall()
        shown = {entry.name for entry in entries}
        assert isinstance(found.entry.content, Subtree)
        if len(shown) < _direct(repository, found, len(shown)):
            rest = (e for e, _ in repository.tree(found.entry.content).entries() if e.name not in shown)
            for entry in rest:
                others.add(_told(chunks_of(repository, entry, None), report))
        for place, entry in enumerate(entries):
            names = _told(chunks_of(repository, entry, None), report)
            while batch := list(islice(names, _TOGETHER)):
                database.executemany("INSERT OR IGNORE INTO has VALUES(?, ?)", ((name, place) for name in batch))
        stored, exclusive = [0.0] * len(entries), [0.0] * len(entries)
        ratios: dict[bytes, float] = {}
        rows = database.execute("SELECT digest, group_concat(entry) FROM has GROUP BY digest")
        while some := list(islice(rows, _TOGETHER)):
            digests = [bytes(digest) for digest, _ in some]
            report(Done("weighing", 0))
            places, elsewhere = repository.catalog.chunks.places(digests), others.has(digests)
            for digest, (_, owners) in zip(digests, some, strict=True):
                if digest not in places:
                    continue
                _, lies = places[digest]
                if lies.frame not in ratios:
                    info = repository.catalog.frame(lies.frame)
                    ratios[lies.frame] = info.stored / info.plain if info else 1.0
                taken = lies.length * ratios[lies.frame]
                holders = [int(owner) for owner in str(owners).split(",")]
                for holder in holders:
                    stored[holder] += taken
                if len(holders) == 1 and digest not in elsewhere:
                    exclusive[holders[0]] += taken
    return [
        Part(entry, size_of(entry), round(stored[place]), round(exclusive[place]))
        for place, entry in enumerate(entries)
    ]


def _direct(repository: Repository, found: Found, most: int) -> int:
    """How many entries a directory has, counted up to one more than `most`."""
    assert isinstance(found.entry.content, Subtree)
    return sum(1 for _ in islice(repository.tree(found.entry.content).entries(), most + 1))


def _told(names: Iterator[bytes], report: Report) -> Iterator[bytes]:
    for count, name in enumerate(names):
        if count % 1000 == 0:
            report(Done("counting", count, counted="chunks"))
        yield name
