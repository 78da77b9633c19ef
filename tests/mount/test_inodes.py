"""Preorder numbers: from entries to numbers and back."""

from __future__ import annotations

import random

import pytest

from spraydry.errors import CorruptData
from spraydry.format.entry import FILE, Subtree
from spraydry.format.links import Group, Links, group_of
from spraydry.mount.inodes import Numbering
from spraydry.repository.address import resolve, walk
from spraydry.repository.repository import Repository
from tests.versions import make_version, plain_entry

TREE = {
    b"a": b"one",
    b"b": {b"c": {b"d": b"two", b"e": {}}, b"f": "c/d"},
    b"g": {b"%05d" % number: b"%d" % number for number in range(3000)},
    b"h": {},
}


def numbering(repository: Repository, **options: int) -> Numbering:
    record = repository.log.find("r").record
    links = Links(record.links, lambda name: bytes(repository.read_chunk(name)))
    return Numbering("r@v1", record.entry, links, repository.page, **options)


def test_every_entry_is_found_by_its_number_in_any_order(repository: Repository, rng: random.Random) -> None:
    version = make_version(repository, "r", TREE)
    assert isinstance(version.record.entry.content, Subtree)
    found = list(walk(repository, resolve(repository, "r")))
    assert [each.number for each in found] == list(range(version.record.entry.content.inodes + 1))
    numbers = numbering(repository)
    for each in [*found, *rng.sample(found, len(found))]:
        node = numbers.at(each.number)
        assert (node.entry, node.path, node.number) == (each.entry, each.path, each.number)
        assert node.ino == each.number + 1


def test_children_lead_to_the_same_numbers(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    numbers = numbering(repository)
    assert numbers.child(numbers.root, b"absent") is None
    b = numbers.child(numbers.root, b"b")
    assert b is not None
    c = numbers.child(b, b"c")
    assert c is not None and c.number == 3 and c.parent is b
    a = numbers.child(numbers.root, b"a")
    assert a is not None and numbers.child(a, b"x") is None


def test_numbers_are_those_of_the_version_when_a_part_is_mounted(repository: Repository) -> None:
    make_version(repository, "r", TREE)
    b = resolve(repository, "r:b")
    numbers = numbering(repository, mounted=b.number)
    assert numbers.by_ino(1).path == b"b"
    assert numbers.at(b.number).ino == 1
    assert numbers.at(b.number + 1).ino == b.number + 2 == numbers.by_ino(b.number + 2).ino


@pytest.mark.parametrize("number", [-1, 3011, 1 << 50])
def test_no_such_number(repository: Repository, number: int) -> None:
    make_version(repository, "r", TREE)
    with pytest.raises(CorruptData):
        numbering(repository).at(number)


def test_members_of_a_hardlink_group_share_number_and_count(repository: Repository) -> None:
    group = group_of(b"d/x")
    member = plain_entry(b"", FILE, None, 0, group=group)
    make_version(repository, "r", {b"d": {b"x": member}, b"e": {b"y": member}, b"f": member, b"g": b"alone"})
    numbers = numbering(repository)
    nodes = [numbers.at(number) for number in (2, 4, 5)]
    assert [node.entry.name for node in nodes] == [b"x", b"y", b"f"]
    assert {node.ino for node in nodes} == {3}
    assert {numbers.nlink(node.entry) for node in nodes} == {3}
    assert numbers.nlink(numbers.at(6).entry) == 1


def test_a_links_list_that_names_nothing_is_damage(repository: Repository) -> None:
    class Wrong(Links):
        def find(self, group: bytes) -> Group:
            return Group(group, 2, b"a/no/such")

    make_version(repository, "r", TREE)
    numbers = Numbering("r@v1", repository.log.find("r").record.entry, Wrong(None, bytes), repository.page)
    with pytest.raises(CorruptData, match="not there"):
        numbers.linked(bytes(16))
