"""Links lists: agreement with a dict, stable pages, and damage."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.links import INDEX, LINKS, Group, Links, encode_links, group_of
from tests.format.samples import mutations

packed = msgspec.msgpack.encode
G = bytes(range(16))
D = bytes(32)


def groups(count: int, word: str = "file") -> list[Group]:
    paths = [f"some/folder/{word}-{number}".encode() for number in range(count)]
    return sorted((Group(group_of(path), 2 + len(path) % 5, path) for path in paths), key=lambda group: group.group)


def build(made: list[Group]) -> tuple[bytes | None, dict[bytes, bytes]]:
    pages: dict[bytes, bytes] = {}
    name = encode_links(made, pages.__setitem__)
    assert all(digest(plain) == key for key, plain in pages.items())
    return name, pages


@pytest.mark.parametrize("count", [0, 1, 2, 500, 5_000, 60_000])
def test_agrees_with_a_dict(count: int) -> None:
    made = groups(count)
    name, pages = build(made)
    assert (name is None) == (count == 0)
    links = Links(name, pages.__getitem__)
    assert set(links.pages()) == set(pages)
    for group in made[:: max(1, count // 50)]:
        assert links.find(group.group) == group
    for missing in (bytes(16), b"\xff" * 16, group_of(b"missing")):
        with pytest.raises(CorruptData):
            links.find(missing)
    assert all(len(plain) < 64 << 10 for plain in pages.values())


@given(
    st.lists(st.binary(min_size=1, max_size=3000).map(lambda path: path.replace(b"/", b"").replace(b"\0", b"") or b"x"))
)
def test_long_paths(paths: list[bytes]) -> None:
    made = sorted(
        {Group(group_of(b"p" + path), 2, b"p" + b"/p".join([path[:250]] * 9)) for path in paths}, key=lambda g: g.group
    )
    unique = list({group.group: group for group in made}.values())
    name, pages = build(unique)
    assert all(Links(name, pages.__getitem__).find(group.group) == group for group in unique)


def test_one_more_group_changes_few_pages() -> None:
    made = groups(60_000)
    _, before = build(made)
    changed = 0
    for number in range(8):
        _, after = build(sorted([*made, *groups(1, f"new-{number}")], key=lambda group: group.group))
        changed += len(after.keys() - before.keys())
    assert changed / 8 < 6 < len(before) / 8  # half of the pages each time, were they cut at fixed places


IMPOSSIBLE = {
    "nothing": packed([LINKS, 1, []]),
    "no children": packed([INDEX, 1, []]),
    "version 2": packed([LINKS, 2, [(G, 2, b"a")]]),
    "kind": packed([9, 1, [(G, 2, b"a")]]),
    "count 1": packed([LINKS, 1, [(G, 1, b"a")]]),
    "count negative": packed([LINKS, 1, [(G, -2, b"a")]]),
    "no path": packed([LINKS, 1, [(G, 2, b"")]]),
    "absolute path": packed([LINKS, 1, [(G, 2, b"/etc/passwd")]]),
    "path upwards": packed([LINKS, 1, [(G, 2, b"a/../../b")]]),
    "path with NUL": packed([LINKS, 1, [(G, 2, b"a\0b")]]),
    "short id": packed([LINKS, 1, [(b"x", 2, b"a")]]),
    "twice": packed([LINKS, 1, [(G, 2, b"a"), (G, 2, b"b")]]),
    "unsorted": packed([LINKS, 1, [(G, 2, b"a"), (bytes(16), 2, b"b")]]),
    "short digest": packed([INDEX, 1, [(G, b"x")]]),
    "trailing": packed([LINKS, 1, [(G, 2, b"a")]]) + b"\0",
    "fields": packed([LINKS, 1, [(G, 2, b"a", 0)]]),
    "names itself": packed([INDEX, 1, [(bytes(16), D)]]),
}


@pytest.mark.parametrize("plain", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_pages_that_cannot_be(plain: bytes) -> None:
    links = Links(D, lambda _: plain)
    with pytest.raises(CorruptData):
        links.find(G)
    with pytest.raises(CorruptData):
        list(links.pages())


def test_mutations_raise_nothing_else() -> None:
    for plain in (packed([LINKS, 1, [(G, 2, b"a/b"), (b"\x01" * 16, 3, b"c")]]), packed([INDEX, 1, [(G, D)]])):
        for damaged in mutations(plain, 4, 3000):
            try:
                Links(D, lambda _, found=damaged: found).find(G)
            except CorruptData:
                pass
