"""A tree without exactly what is lost in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from spraydry.actions.compose.surgery import below
from spraydry.actions.ingest.attributes import outsized
from spraydry.actions.verify.chunks import Sound
from spraydry.actions.verify.trees import TreeChecker
from spraydry.errors import SprayDryError
from spraydry.format.classes import TREE
from spraydry.format.digest import digest
from spraydry.format.entry import Entry, Subtree, Xattrs
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page
from spraydry.repository.writer import Writer
from spraydry.repository.xattrs import xattrs_of

LACKS = b"user.spraydry.lacks"
_MOST_TOLD_BYTES = 60 << 10  # of the 64 KiB that an attribute may have

Lack = tuple[bytes, str]  # the path of what a version lacks (with a `/` at its end: entries of that folder), and why


@dataclass
class _Folder:
    """A directory that is made anew from what can be read of it."""

    entry: Entry
    path: bytes
    builder: TreeBuilder
    entries: Iterator[Entry] = field(default_factory=lambda: iter(()))


class Pruner:
    """Makes trees without what cannot be had. Reads nothing of what is sound; directories are made anew only where
    something in them is lost. `emit(digest, plain)` takes the new pages. Blocks; for one thread."""

    def __init__(self, chunks: Sound, checker: TreeChecker, emit: Callable[[bytes, bytes], None]) -> None:
        self._chunks = chunks
        self._checker = checker
        self._emit = emit
        self.lacks: list[Lack] = []

    def pruned(self, root: Entry) -> Entry:
        """The tree of a directory's entry, without what is lost; `lacks` says what that is, in preorder."""
        self.lacks = []
        stack = [self._folder(self._described(root, b""), b"")]
        while True:
            folder = stack[-1]
            entry = next(folder.entries, None)
            if entry is None:
                stack.pop()
                made: Entry = msgspec.structs.replace(folder.entry, content=folder.builder.finish())
                if not stack:
                    return made
                stack[-1].builder.add(made)
            elif isinstance(entry.content, Subtree) and not self._checker.is_sound(entry.content.digest):
                stack.append(self._folder(entry, below(folder.path, entry.name)))
            else:
                folder.builder.add(entry)

    def _folder(self, entry: Entry, path: bytes) -> _Folder:
        assert isinstance(entry.content, Subtree)
        folder = _Folder(entry, path, TreeBuilder(self._emit))
        folder.entries = self._readable(entry.content, path)
        return folder

    def _readable(self, subtree: Subtree, path: bytes) -> Iterator[Entry]:
        """The entries of a directory that can be had, with attributes where these can."""
        tree = self._chunks.tree(subtree)
        try:
            for page in tree.leaves(lambda name: self._chunks.lost_page(name) is not None):
                if isinstance(page, Page):
                    yield from self._whole(page, path)
                else:
                    lost = f"{page.files:,} files in {page.inodes:,} entries: tree page {page.digest.hex()}"
                    self.lacks.append((path + b"/", f"{lost} {self._chunks.lost_page(page.digest)}"))
        except SprayDryError as error:
            if error.retryable:
                raise
            self.lacks.append((path + b"/", str(error)))

    def _whole(self, page: Page, path: bytes) -> Iterator[Entry]:
        wrong = self._checker.of_entries(page.entries)
        for entry in page.entries:
            if entry.name not in wrong:
                yield entry
                continue
            kept = self._described(entry, below(path, entry.name))
            if kept is not entry and not self._checker.of_entries([kept]):
                yield kept
            elif isinstance(entry.content, Subtree):
                yield entry
            else:
                self.lacks.append((below(path, entry.name), wrong[entry.name]))

    def _described(self, entry: Entry, path: bytes) -> Entry:
        """An entry without its extended attributes, where these are lost. They may have been an ACL, without which its
        group could do what the ACL kept from it: so the group's permissions go with them."""
        if not isinstance(entry.xattrs, bytes) or not self._chunks.unsound([entry.xattrs]):
            return entry
        self.lacks.append((path, "its extended attributes are lost; its group may do nothing with it now"))
        bare: Entry = msgspec.structs.replace(entry, xattrs=(), mode=entry.mode & 0o7707)
        return bare


def with_lacks(root: Entry, lacks: list[Lack], chunks: Sound, writer: Writer | None) -> Entry:
    r"""The root of a version with an attribute that says what it lacks: a path a line, a backslash as `\\` and a line
    feed in a name as `\n`, after those that were there. What is too long ends with `...`."""
    had = dict(xattrs_of(root, chunks.read))
    lines = [line for line in had.get(LACKS, b"").split(b"\n") if line and line != b"..."]
    known = set(lines)
    for path, _ in lacks:
        line = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") or b"/"
        if line not in known:
            lines.append(line)
            known.add(line)
    told = b"\n".join(lines)
    if len(told) > _MOST_TOLD_BYTES:
        told = told[:_MOST_TOLD_BYTES].rpartition(b"\n")[0] + b"\n..."
    xattrs: Xattrs = tuple(sorted({**had, LACKS: told}.items()))
    plain = outsized(xattrs)
    if plain is not None and writer is not None:
        writer.add(digest(plain), plain, TREE)
    described: Entry = msgspec.structs.replace(root, xattrs=xattrs if plain is None else digest(plain))
    return described
