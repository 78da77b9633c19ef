"""Surgery on parts: trees with their hardlinks, put together from what a repository holds, in memory until stored."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import NamedTuple

import msgspec

from spraydry.actions.compose.hardlinks import Renamed, Survivors, Walk, in_both
from spraydry.actions.compose.newpages import NewPages
from spraydry.actions.compose.surgery import Edit, Surgery, below, outermost, parts_of
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import UsageError
from spraydry.format.classes import TREE
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.format.links import Group, encode_links
from spraydry.format.tree_page import Child, Page
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer
from spraydry.stores.database.scratch import scratch_errors


class Part(NamedTuple):
    """A tree with its links list: what a version is made of."""

    entry: Entry
    links: bytes | None


class Theatre:
    """Where parts are operated on. What is made is readable through the repository until this is closed; `store` gives
    what a part needs of it to a writer. One at a time for a repository. Blocks; for one thread.

    A directory is made anew only where something in it, or its place in a hardlink group, changes.
    """

    def __init__(self, repository: Repository, report: Report = unheard) -> None:
        if repository.beside is not None:
            raise UsageError("this repository is being composed from already")
        self._repository = repository
        self._pages = NewPages()
        self.surgery = Surgery(repository.page, self._pages.put)
        repository.beside = self._pages
        self._report = report
        self._walked = 0

    def close(self) -> None:
        """Forget all that was not stored."""
        self._repository.beside = None
        self._pages.close()

    def __enter__(self) -> Theatre:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def keep(self, name: bytes, plain: bytes) -> None:
        """Take a page of a tree that is to be operated on, and is in no frame yet."""
        self._pages.put(name, plain)

    # -- operations

    def empty(self, like: Entry) -> Part:
        """A folder with nothing in it, to hold an entry."""
        return Part(self.surgery.empty(like), None)

    def take(self, part: Part, path: bytes) -> Part | None:
        """What lies at a path, as a part of its own, without a name; None if nothing is there."""
        if not path:
            return part
        found = self.surgery.at(part.entry, path)
        if found is None:
            return None
        entry: Entry = msgspec.structs.replace(found, name=b"")
        if part.links is None:
            return Part(entry, None)
        if entry.kind != DIRECTORY:
            return Part(msgspec.structs.replace(entry, group=None), None)
        return self.counted(entry)

    def counted(self, entry: Entry) -> Part:
        """A tree with the hardlink groups that are in it, whatever list it had."""
        with scratch_errors(), closing(Survivors(None, (), lambda: self._walks([(b"", entry)]))) as inside:
            return Part(self._alone(entry, inside.singles()), encode_links(inside.groups(), self._pages.put))

    def cut(self, part: Part, paths: Iterable[bytes]) -> Part:
        """A part without what lies at the paths, none of which is its top. What is cut need not be readable."""
        surgery = self.surgery
        held = [path for path in outermost(paths) if surgery.at(part.entry, path) is not None]
        entry = surgery.edited(part.entry, ((path, None) for path in held))
        if part.links is None:
            return Part(entry, None)
        lost = ((path, found) for path in held if (found := surgery.at(part.entry, path)) is not None)
        with (
            scratch_errors(),
            closing(
                Survivors(self._repository.links(part.links), self._walks(lost), lambda: self._walks([(b"", entry)]))
            ) as left,
        ):
            if left.unchanged:
                return Part(entry, part.links)
            return Part(self._alone(entry, left.singles()), encode_links(left.groups(), self._pages.put))

    def lay(self, lower: Part, upper: Part, path: bytes = b"") -> Part:
        """A part with another one laid over it at `path`: folders merge, otherwise the upper one's is there."""
        with (
            scratch_errors(),
            closing(self._survivors(lower, upper.entry, path)) as left,
            closing(Renamed()) as renamed,
        ):
            below_entry = self._alone(lower.entry, left.singles())
            above_entry = upper.entry
            links = self._repository.links(lower.links)
            others = self._repository.links(upper.links)
            for group in in_both(left.groups(), others.groups()):
                renamed.add(group, below(path, group.first))
            while renamed.members and (renamed.avoid(links.groups()) or renamed.avoid(others.groups())):
                pass  # which is not likely to happen twice
            if renamed.members:
                above_entry = self.surgery.edited(above_entry, self._regrouped(above_entry, renamed))
            entry = self.surgery.union(below_entry, above_entry, path)
            if upper.links is None and left.unchanged:
                return Part(entry, lower.links)
            if lower.links is None and not path:
                return Part(entry, upper.links)
            kept = (
                Group(group.group, group.count, below(path, group.first))
                for group in others.groups()
                if renamed.get(group.group) is None
            )
            groups = heapq.merge(left.groups(), kept, renamed.groups(), key=lambda group: group.group)
            return Part(entry, encode_links(groups, self._pages.put))

    # -- hardlinks

    def _survivors(self, lower: Part, upper: Entry, path: bytes) -> Survivors:
        """What is left of the lower part's hardlink groups when another tree is laid over it."""

        def rest() -> Walk:
            if any(not at for at, _ in self._replaced(lower.entry, upper, path)):
                return ()
            gone: Iterator[Edit] = ((at, None) for at, _ in self._replaced(lower.entry, upper, path))
            return self._walks([(b"", self.surgery.edited(lower.entry, gone))])

        links = self._repository.links(lower.links)
        lost = () if lower.links is None else self._walks(self._replaced(lower.entry, upper, path))
        return Survivors(links, lost, rest)

    def _replaced(self, lower: Entry, upper: Entry, path: bytes) -> Iterator[tuple[bytes, Entry]]:
        """The entries in whose place something else comes, each with its path, in preorder; none below another."""
        at, there = b"", lower
        for name in parts_of(path):
            if there.kind != DIRECTORY:
                yield at, there
                return
            found = self.surgery.child(there, name)
            if found is None:
                return
            at, there = below(at, name), found
        for met in self.surgery.meet(there, upper, path):
            if met.below is not None and not met.merged:
                yield met.path, met.below

    def _walks(self, tops: Iterable[tuple[bytes, Entry]]) -> Walk:
        """The entries at these paths and all below them."""
        for path, entry in tops:
            for found in self.surgery.walk(entry, path):
                self._walked += 1
                self._report(Done("looking for hardlinks", self._walked, counted="entries"))
                yield found

    def _alone(self, root: Entry, paths: Iterator[bytes]) -> Entry:
        """A tree in which the entries at these paths are in no hardlink group any more."""

        def edits() -> Iterator[Edit]:
            for path in paths:
                entry = self.surgery.at(root, path)
                assert entry is not None
                yield path, msgspec.structs.replace(entry, group=None)

        return self.surgery.edited(root, edits())

    def _regrouped(self, root: Entry, renamed: Renamed) -> Iterator[Edit]:
        """The entries whose groups are renamed, changed so; what lies behind the last one is not read."""
        missing = renamed.members
        for path, entry in self._walks([(b"", root)]):
            if entry.group is not None and (new := renamed.get(entry.group)) is not None:
                yield path, msgspec.structs.replace(entry, group=new)
                missing -= 1
                if not missing:
                    return

    # -- storing

    def store(self, writer: Writer, part: Part) -> None:
        """Give a writer the new pages that a part needs; what is in the repository already is not looked at."""
        self._store_links(writer, part.links)
        stack = [part.entry.content.digest] if isinstance(part.entry.content, Subtree) else []
        while stack:
            name = stack.pop()
            plain = self._pages.take(name)
            if plain is None:
                continue
            writer.add(name, plain, TREE)
            for item in Page(plain).items:
                if isinstance(item, Child):
                    stack.append(item.digest)
                elif isinstance(item.content, Subtree):
                    stack.append(item.content.digest)

    def _store_links(self, writer: Writer, links: bytes | None) -> None:
        get: Callable[[bytes], bytes | None] = self._pages.take
        if links is None or (plain := get(links)) is None:
            return
        for name in self._repository.links(links).pages():
            page = plain if name == links else get(name)
            if page is not None:
                writer.add(name, page, TREE)
