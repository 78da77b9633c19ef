"""Parts with hardlinks, put together and taken apart, against a plain model: files that are inodes with names."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.verify import verify
from spraydry.format.entry import DIRECTORY, FILE, Entry, Subtree
from spraydry.format.links import Group, encode_links, group_of
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer
from tests.plain_trees import NAMES, PATHS, at_path, cut_from, put_at, united
from tests.versions import Maker, make_version, plain_entry

_numbers = itertools.count()


@dataclass(frozen=True)
class Inode:
    """A file of the model; two names are hardlinks if they have the same one."""

    number: int
    plain: bytes


Tree = dict[bytes, Any]  # names to an Inode or a Tree


def _trees(inodes: int) -> st.SearchStrategy[Tree]:
    """Trees whose files are names of a few inodes, so that many of them are hardlinked."""
    file = st.integers(0, inodes - 1)
    shapes = st.recursive(
        st.dictionaries(NAMES, file, max_size=4),
        lambda inner: st.dictionaries(NAMES, st.one_of(file, inner), max_size=4),
        max_leaves=14,
    )
    return st.tuples(shapes, st.lists(st.sampled_from([b"x", b"yy"]), min_size=inodes, max_size=inodes)).map(_filled)


def _filled(made: tuple[Any, list[bytes]]) -> Tree:
    shape, contents = made
    inodes = [Inode(next(_numbers), plain) for plain in contents]

    def fill(value: Any) -> Any:
        return inodes[value] if isinstance(value, int) else {name: fill(child) for name, child in value.items()}

    filled: Tree = fill(shape)
    return filled


def fresh(tree: Any, known: dict[int, Inode] | None = None) -> Any:
    """A tree as another part: alike, but with inodes of its own."""
    known = {} if known is None else known
    if isinstance(tree, Inode):
        return known.setdefault(tree.number, Inode(next(_numbers), tree.plain))
    return {name: fresh(child, known) for name, child in sorted(tree.items())}


def files(tree: Any, path: bytes = b"") -> Iterator[tuple[bytes, Inode]]:
    """Every file, in preorder."""
    if isinstance(tree, Inode):
        yield path, tree
        return
    for name in sorted(tree):
        yield from files(tree[name], path + b"/" + name if path else name)


TREES = _trees(4)


def stored(repository: Repository, tree: Tree, root: str = "r") -> Version:
    """A version of a tree of the model, as an ingest makes it."""
    names: dict[int, list[bytes]] = defaultdict(list)
    for path, inode in files(tree):
        names[inode.number].append(path)

    def shape(value: Any) -> Any:
        if not isinstance(value, Inode):
            return {name: shape(child) for name, child in value.items()}
        paths = names[value.number]
        group = group_of(paths[0]) if len(paths) > 1 else None
        return plain_entry(b"", FILE, contents[value.plain], len(value.plain), group=group)

    with Writer(repository, threads=1) as writer:
        contents = {plain: Maker(writer).content(plain) for plain in {inode.plain for _, inode in files(tree)}}
        writer.finish()
    return make_version(repository, root, shape(tree))


def part_of(version: Version) -> Part:
    return Part(version.record.entry, version.record.links)


def check(repository: Repository, theatre: Theatre, part: Part, tree: Tree) -> None:
    """A part is what the model says: names, contents, and which names are one inode; its links list is right."""
    found: dict[bytes, Entry] = {}
    for path, entry in theatre.surgery.walk(part.entry):
        if entry.kind == FILE:
            found[path] = entry
    wanted = dict(files(tree))
    assert found.keys() == wanted.keys()
    members: dict[int, list[bytes]] = defaultdict(list)
    for path, inode in wanted.items():
        members[inode.number].append(path)
        assert found[path].size == len(inode.plain)
    groups: dict[bytes, Group] = {}
    for paths in members.values():
        ids = {found[path].group for path in paths}
        assert len(ids) == 1, (paths, ids)
        (group,) = ids
        if len(paths) == 1:
            assert group is None, paths
            continue
        assert group is not None, paths
        assert group not in groups, "two inodes have one id"
        groups[group] = Group(group, len(paths), min(paths, key=lambda path: path.split(b"/")))
    made: dict[bytes, bytes] = {}
    assert part.links == encode_links([groups[group] for group in sorted(groups)], made.__setitem__)
    links = repository.links(part.links)
    assert {group.group: group for group in links.groups()} == groups


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lower=TREES, upper=TREES, path=st.one_of(st.just(b""), PATHS))
def test_parts_laid_over_one_another(repository: Repository, lower: Tree, upper: Tree, path: bytes) -> None:
    parts = part_of(stored(repository, lower)), part_of(stored(repository, upper))
    with Theatre(repository) as theatre:
        made = theatre.lay(*parts, path)
        check(repository, theatre, made, put_at(lower, path, upper, merge=True) if path else united(lower, upper))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, paths=st.lists(PATHS, min_size=1, max_size=3), gone=st.lists(PATHS, max_size=2))
def test_the_same_root_several_times(repository: Repository, tree: Tree, paths: list[bytes], gone: list[bytes]) -> None:
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        made, model = theatre.cut(part, gone), reduce(cut_from, gone, fresh(tree))
        for path in paths:
            made, model = theatre.lay(made, part, path), put_at(model, path, fresh(tree), merge=True)
            check(repository, theatre, made, model)
        made, model = theatre.lay(made, part), united(model, fresh(tree))
        check(repository, theatre, made, model)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, paths=st.lists(PATHS, max_size=4))
def test_parts_with_paths_cut_out(repository: Repository, tree: Tree, paths: list[bytes]) -> None:
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        check(repository, theatre, theatre.cut(part, paths), reduce(cut_from, paths, tree))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, path=PATHS)
def test_what_is_taken_out_of_a_part(repository: Repository, tree: Tree, path: bytes) -> None:
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        found = theatre.take(part, path)
        model = at_path(tree, path)
        if model is None:
            assert found is None
            return
        assert found is not None
        if isinstance(model, Inode):
            assert found.entry.group is None and found.links is None and found.entry.name == b""
            return
        check(repository, theatre, found, model)


def test_more_groups_than_a_page_lists(repository: Repository, rng: random.Random) -> None:
    inodes = [Inode(number, b"x") for number in range(3000)]
    names = [b"%05d" % number for number in range(7000)]
    tree = {
        b"in": {name: inodes[rng.randrange(3000)] for name in names},
        b"a": dict(zip(names, inodes[:800], strict=False)),
    }
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        gone = [b"in/" + name for name in rng.sample(names, 2500)]
        made, model = theatre.cut(part, gone), reduce(cut_from, gone, fresh(tree))
        check(repository, theatre, made, model)
        made, model = theatre.lay(made, part, b"a/more"), put_at(model, b"a/more", fresh(tree), merge=True)
        check(repository, theatre, made, model)
        found = theatre.take(made, b"a/more/in")
        assert found is not None
        check(repository, theatre, found, at_path(model, b"a/more/in"))


def test_a_part_that_was_stored_is_whole(repository: Repository) -> None:
    one, other = Inode(1, b"one"), Inode(2, b"other")
    tree = {b"a": {b"x": one, b"y": one}, b"b": {b"x": one, b"z": other}, b"c": other}
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        made = theatre.cut(theatre.lay(part, part, b"again/here"), [b"a/x", b"b/z"])
        with Writer(repository) as writer:
            theatre.store(writer, made)
            assert writer.finish().chunks == 8  # a, b, again, again/here, a and b in that, the root, the links list
    version = make_version(repository, "made", {})
    repository.log.append(
        lambda previous, now_ns: msgspec.structs.replace(
            version.record, previous=previous, name="v2", entry=made.entry, links=made.links
        )
    )
    assert verify(repository).sound
    with Theatre(repository) as theatre:
        model = cut_from(cut_from(put_at(tree, b"again/here", fresh(tree)), b"a/x"), b"b/z")
        check(repository, theatre, part_of(repository.log.find("made", "v2")), model)


def test_a_links_list_stays_where_no_member_goes(repository: Repository) -> None:
    one = Inode(1, b"one")
    tree = {b"links": {b"x": one, b"y": one}, b"plain": {b"f": Inode(2, b"f")}}
    part = part_of(stored(repository, tree))
    with Theatre(repository) as theatre:
        made = theatre.cut(part, [b"plain/f"])
        assert made.links == part.links
        assert theatre.surgery.at(made.entry, b"links") == theatre.surgery.at(part.entry, b"links")


def test_what_cannot_be_read_can_be_cut(repository: Repository) -> None:
    lost = Subtree(bytes(32), 2, 2, 2, 2)
    linked = plain_entry(b"", FILE, None, 0, group=group_of(b"a"))
    gone = plain_entry(b"", DIRECTORY, lost, 0, mode=0o755)
    version = make_version(repository, "r", {b"A": {b"gone": gone}, b"a": linked, b"b": linked, b"c": linked})
    with Theatre(repository) as theatre:
        made = theatre.cut(part_of(version), [b"A/gone", b"b"])
        links = [*repository.links(made.links).groups()]
        assert links == [Group(group_of(b"a"), 2, b"a")]
        assert theatre.surgery.at(made.entry, b"A/gone") is None
