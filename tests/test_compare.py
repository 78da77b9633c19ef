"""Two trees side by side: agreement with plain dictionaries, and how little is read of what is the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.actions.compare import Pair, compare
from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Child, Page, _encoder, _Index
from tests.versions import plain_entry

Nested = Mapping[bytes, Any]  # of names: bytes (a file's content), or the same again


class Made:
    """Trees in memory; `asked` are the pages that were read of them."""

    def __init__(self) -> None:
        self.pages: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []

    def page(self, name: bytes) -> Page:
        self.asked.append(name)
        return Page(self.pages[name])

    def entry(self, name: bytes, value: bytes | Nested) -> Entry:
        if isinstance(value, bytes):
            return plain_entry(name, FILE, digest(value), len(value))
        builder = TreeBuilder(self.pages.__setitem__)
        for child in sorted(value):
            builder.add(self.entry(child, value[child]))
        return plain_entry(name, DIRECTORY, builder.finish(), 0)


def flat(made: Made, value: Nested, path: bytes = b"") -> dict[bytes, Entry]:
    """Every path with its entry."""
    found = {path: made.entry(path.rpartition(b"/")[2], value)}
    for name, child in value.items():
        below = path + b"/" + name if path else name
        found |= {below: made.entry(name, child)} if isinstance(child, bytes) else flat(made, child, below)
    return found


def in_order(paths: set[bytes]) -> list[bytes]:
    return sorted(paths, key=lambda path: path.split(b"/") if path else [])


names = st.sampled_from([b"a", b"a-", b"a.b", b"b", b"c", b"\xff"])
trees = st.recursive(
    st.sampled_from([b"1", b"2", b"3"]), lambda below: st.dictionaries(names, below, max_size=4), max_leaves=12
)
tops = st.dictionaries(names, trees, max_size=5)


@given(tops, tops)
@settings(max_examples=200)
def test_agrees_with_dictionaries(old: Nested, new: Nested) -> None:
    made = Made()
    before, after = flat(made, old), flat(made, new)
    wanted = [
        Pair(path, before.get(path), after.get(path))
        for path in in_order(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]
    assert list(compare(before[b""], after[b""], made.page, made.page)) == wanted
    assert [pair.path for pair in compare(None, after[b""], made.page, made.page)] == in_order({*after})
    assert [pair.path for pair in compare(before[b""], None, made.page, made.page)] == in_order({*before})


@given(st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 40), st.booleans())
@settings(max_examples=15)
def test_directories_of_many_pages(seed: int, added: int, removed: int, together: bool) -> None:
    """Whatever is put in and taken out, in one place or all over, and however the pages are cut then."""
    rng = random.Random(seed)
    made = Made()
    old = {b"%05d" % number: b"%d" % number for number in range(0, 6000, 2)}
    new = dict(old)
    start = rng.randrange(5000)
    places = range(start, start + 400) if together else range(6000)
    for number in rng.sample(places, removed):
        new.pop(b"%05d" % number, None)
    for number in rng.sample(places, added):
        new[b"%05d" % number] = b"new"
    before, after = made.entry(b"", old), made.entry(b"", new)
    found = {pair.path: pair for pair in compare(before, after, made.page, made.page) if pair.path}
    assert [*found] == sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    for name, pair in found.items():
        assert (pair.before, pair.after) == (
            made.entry(name, old[name]) if name in old else None,
            made.entry(name, new[name]) if name in new else None,
        )


def test_reads_only_the_pages_that_differ() -> None:
    made, other = Made(), Made()
    old: dict[bytes, Any] = {b"%06d" % number * 40: b"%d" % number for number in range(20_000)}
    old[b"folder"] = {b"below": {b"f": b"1"}, b"same": {b"g": b"2"}}
    new = {**old, b"001234" * 40: b"changed", b"015000x": b"added"}
    new[b"folder"] = {b"below": {b"f": b"1!"}, b"same": {b"g": b"2"}}
    before, after = made.entry(b"", old), other.entry(b"", new)
    pages = len(made.pages)
    found = list(compare(before, after, made.page, other.page))
    wanted = [b"001234" * 40, b"015000x", b"folder", b"folder/below", b"folder/below/f"]
    assert [pair.path for pair in found] == [b"", *wanted]
    assert pages > 120 and len(made.asked) < 12 and len(other.asked) < 12
    assert other.pages.keys() - made.pages.keys() == {*other.asked}, "what the other side lacks is what is asked for"


def test_what_is_below_is_not_read_where_only_a_directory_itself_differs() -> None:
    made = Made()
    before = made.entry(b"", {b"a": b"1"})
    after = msgspec.structs.replace(before, mode=0o700)
    assert list(compare(before, after, made.page, made.page)) == [Pair(b"", before, after)]
    assert made.asked == []


def test_the_same_is_nothing_and_reads_nothing() -> None:
    made = Made()
    one = made.entry(b"", {b"a": {b"b": b"c"}})
    assert list(compare(one, one, made.page, made.page)) == []
    named = made.entry(b"name", {b"a": {b"b": b"c"}})
    assert list(compare(one, named, made.page, made.page)) == []
    assert list(compare(None, None, made.page, made.page)) == []
    assert made.asked == []


def test_reads_as_it_is_iterated_however_deep() -> None:
    made = Made()

    def deep(depth: int, bottom: bytes) -> Entry:
        entry = plain_entry(b"f", FILE, digest(bottom), 1)
        for _ in range(depth):
            builder = TreeBuilder(made.pages.__setitem__)
            builder.add(entry)
            entry = plain_entry(b"d", DIRECTORY, builder.finish(), 0)
        return entry

    pairs = compare(deep(3000, b"1"), deep(3000, b"2"), made.page, made.page)
    next(pairs)
    assert made.asked == []
    assert len(list(pairs)) == 3000


def test_a_tree_that_lies_is_an_error() -> None:
    made = Made()
    good = made.entry(b"", {b"%05d" % number: b"1" for number in range(3000)})
    assert isinstance(good.content, Subtree)
    top = Page(made.pages[good.content.digest])
    children = [*top.items]
    assert isinstance(children[0], Child) and isinstance(children[1], Child)
    first = children[0]
    children[0] = Child(
        first.first, first.last, children[1].digest, first.inodes, first.files, first.size, first.blocks
    )
    plain = _encoder.encode(_Index(1, tuple(children)))
    made.pages[digest(plain)] = plain
    lies = plain_entry(b"", DIRECTORY, Subtree(digest(plain), *top.totals), 0)
    with pytest.raises(CorruptData, match="claims"):
        list(compare(good, lies, made.page, made.page))

    below = made.entry(b"", {b"a": b"1"})
    for _ in range(9):
        assert isinstance(below.content, Subtree)
        plain = _encoder.encode(_Index(1, (Child(b"a", b"a", below.content.digest, *below.content.totals),)))
        made.pages[digest(plain)] = plain
        below = plain_entry(b"", DIRECTORY, Subtree(digest(plain), *below.content.totals), 0)
    with pytest.raises(CorruptData, match="deeper"):
        list(compare(None, below, made.page, made.page))
