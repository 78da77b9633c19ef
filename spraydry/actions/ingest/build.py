"""Making the trees of a version, bottom-up, from nodes in preorder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

import msgspec

from spraydry.actions.ingest.nodes import Node, Nodes
from spraydry.actions.ingest.scan import cached_directory
from spraydry.format.entry import DIRECTORY, FILE, Entry, decode_entry, encode_entry
from spraydry.format.links import Group, encode_links, group_of
from spraydry.format.tree_builder import TreeBuilder
from spraydry.repository.scancache import PAGE_ROWS, Cached, ScanCache, is_settled

Emit = Callable[[bytes, bytes], None]


# Pages of directories that are called alike are mostly versions of one another, with digests in common, so they are
# put side by side, as far as so many bytes of them reach. Measured on 14 versions of a source tree: 37,000 pages take
# 2.3 MB so, in the order of their paths 4.3.
_HELD_BYTES = 8 << 20


class _Near:
    """Takes tree pages, each with the last two names of its directory's path, and hands them on in order of these."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._held: list[tuple[bytes, bytes, bytes]] = []
        self._bytes = 0

    def emit_for(self, above: bytes, name: bytes) -> Emit:
        """What takes the pages of the directory `name` in `above`."""
        near = above + b"/" + name

        def take(page: bytes, plain: bytes) -> None:
            self._held.append((near, page, plain))
            self._bytes += len(plain)
            if self._bytes > _HELD_BYTES:
                self.flush()

        return take

    def flush(self) -> None:
        """Hand on what is held."""
        self._held.sort(key=itemgetter(0))
        for _, page, plain in self._held:
            self._emit(page, plain)
        self._held.clear()
        self._bytes = 0


class _Level:
    """A directory whose entries are being added, and remembered in the scan cache a page at a time."""

    def __init__(self, node: Node, path: bytes | None, cache: ScanCache | None, began_ns: int, emit: Emit) -> None:
        self.node = node
        self._began_ns = began_ns
        self.path = path  # empty: what holds the sources, no directory of a file system
        self.builder = TreeBuilder(emit)
        self._cache = None if path is None else cache
        self._first: list[Cached] = []
        self._rows = self._first
        self._page = 0

    def remember(self, row: Cached) -> None:
        if self._cache is not None:
            if len(self._rows) == PAGE_ROWS:
                self._turn()
            self._rows.append(row)

    def _turn(self) -> None:
        """Only the first page says what the directory is, which is not known before the end."""
        if self._page and self._cache is not None and self.path is not None:
            self._cache.keep(self.path, self._page, cached_directory(self.node, b"", self._rows, self._began_ns))
        self._page += 1
        self._rows = []

    def finish(self, entry: Entry) -> None:
        if self._cache is not None and self.path is not None:
            self._turn()
            first = cached_directory(self.node, encode_entry(entry), self._first, self._began_ns)
            self._cache.keep(self.path, 0, first)
            self._cache.cut(self.path, self._page)


class Built(NamedTuple):
    """The root entry of what was built and its links list."""

    entry: Entry
    links: bytes | None


def build(
    nodes: Nodes,
    paths: dict[bytes, bytes],
    root_path: bytes | None,
    cache: ScanCache | None,
    began_ns: int,
    emit: Emit,
) -> Built:
    """Trees of all scanned nodes; their pages go to `emit`.

    `root_path` is the directory that is the root, empty where the root only holds the sources, whose `paths` are then
    given by name; None where nothing is to be remembered. The cache gets every directory that was made anew. What may
    change again without its times changing, as the ingest began at `began_ns`, is left out of it.
    """
    stack: list[_Level] = []
    root: Entry | None = None
    pages = _Near(emit)

    def finish() -> None:
        nonlocal root
        level = stack.pop()
        assert level.node.entry is not None
        entry = msgspec.structs.replace(decode_entry(level.node.entry), content=level.builder.finish())
        level.finish(entry)
        if stack:
            stack[-1].builder.add(entry)
        else:
            root = entry

    for node, read, read_size in nodes.preorder():
        while len(stack) > node.depth:
            finish()
        if node.kind == DIRECTORY:
            if stack:
                stack[-1].remember(Cached(node.name, node.inode, 0, node.mtime_ns, node.ctime_ns, None))
            if node.whole:
                assert node.entry is not None
                if not stack:
                    root = decode_entry(node.entry)
                else:
                    stack[-1].builder.add(decode_entry(node.entry))
                continue
            if not stack:
                path = root_path
            elif not stack[-1].path:
                path = paths.get(node.name)
            else:
                path = stack[-1].path + b"/" + node.name
            above = stack[-1].node.name if stack else b""
            emit_page = pages.emit_for(above, node.name)
            stack.append(_Level(node, path if node.inode or not path else None, cache, began_ns, emit_page))
            continue
        level = stack[-1]
        encoded, size = (read, read_size) if node.entry is None else (node.entry, node.size)
        if node.hardlinked:
            first, path_of_first, count = nodes.link(node.device, node.inode)
            if first != node.id:
                encoded = nodes.entry(first)
                node = msgspec.structs.replace(node, ctime_ns=began_ns)  # what is remembered of the first name will do
            if encoded is None:
                continue
            group = group_of(path_of_first) if count > 1 else None
            entry = msgspec.structs.replace(decode_entry(encoded), name=node.name, group=group)
            encoded, size = encode_entry(entry), entry.size
        if encoded is None:
            continue  # it could not be read, and this was reported
        if is_settled(node.ctime_ns, began_ns):
            level.remember(Cached(node.name, node.inode, node.size, node.mtime_ns, node.ctime_ns, encoded))
        if node.kind == FILE:
            level.builder.add_file(node.name, encoded, size)
        else:
            level.builder.add(decode_entry(encoded))
    while stack:
        finish()
    pages.flush()
    assert root is not None
    return Built(root, links_list(nodes.links(), emit))


def links_list(firsts: Iterable[tuple[bytes, int]], emit: Emit) -> bytes | None:
    """The links list of (path of the first member, count of members) pairs; None where there are none."""
    groups = sorted((group_of(path), count, path) for path, count in firsts)
    return encode_links((Group(*group) for group in groups), emit)
