"""Everything a version needs: the chunks reachable from its root entry and links list."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.format.entry import Entry, Runs, Subtree
from spraydry.format.manifest import Manifest
from spraydry.repository.repository import Repository


def chunks_of(
    repository: Repository, entry: Entry, links: bytes | None, seen: set[bytes] | None = None
) -> Iterator[bytes]:
    """The names of all chunks below an entry: tree pages, manifest pages, attributes, contents, links pages.

    A subtree whose digest is in `seen` is passed over, and each one met is added. Reads trees and manifests; raises
    ChunkNotFound, ChunkCorrupt or CorruptData where one cannot be read.
    """
    yield from repository.links(links).pages()
    stack = [entry]
    while stack:
        entry = stack.pop()
        if isinstance(entry.xattrs, bytes):
            yield entry.xattrs
        if isinstance(entry.content, Subtree):
            if seen is not None:
                if entry.content.digest in seen:
                    continue
                seen.add(entry.content.digest)
            tree = repository.tree(entry.content)
            yield from tree.pages()
            stack += [child for child, _ in tree.entries()]
        elif isinstance(entry.content, Runs):
            manifest = Manifest(entry.content.manifest, entry.size, lambda name: bytes(repository.read_chunk(name)))
            yield from manifest.pages()
            yield from (span.chunk for span in manifest.spans() if span.chunk is not None)
        elif entry.file_digest is not None and entry.size:
            yield entry.file_digest
