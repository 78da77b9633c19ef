"""Everything a version or a hoard needs: the chunks reachable from its entries and links list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.entry import Entry, Runs, Subtree
from spraydry.format.manifest import Manifest
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Child, Page
from spraydry.parallel import ordered_map
from spraydry.repository.hoards import View
from spraydry.repository.repository import Repository

# Gives those of some keys that it was not asked before. One stands for a page of a tree, or a manifest, and all that is
# claimed of it where it is named: another claim is looked at, too, for it may be false.
Unseen = Callable[[Sequence[bytes]], set[bytes]]

_TOGETHER = 64
_FILES_TOGETHER = 1000
_encoder = msgspec.msgpack.Encoder()


def chunks_of(
    repository: Repository, entry: Entry, links: bytes | None, unseen: Unseen | None = None
) -> Iterator[bytes]:
    """The names of all chunks below an entry: tree pages, manifest pages, attributes, contents, links pages.

    Tree pages and manifests that are not `unseen` are passed over with all below them; without it each is walked
    wherever it is met. Pages are read many at a time. A chunk's name being known is no sign that what it names as a
    page was walked: a file may have a page's very bytes. Raises ChunkNotFound, ChunkCorrupt or CorruptData where a tree
    or manifest cannot be read.
    """
    yield from repository.links(links).pages()
    waiting: list[_Claim] = []
    yield from _needed(repository, [entry], waiting, unseen)
    while waiting:
        # The last ones: in depth before breadth little waits at a time.
        part = waiting[-_TOGETHER:]
        del waiting[-_TOGETHER:]
        if unseen is not None:
            fresh = unseen([claim.key for claim in part])
            part = [claim for claim in part if claim.key in fresh]
        for claim, page in zip(part, _pages(repository, part), strict=True):
            yield claim.name
            waiting += [_Claim(claim.tree, item) for item in page.items if isinstance(item, Child)]
            yield from _needed(repository, [item for item in page.items if isinstance(item, Entry)], waiting, unseen)


def chunks_of_hoard(repository: Repository, view: View, unseen: Unseen | None = None) -> Iterator[bytes]:
    """The names of all chunks a hoard needs: the pages of its checkpoint, and what the files need that its keys name
    now, not what was overwritten or deleted since. Raises as `chunks_of`."""
    changes = dict(view.changes)
    waiting: list[_Claim] = []
    if view.base is not None and isinstance(view.base.content, Subtree):
        waiting.append(_Claim(repository.tree(view.base.content), None))
    while waiting:
        # These pages are not asked for in `unseen`: what is passed over below them here, others may need.
        part = waiting[-_TOGETHER:]
        del waiting[-_TOGETHER:]
        for claim, page in zip(part, _pages(repository, part), strict=True):
            yield claim.name
            waiting += [_Claim(claim.tree, item) for item in page.items if isinstance(item, Child)]
            files = (item for item in page.items if isinstance(item, Entry) and item.name not in changes)
            yield from chunks_of_files(repository, files, unseen)
    named = (change.entry for change in changes.values() if change.entry is not None)
    yield from chunks_of_files(repository, named, unseen)


def chunks_of_files(repository: Repository, entries: Iterable[Entry], unseen: Unseen | None = None) -> Iterator[bytes]:
    """The names of all chunks that files need, as `chunks_of`. Raises CorruptData for what is no file."""
    left = iter(entries)
    while part := list(islice(left, _FILES_TOGETHER)):
        folders: list[_Claim] = []
        yield from _needed(repository, part, folders, unseen)
        if folders:
            raise CorruptData("a hoard has a directory where a file should be")


class _Claim(NamedTuple):
    """The top page of a tree, or a child of one of its pages."""

    tree: Tree
    child: Child | None

    @property
    def name(self) -> bytes:
        return self.child.digest if self.child else self.tree.subtree.digest

    @property
    def key(self) -> bytes:
        return digest(_encoder.encode(self.child or self.tree.subtree))

    def page(self) -> Page:
        return self.tree.child(self.child) if self.child else self.tree.top()


def _pages(repository: Repository, claims: Sequence[_Claim]) -> Iterator[Page]:
    concurrency = repository.store.traits.concurrency
    return ordered_map(_Claim.page, claims, concurrency) if concurrency > 1 else map(_Claim.page, claims)


def _needed(
    repository: Repository, entries: Sequence[Entry], waiting: list[_Claim], unseen: Unseen | None
) -> Iterator[bytes]:
    """What entries need beside trees, which are added to those that wait."""
    manifests: dict[bytes, tuple[bytes, int]] = {}
    for entry in entries:
        content = entry.content
        if type(entry.xattrs) is bytes:
            yield entry.xattrs
        if type(content) is Subtree:
            waiting.append(_Claim(repository.tree(content), None))
        elif type(content) is Runs:
            manifests[digest(content.manifest + entry.size.to_bytes(8, "big"))] = content.manifest, entry.size
        elif entry.file_digest is not None and entry.size:
            yield entry.file_digest
    if not manifests:
        return
    fresh = manifests.keys() if unseen is None else unseen(list(manifests))
    for key, (name, size) in manifests.items():
        if key in fresh:
            manifest = Manifest(name, size, lambda page: bytes(repository.read_chunk(page)))
            yield from manifest.pages()
            yield from (span.chunk for span in manifest.spans() if span.chunk is not None)
