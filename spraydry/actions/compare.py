"""Two trees side by side: the entries that differ, in path order; equal subtrees and equal pages are passed over."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.format.tree import MAX_DEPTH, Tree
from spraydry.format.tree_page import Child, Page

LoadPage = Callable[[bytes], Page]
Differ = Callable[[Entry, Entry], bool]


class Pair(NamedTuple):
    """What stands at a path before and after, None where nothing does. The two differ, if only in what lies below."""

    path: bytes
    before: Entry | None
    after: Entry | None


def compare(
    before: Entry | None,
    after: Entry | None,
    page_before: LoadPage,
    page_after: LoadPage,
    differ: Differ = operator.ne,
) -> Iterator[Pair]:
    """Every path at which two entries, or what lies below them, differ: directories before what is in them, by name.

    The entries given have the path b"", and their own names do not count. What is only on one side is gone through to
    its end. Pages come from `page_before` and `page_after` (`Repository.page`), which need not be of one repository;
    of what is the same on both sides, by digest, none is asked for, so those asked for on one side are, but for a few
    where pages are cut differently, the ones that the other lacks. `differ` says which entries of one name do: who does
    not care for all that do saves time. Reads as it is iterated, and holds a page for each level it is below. Raises
    CorruptData, ChunkNotFound.
    """
    before, after = _nameless(before), _nameless(after)
    if before == after or (before and after and not differ(before, after)):
        return
    yield Pair(b"", before, after)
    stack = [(b"", _below(before, after, page_before, page_after, differ))]
    while stack:  # not recursive: trees may be deeper than Python's stack
        prefix, level = stack[-1]
        for before, after in level:
            path = prefix + (after or before).name  # type: ignore[union-attr]
            yield Pair(path, before, after)
            if (before is not None and before.kind == DIRECTORY) or (after is not None and after.kind == DIRECTORY):
                stack.append((path + b"/", _below(before, after, page_before, page_after, differ)))
                break
        else:
            stack.pop()


def _nameless(entry: Entry | None) -> Entry | None:
    return entry if entry is None or not entry.name else msgspec.structs.replace(entry, name=b"")


def _subtree(entry: Entry | None) -> Subtree | None:
    return entry.content if entry is not None and isinstance(entry.content, Subtree) else None


def _below(
    before: Entry | None, after: Entry | None, page_before: LoadPage, page_after: LoadPage, differ: Differ
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The entries that differ between two directories; of what is none or not there, there are none."""
    old, new = _subtree(before), _subtree(after)
    if old is not None and new is not None and old.digest == new.digest:
        return iter(())
    return differing(
        None if old is None else Tree(old, page_before),
        None if new is None else Tree(new, page_after),
        differ,
    )


def differing(
    before: Tree | None, after: Tree | None, differ: Differ = operator.ne
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """The entries that differ between two directories, by name: (old, None), (None, new), or both under one name."""
    one = None if before is None else before.top()
    other = None if after is None else after.top()
    if (one is None or one.leaf) and (other is None or other.leaf):  # most are, and this is three times as fast
        return iter(_of_leaves(_entries(one), _entries(other), differ))
    return _merged(_Cursor(before, one), _Cursor(after, other), differ)


def _entries(page: Page | None) -> tuple[Entry, ...]:
    return () if page is None else page.items  # type: ignore[return-value]  # of a leaf; `entries` takes its time


def _of_leaves(
    before: tuple[Entry, ...], after: tuple[Entry, ...], differ: Differ
) -> list[tuple[Entry | None, Entry | None]]:
    if not before:
        return [(None, new) for new in after]
    found: list[tuple[Entry | None, Entry | None]] = []
    same = 0  # so many have the same names on both sides: mostly all
    for old, new in zip(before, after, strict=False):
        if old.name != new.name:
            break
        same += 1
        if differ(old, new):
            found.append((old, new))
    olds, news = iter(before[same:]), iter(after[same:])
    one, other = next(olds, None), next(news, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.name < other.name):
            found.append((one, None))
            one = next(olds, None)
        elif one is None or other.name < one.name:
            found.append((None, other))
            other = next(news, None)
        else:
            if differ(one, other):
                found.append((one, other))
            one, other = next(olds, None), next(news, None)
    return found


def _merged(old: _Cursor, new: _Cursor, differ: Differ) -> Iterator[tuple[Entry | None, Entry | None]]:
    while (a := old.item) is not None or new.item is not None:
        b = new.item
        if b is None or (a is not None and _last(a) < _first(b)):
            if isinstance(a, Child):
                old.open(a)
            else:
                yield a, None
                old.next()
        elif a is None or _last(b) < _first(a):
            if isinstance(b, Child):
                new.open(b)
            else:
                yield None, b
                new.next()
        elif isinstance(a, Child) and isinstance(b, Child):
            if a.digest == b.digest:
                old.next()
                new.next()
            elif a.inodes >= b.inodes:  # the larger one first: the other may be a page below it
                old.open(a)
            else:
                new.open(b)
        elif isinstance(a, Child):
            old.open(a)
        elif isinstance(b, Child):
            new.open(b)
        else:
            if differ(a, b):
                yield a, b
            old.next()
            new.next()


def aspects(before: Entry, after: Entry) -> tuple[str, ...]:
    """What differs between two entries: of kind, content, mode, owner, mtime, xattrs, links (the hardlink group), in
    this order; names do not count. Files have the same content if they have the same digest, however they were cut."""
    kind = before.kind != after.kind
    owner = (before.uid, before.gid) != (after.uid, after.gid)
    mtime = (before.mtime_s, before.mtime_ns) != (after.mtime_s, after.mtime_ns)
    differs = {
        "kind": kind,
        "content": not kind and not _same_content(before, after),
        "mode": before.mode != after.mode,
        "owner": owner,
        "mtime": mtime,
        "xattrs": before.xattrs != after.xattrs,
        "links": before.group != after.group,
    }
    return tuple(aspect for aspect, is_so in differs.items() if is_so)


def _same_content(before: Entry, after: Entry) -> bool:
    if before.size != after.size:
        return False
    return before.content == after.content or (
        before.file_digest is not None and before.file_digest == after.file_digest
    )


class _Cursor:
    """A place in a directory; `item` is what stands there: an entry, a page that was not opened, None at the end."""

    def __init__(self, tree: Tree | None, top: Page | None) -> None:
        self._tree = tree
        self._levels: list[Iterator[Entry | Child]] = [] if top is None else [iter(top.items)]
        self.item: Entry | Child | None = None
        self.next()

    def next(self) -> None:
        """Go past what stands here."""
        while self._levels:
            self.item = next(self._levels[-1], None)
            if self.item is not None:
                return
            self._levels.pop()
        self.item = None

    def open(self, page: Child) -> None:
        """Go to the first item of the page that stands here."""
        if self._tree is None or len(self._levels) >= MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        self._levels.append(iter(self._tree.child(page).items))
        self.next()


def _first(item: Entry | Child) -> bytes:
    return item.name if isinstance(item, Entry) else item.first


def _last(item: Entry | Child) -> bytes:
    return item.name if isinstance(item, Entry) else item.last
