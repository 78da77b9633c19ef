"""Tree surgery: entries put into trees, trees laid over one another, paths cut out; what is not met stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.format.tree import Tree
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page

# A change to a tree: the path, and what is to be there: None for nothing; a directory whose content is None gives its
# attributes only, and what is below stays.
Edit = tuple[bytes, Entry | None]


class Met(NamedTuple):
    """A path at which a tree laid over another one has an entry: `below` is the other's, None if it has none.

    Of two directories that are merged `above` has no content; what they hold follows.
    """

    path: bytes
    below: Entry | None
    above: Entry

    @property
    def merged(self) -> bool:
        """Whether both are directories, whose entries follow."""
        return self.above.kind == DIRECTORY and self.above.content is None


class Surgery:
    """Makes trees from trees. `page` gives the pages of trees, `emit(digest, plain)` takes those of new ones: where the
    result of one operation goes into the next, `page` must give them, too.

    Only directories in which something changes are made anew, each in one pass, so memory is bounded by the depth.
    Blocks; for one thread.
    """

    def __init__(self, page: Callable[[bytes], Page], emit: Callable[[bytes, bytes], None]) -> None:
        self.page = page
        self.emit = emit

    def at(self, entry: Entry, path: bytes) -> Entry | None:
        """The entry at a path below another one; None if there is none."""
        found: Entry | None = entry
        for name in parts_of(path):
            found = None if found is None else self.child(found, name)
        return found

    def child(self, directory: Entry, name: bytes) -> Entry | None:
        """The entry of that name in a directory; None if it is not there, or that is no directory."""
        if not isinstance(directory.content, Subtree):
            return None
        found = Tree(directory.content, self.page).lookup(name)
        return found[0] if found else None

    def walk(self, entry: Entry, path: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """An entry that lies at `path`, and everything below it, in preorder."""
        yield path, entry
        stack = [(path, self.entries(entry))]
        while stack:  # not recursive: trees may be deeper than Python's stack
            above, entries = stack[-1]
            child = next(entries, None)
            if child is None:
                stack.pop()
                continue
            at = below(above, child.name)
            yield at, child
            if isinstance(child.content, Subtree):
                stack.append((at, self.entries(child)))

    def entries(self, directory: Entry) -> Iterator[Entry]:
        """What a directory holds, by name; nothing for what is no directory."""
        if isinstance(directory.content, Subtree):
            for entry, _ in Tree(directory.content, self.page).entries():
                yield entry

    def edited(self, root: Entry, edits: Iterable[Edit]) -> Entry:
        """A tree with each of the edits done. They come in preorder of their paths, none below a path that was given an
        entry or None.

        Folders on the way that are not there are made, in the place of what is no directory: like what is put there,
        with mode 0755.
        """
        levels = [_Level(self, root)]
        for path, entry in edits:
            names = parts_of(path)
            attributes = entry is not None and entry.kind == DIRECTORY and entry.content is None
            if not names and not attributes:
                assert entry is not None
                return msgspec.structs.replace(entry, name=root.name)
            depth = len(names) if attributes else len(names) - 1
            same = 0
            while same < min(depth, len(levels) - 1) and levels[same + 1].entry.name == names[same]:
                same += 1
            _close(levels, same)
            for name in names[same:depth]:
                levels.append(levels[-1].open(name, entry))
            if attributes:
                assert entry is not None
                levels[-1].describe(entry)
            else:
                levels[-1].put(names[-1], entry)
        _close(levels, 0)
        return levels[0].finish() or root

    def empty(self, like: Entry) -> Entry:
        """A folder to hold an entry, without a name, with nothing in it."""
        made: Entry = msgspec.structs.replace(folder_like(like, b""), content=TreeBuilder(self.emit).finish())
        return made

    def put(self, root: Entry, path: bytes, entry: Entry) -> Entry:
        """A tree with an entry at a path, in the place of what is there, under the last name of the path."""
        return self.edited(root, [(path, _named(entry, path))])

    def cut(self, root: Entry, paths: Iterable[bytes]) -> Entry:
        """A tree without what lies at the paths, none of which is its top; such that are not there change nothing."""
        return self.edited(root, ((path, None) for path in outermost(paths) if self.at(root, path) is not None))

    def meet(self, lower: Entry, upper: Entry, path: bytes = b"") -> Iterator[Met]:
        """Where one tree laid over another has entries, in preorder; both lie at `path`. Directories merge, and what is
        in them follows, unless they are equal."""
        upper = _named(upper, path)
        if not _merge(lower, upper):
            yield Met(path, lower, upper)
            return
        yield Met(path, lower, _attributes(upper))
        stack = [(path, lower, self.entries(upper))]
        while stack:
            above, directory, entries = stack[-1]
            entry = next(entries, None)
            if entry is None:
                stack.pop()
                continue
            at = below(above, entry.name)
            other = self.child(directory, entry.name)
            if other is None or not _merge(other, entry):
                yield Met(at, other, entry)
                continue
            yield Met(at, other, _attributes(entry))
            stack.append((at, other, self.entries(entry)))

    def union(self, lower: Entry, upper: Entry, path: bytes = b"") -> Entry:
        """A tree with another one laid over it at `path`: directories merge, otherwise the upper one's entry is there.

        Of merged directories the attributes are the upper one's.
        """
        there = self.at(lower, path)
        if there is None:
            return self.put(lower, path, upper)
        changes = (met for met in self.meet(there, upper, path) if met.below != met.above)
        return self.edited(lower, ((met.path, met.above) for met in changes))


class _Level:
    """A directory that may be made anew: edits come in order of names, and nothing is read before the first."""

    def __init__(self, surgery: Surgery, entry: Entry, new: bool = False) -> None:
        self.entry = entry
        self._surgery = surgery
        self._changed = new
        self._builder: TreeBuilder | None = None
        self._old: Iterator[Entry] = iter(())
        self._next: Entry | None = None

    def open(self, name: bytes, like: Entry | None) -> _Level:
        """The directory of that name in it, made if there is none."""
        found = self._surgery.child(self.entry, name)
        if found is not None and found.kind == DIRECTORY:
            return _Level(self._surgery, found)
        assert like is not None
        return _Level(self._surgery, folder_like(like, name), new=True)

    def describe(self, attributes: Entry) -> None:
        """Give the directory other attributes."""
        described = msgspec.structs.replace(attributes, name=self.entry.name, content=self.entry.content)
        self._changed = self._changed or described != self.entry
        self.entry = described

    def put(self, name: bytes, entry: Entry | None) -> None:
        if self._builder is None:
            self._builder = TreeBuilder(self._surgery.emit)
            self._old = self._surgery.entries(self.entry)
            self._next = next(self._old, None)
        while self._next is not None and self._next.name < name:
            self._builder.add(self._next)
            self._next = next(self._old, None)
        if self._next is not None and self._next.name == name:
            self._next = next(self._old, None)
        if entry is not None:
            self._builder.add(entry)

    def finish(self) -> Entry | None:
        """The directory as it is now; None if nothing changed."""
        if self._builder is None:
            if not self._changed:
                return None
            if isinstance(self.entry.content, Subtree):
                return self.entry
            self._builder = TreeBuilder(self._surgery.emit)
        while self._next is not None:
            self._builder.add(self._next)
            self._next = next(self._old, None)
        return msgspec.structs.replace(self.entry, content=self._builder.finish())


def _close(levels: list[_Level], depth: int) -> None:
    while len(levels) - 1 > depth:
        level = levels.pop()
        if (entry := level.finish()) is not None:
            levels[-1].put(entry.name, entry)


def parts_of(path: bytes) -> list[bytes]:
    """The names on a path; none for the top."""
    return path.split(b"/") if path else []


def below(path: bytes, name: bytes) -> bytes:
    """The path of a name in the directory at `path`."""
    return path + b"/" + name if path else name


def outermost(paths: Iterable[bytes]) -> Iterator[bytes]:
    """Paths in preorder, each once, without those that lie below another one of them."""
    last: list[bytes] | None = None
    for names in sorted(parts_of(path) for path in paths):
        if last is None or names[: len(last)] != last:
            last = names
            yield b"/".join(names)


def folder_like(entry: Entry, name: bytes) -> Entry:
    """A folder that is made to hold an entry, without content yet: its owner and time, mode 0755."""
    return Entry(name, DIRECTORY, 0o755, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns, 0, None, (), None)


def _named(entry: Entry, path: bytes) -> Entry:
    renamed: Entry = msgspec.structs.replace(entry, name=path.rpartition(b"/")[2])
    return renamed


def _attributes(directory: Entry) -> Entry:
    bare: Entry = msgspec.structs.replace(directory, content=None)
    return bare


def _merge(lower: Entry, upper: Entry) -> bool:
    """Whether two entries of one path are directories that differ in what they hold."""
    return lower.kind == upper.kind == DIRECTORY and lower.content != upper.content
