"""Tree surgery against the same done to plain mappings."""

from __future__ import annotations

import random
from functools import reduce

from hypothesis import given
from hypothesis import strategies as st

from spraydry.actions.compose.surgery import outermost
from spraydry.format.entry import Subtree
from tests.plain_trees import PATHS, TREES, Pages, Plain, at_path, cut_from, modes, put_at, united, with_mode


@given(TREES, TREES)
def test_a_tree_laid_over_another(lower: Plain, upper: Plain) -> None:
    pages = Pages()
    surgery = pages.surgery()
    found = surgery.union(pages.entry(lower), pages.entry(upper))
    assert found == pages.entry(united(lower, upper))


@given(TREES, TREES)
def test_merged_folders_have_the_attributes_of_the_later_one(lower: Plain, upper: Plain) -> None:
    pages = Pages()
    surgery = pages.surgery()
    below, above = pages.entry(lower, mode=0o700), pages.entry(upper, mode=0o555)
    found = surgery.union(below, above)
    assert modes(surgery, found) == {
        path: mode
        for path, mode in {**modes(surgery, below), **modes(surgery, above)}.items()
        if isinstance(at_path(united(lower, upper), path), dict)
    }


@given(TREES, TREES, PATHS)
def test_a_tree_grafted_at_a_path(tree: Plain, branch: Plain, path: bytes) -> None:
    pages = Pages()
    surgery = pages.surgery()
    found = surgery.union(pages.entry(tree), pages.entry(branch), path)
    assert found == pages.entry(put_at(tree, path, branch, merge=True))


@given(TREES, st.one_of(TREES, st.binary(min_size=1, max_size=2)), PATHS)
def test_an_entry_put_at_a_path(tree: Plain, what: Plain | bytes, path: bytes) -> None:
    pages = Pages()
    surgery = pages.surgery()
    found = surgery.put(pages.entry(tree), path, pages.entry(what))
    assert found == pages.entry(put_at(tree, path, what))
    assert surgery.at(found, path) == pages.entry(what, path.rpartition(b"/")[2])


@given(TREES, st.lists(PATHS, max_size=6))
def test_paths_cut_out(tree: Plain, paths: list[bytes]) -> None:
    pages = Pages()
    found = pages.surgery().cut(pages.entry(tree), paths)
    assert found == pages.entry(reduce(cut_from, paths, tree))


@given(TREES)
def test_a_walk_meets_everything_in_preorder(tree: Plain) -> None:
    pages = Pages()
    root = pages.entry(tree)
    walked = list(pages.surgery().walk(root))
    assert [path.split(b"/") for path, _ in walked[1:]] == sorted(path.split(b"/") for path, _ in walked[1:])
    assert len(walked) == root.totals.inodes
    assert all(entry == pages.entry(at_path(tree, path), path.rpartition(b"/")[2]) for path, entry in walked)


def test_only_folders_on_the_way_are_made_anew() -> None:
    pages = Pages()
    tree = {b"far": {b"deep": {b"x": b"1"}}, b"near": {b"in": {b"y": b"2"}, b"beside": {b"z": b"3"}}}
    root = pages.entry(tree)
    new: dict[bytes, bytes] = {}
    surgery = pages.surgery()
    surgery.emit = new.__setitem__
    found = surgery.put(root, b"near/in/y", pages.entry(b"new"))
    assert isinstance(found.content, Subtree)
    assert len(new) == 3  # the root, near, near/in
    new.clear()
    assert surgery.union(root, root) == root
    assert surgery.cut(root, [b"near/nothing", b"no"]) == root
    assert surgery.union(root, with_mode(root, 0o700)) == with_mode(root, 0o700)
    assert new == {}


def test_folders_of_many_pages(rng: random.Random) -> None:
    lower = {b"%06d" % number: b"%d" % (number % 7) for number in rng.sample(range(20_000), 6000)}
    upper = {b"%06d" % number: b"up" for number in rng.sample(range(20_000), 3000)}
    pages = Pages()
    surgery = pages.surgery()
    found = surgery.union(pages.entry({b"in": lower}), pages.entry({b"in": upper}))
    assert found == pages.entry({b"in": lower | upper})
    gone = rng.sample(sorted(lower | upper), 150)
    left = {name: plain for name, plain in (lower | upper).items() if name not in set(gone)}
    assert surgery.cut(found, [b"in/" + name for name in gone]) == pages.entry({b"in": left})


def test_a_tree_deeper_than_the_stack() -> None:
    pages = Pages()
    surgery = pages.surgery()
    path = b"/".join([b"d"] * 3000)
    root = surgery.put(pages.entry({}), path + b"/x", pages.entry(b"x"))
    assert surgery.at(root, path + b"/x") is not None
    both = surgery.union(root, surgery.put(pages.entry({}), path + b"/y", pages.entry(b"y")))
    assert both.totals.files == 2
    assert surgery.cut(both, [path + b"/y"]) == root


def test_outermost_paths() -> None:
    assert [*outermost([b"a/b/c", b"a-b", b"a/b", b"a/b", b"a-b/c", b"c"])] == [b"a/b", b"a-b", b"c"]
