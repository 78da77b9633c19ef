"""Parts of directories: pages forwards and backwards, and other orders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.actions.listing import by_name, ordered, size_of
from spraydry.errors import CorruptData
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree
from spraydry.format.tree import Tree
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page
from tests.versions import plain_entry

_NAMES = st.sets(st.binary(min_size=1, max_size=3).filter(lambda n: not {0, 47} & {*n} and n not in (b".", b"..")))


def tree_of(entries: Sequence[Entry]) -> tuple[Tree, list[bytes]]:
    """A tree of entries, and the pages that were read since."""
    pages: dict[bytes, bytes] = {}
    builder = TreeBuilder(pages.__setitem__)
    for entry in sorted(entries, key=lambda entry: entry.name):
        builder.add(entry)
    read: list[bytes] = []

    def load(name: bytes) -> Page:
        read.append(name)
        return Page(pages[name])

    return Tree(builder.finish(), load), read


def file(name: bytes, size: int = 0, mtime_s: int = 0) -> Entry:
    return plain_entry(name, FILE, bytes(32) if size else None, size, mtime_s=mtime_s)


@given(_NAMES, st.integers(1, 5), st.binary(max_size=2))
def test_parts_are_the_whole_in_both_directions(names: set[bytes], most: int, first: bytes) -> None:
    tree, _ = tree_of([file(name) for name in names])
    whole = sorted(names)
    seen: list[bytes] = []
    part = by_name(tree, most)
    assert part.counted == (len(whole) if len(whole) <= most else None)
    while True:
        assert part.earlier == bool(seen)
        seen += [entry.name for entry in part.entries]
        assert part.later == (len(seen) < len(whole))
        if not part.later:
            break
        part = by_name(tree, most, after=part.entries[-1].name)
    assert seen == whole
    back: list[bytes] = []
    while part.earlier:
        part = by_name(tree, most, before=part.entries[0].name)
        assert part.later
        back = [entry.name for entry in part.entries] + back
    assert back == whole[: len(back)]
    assert len(back) >= len(whole) - most
    if first:
        wanted = [name for name in whole if name >= first][:most]
        assert [entry.name for entry in by_name(tree, most, first=first).entries] == wanted


def test_of_a_long_directory_few_pages_are_read() -> None:
    tree, read = tree_of([file(b"%06d" % number) for number in range(50_000)])
    top = tree.top()
    assert not top.leaf
    asks: list[tuple[dict[str, bytes], int]] = [
        ({}, 0),
        ({"after": b"025000"}, 25_001),
        ({"before": b"025000"}, 24_750),
        ({"before": b"025000a"}, 24_751),
        ({"first": b"049000"}, 49_000),
    ]
    for ask, start in asks:
        read.clear()
        found = by_name(tree, 250, **ask)
        assert [entry.name for entry in found.entries] == [b"%06d" % number for number in range(start, start + 250)]
        assert len({*read}) <= 6
    assert [int(entry.name) for entry in tree.entries_back()] == [*range(50_000)][::-1]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30), st.integers(1, 7), st.integers(0, 9))
def test_other_orders(files: list[tuple[int, int]], most: int, skip: int) -> None:
    entries = [file(b"%02d" % at, size, mtime_s) for at, (size, mtime_s) in enumerate(files)]
    tree, _ = tree_of(entries)
    for by, key in (("size", lambda e: e.size), ("time", lambda e: e.mtime_s)):
        wanted = sorted(entries, key=lambda e: (-key(e), e.name))[skip : skip + most]
        found = ordered(tree, by, most, skip)
        assert found.entries == wanted
        assert found.counted == len(entries)
        assert found.later == (len(entries) > skip + most)


def test_a_directory_has_the_size_of_its_files() -> None:
    folder = plain_entry(b"d", DIRECTORY, Subtree(bytes(32), 3, 2, 700, 2), 0, mode=0o755)
    tree, _ = tree_of([folder, file(b"f", 500)])
    assert [entry.name for entry in ordered(tree, "size", 9).entries] == [b"d", b"f"]
    assert size_of(folder) == 700


def test_a_page_that_is_its_own_child_ends() -> None:
    tree, _ = tree_of([file(b"%06d" % number) for number in range(20_000)])
    top = tree.top()
    looping = Tree(tree.subtree, lambda _: top)
    looping.child = lambda claim: top  # type: ignore[method-assign]
    with pytest.raises(CorruptData):
        next(looping.entries_back())
