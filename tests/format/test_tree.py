"""Trees: agreement with a plain list, stable pages, and pages that could not be, refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SOCKET,
    SYMLINK,
    Entry,
    Runs,
    Subtree,
    Totals,
    check_entry,
    decode_entry,
    decode_xattrs,
    encode_entry,
    encode_xattrs,
)
from spraydry.format.tree import MAX_DEPTH, Tree
from spraydry.format.tree_builder import MIN_PAGE_BYTES, TreeBuilder
from spraydry.format.tree_page import MAX_PAGE_BYTES, Page
from tests.format.samples import digests, entries, entry, file, inline_xattrs, mutations, names

packed = msgspec.msgpack.encode


@dataclass
class Made:
    """A tree and all pages it is made of."""

    subtree: Subtree
    pages: dict[bytes, bytes]

    def tree(self) -> Tree:
        return Tree(self.subtree, lambda name: Page(self.pages[name]))


def build(wanted: Sequence[Entry]) -> Made:
    pages: dict[bytes, bytes] = {}

    def emit(name: bytes, plain: bytes) -> None:
        assert digest(plain) == name
        pages[name] = plain

    builder = TreeBuilder(emit)
    for item in wanted:
        builder.add(item)
    return Made(builder.finish(), pages)


def numbered(count: int, seed: int = 0, step: int = 1) -> list[Entry]:
    rng = random.Random(seed)
    return [file(b"%08d-%s" % (number * step, rng.randbytes(6).hex().encode())) for number in range(count)]


def model_offsets(wanted: Sequence[Entry]) -> list[int]:
    offsets, at = [], 0
    for item in wanted:
        offsets.append(at)
        at += item.totals.inodes
    return offsets


@st.composite
def directories(draw: st.DrawFn) -> list[Entry]:
    wanted = sorted(draw(st.sets(names, max_size=30)))
    return [draw(entries(name)) for name in wanted]


@given(directories())
@settings(max_examples=60)
def test_agrees_with_a_list(wanted: list[Entry]) -> None:
    made = build(wanted)
    tree = made.tree()
    offsets = model_offsets(wanted)
    assert list(tree.entries()) == list(zip(wanted, offsets, strict=True))
    assert made.subtree.totals == sum((item.totals for item in wanted), Totals())
    for item, offset in zip(wanted, offsets, strict=True):
        assert tree.lookup(item.name) == (item, offset) and tree.find(item.name) == item
        last = offset + item.totals.inodes - 1
        assert tree.at(offset) == tree.at(last) == (item, offset)
        assert [found.name for found, _ in tree.entries(item.name)] == [i.name for i in wanted if i.name > item.name]
        assert tree.lookup(item.name + b"\xff") in [(i, o) for i, o in zip(wanted, offsets, strict=True)] + [None]
    assert tree.lookup(b"\0") is None and tree.find(b"\0") is None
    with pytest.raises(CorruptData):
        tree.at(made.subtree.inodes)
    with pytest.raises(CorruptData):
        tree.at(-1)


@pytest.mark.parametrize("count", [0, 1, 300, 1_000, 20_000, 60_000])
def test_large_directories(count: int) -> None:
    wanted = numbered(count)
    made = build(wanted)
    tree = made.tree()
    assert all(len(plain) <= MAX_PAGE_BYTES + 16 for plain in made.pages.values())
    assert set(tree.pages()) == set(made.pages)
    rng = random.Random(count)
    for place in rng.sample(range(count), min(count, 200)):
        assert tree.lookup(wanted[place].name) == tree.at(place) == (wanted[place], place)
        assert tree.lookup(wanted[place].name + b"x") is tree.find(wanted[place].name + b"x") is None
    assert [item for item, _ in tree.entries()] == wanted
    if count:
        place = count // 2
        assert next(tree.entries(wanted[place - 1].name), None) == (wanted[place], place) or count == 1


def test_large_entries_fit_their_pages() -> None:
    xattrs = tuple((b"user.%02d" % number, bytes(4000)) for number in range(1))
    wanted = [
        entry(b"%04d" % number + b"n" * 250, SYMLINK, 4095, b"t" * 4095, xattrs=xattrs, group=bytes(16))
        for number in range(100)
    ]
    made = build(wanted)
    assert [item for item, _ in made.tree().entries()] == wanted


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_one_more_name_changes_few_pages(count: int) -> None:
    wanted = numbered(count, step=2)
    before = build(wanted)
    total = 0
    rng = random.Random(3)
    for place in rng.sample(range(count), 20):
        new = file(b"%08d-new" % (place * 2 + 1))
        after = build([*wanted[: place + 1], new, *wanted[place + 1 :]])
        changed = len(after.pages.keys() - before.pages.keys())
        assert changed <= 8
        total += changed
    # One leaf and one index page at best; a fixed cut would have changed half of the pages each time.
    assert total / 20 <= 3.5


def test_pages_do_not_depend_on_what_was_there_before() -> None:
    wanted = numbered(3_000)
    assert build(wanted) == build(wanted)
    assert build(wanted[:-1]).subtree != build(wanted).subtree


def test_page_sizes_keep_their_bounds() -> None:
    made = build(numbered(30_000))
    sizes = sorted(len(plain) for plain in made.pages.values() if plain[1] == 1)
    assert sizes[len(sizes) // 2] > MIN_PAGE_BYTES and sizes[-1] <= MAX_PAGE_BYTES + 16


def test_builder_refuses_what_no_reader_would_take() -> None:
    for wanted in ([file(b"b"), file(b"a")], [file(b"a"), file(b"a")], [file(b"..")], [entry(mode=0o10644)]):
        with pytest.raises(CorruptData):
            build(wanted)
    huge = [entry(b"%d" % n, FILE, (1 << 63) - 1, Runs(None, bytes(32), 0)) for n in range(2)]
    with pytest.raises(CorruptData, match="more bytes than can be counted"):
        build(huge)


@given(entries())
def test_entries_round_trip(item: Entry) -> None:
    check_entry(item)
    assert decode_entry(encode_entry(item)) == item


# -- what cannot be: reliability H1 to H6

BAD_NAMES = [b"", b".", b"..", b"/", b"a/b", b"/etc/passwd", b"nul\0x", b"n" * 256, b"n" * 1025]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be(name: bytes) -> None:
    with pytest.raises(CorruptData):
        Page(leaf([file(name)]))
    with pytest.raises(CorruptData):
        Page(index([(name, b"z", bytes(32), 1, 1, 1, 1)]))
    with pytest.raises(CorruptData):
        Page(index([(b"\1", name, bytes(32), 1, 1, 1, 1)]))


def leaf(wanted: Sequence[Entry]) -> bytes:
    return packed([1, 1, wanted])


def index(wanted: Sequence[object]) -> bytes:
    return packed([2, 1, wanted])


@pytest.mark.parametrize(
    "page",
    [
        leaf([file(b"b"), file(b"a")]),
        leaf([file(b"a"), file(b"a")]),
        leaf([entry(b"a", SYMLINK, 1, b"x"), entry(b"a", DIRECTORY, 0, Subtree(bytes(32), 0, 0, 0, 0))]),
        index([]),
        index([(b"b", b"a", bytes(32), 1, 1, 1, 1)]),
        index([(b"a", b"c", bytes(32), 1, 1, 1, 1), (b"b", b"d", bytes(32), 1, 1, 1, 1)]),
        index([(b"a", b"b", bytes(32), 1, 1, 1, 1), (b"b", b"c", bytes(32), 1, 1, 1, 1)]),
        index([(b"a", b"b", bytes(31), 1, 1, 1, 1)]),
        index([(b"a", b"b", bytes(32), 0, 1, 1, 1)]),
        index([(b"a", b"b", bytes(32), -1, 1, 1, 1)]),
        index([(b"a", b"b", bytes(32), 1, -1, 1, 1)]),
        index([(b"a", b"b", bytes(32), 1, 1, 1 << 63, 1)]),
        index([(b"a", b"b", bytes(32), 1 << 62, 1, 1, 1), (b"c", b"d", bytes(32), 1 << 62, 1, 1, 1)]),
        packed([3, 1, []]),
        packed([1, 2, []]),
        packed([1, 1]),
        packed([1, 1, [], 0]),
        packed({"kind": 1}),
        b"",
        b"\x93\x01\x01\xdd\x3b\x9a\xca\x00",  # says that 1e9 entries follow
        b"\x93\xcc\x01\x01\x90",  # a padded integer
        b"\x93\x01\x01\xdc\x00\x00",  # a padded array
        leaf([]) + b"\0",
        leaf([file(b"%04d" % number) for number in range(2000)]),  # larger than a page may be
    ],
)
def test_pages_that_cannot_be(page: bytes) -> None:
    with pytest.raises(CorruptData):
        Page(page)


D = bytes(32)
BAD_ENTRIES = {
    "kind 0": entry(kind=0),
    "kind 8": entry(kind=8),
    "kind huge": entry(kind=(1 << 64) - 1),
    "mode with type bits": entry(mode=0o100644),
    "mode negative": entry(mode=-1),
    "uid -1": entry(uid=0xFFFFFFFF),
    "uid negative": entry(uid=-1),
    "gid huge": entry(gid=1 << 32),
    "time out of range": entry(mtime_s=1 << 62),
    "time below range": entry(mtime_s=-(1 << 63)),
    "ns": entry(mtime_ns=10**9),
    "ns negative": entry(mtime_ns=-1),
    "empty with size": entry(size=5),
    "size 0 with chunk": entry(size=0, content=D),
    "size negative": entry(size=-1, content=D),
    "size beyond a chunk": entry(size=(4 << 20) + 1, content=D),
    "short digest": entry(size=5, content=b"short"),
    "device on a file": entry(size=5, content=7),
    "directory on a file": entry(size=5, content=Subtree(D, 0, 0, 0, 0)),
    "runs, size 2^63": entry(size=1 << 63, content=Runs(D, D, 1)),
    "runs, size 2^64-1": entry(size=(1 << 64) - 1, content=Runs(D, D, 1)),
    "runs, filled beyond size": entry(size=5, content=Runs(D, D, 6)),
    "runs, filled negative": entry(size=5, content=Runs(D, D, -1)),
    "runs, empty": entry(size=0, content=Runs(D, D, 0)),
    "runs, short manifest": entry(size=5, content=Runs(D, b"", 5)),
    "runs, short digest": entry(size=5, content=Runs(b"", D, 5)),
    "directory without tree": entry(kind=DIRECTORY),
    "directory with size": entry(kind=DIRECTORY, size=1, content=Subtree(D, 0, 0, 0, 0)),
    "directory, negative totals": entry(kind=DIRECTORY, content=Subtree(D, -1, 0, 0, 0)),
    "directory, huge totals": entry(kind=DIRECTORY, content=Subtree(D, 0, 0, 1 << 63, 0)),
    "directory, inodes 2^64-1": entry(kind=DIRECTORY, content=Subtree(D, (1 << 64) - 1, 0, 0, 0)),
    "directory in a group": entry(kind=DIRECTORY, content=Subtree(D, 0, 0, 0, 0), group=bytes(16)),
    "symlink to nothing": entry(kind=SYMLINK, content=b""),
    "symlink, wrong size": entry(kind=SYMLINK, size=1, content=b"ab"),
    "symlink with NUL": entry(kind=SYMLINK, size=3, content=b"a\0b"),
    "symlink too long": entry(kind=SYMLINK, size=4096, content=b"x" * 4096),
    "device without number": entry(kind=CHARACTER),
    "device negative": entry(kind=BLOCK, content=-1),
    "device huge": entry(kind=BLOCK, content=1 << 63),
    "device with size": entry(kind=BLOCK, size=1, content=5),
    "fifo with content": entry(kind=FIFO, content=D),
    "socket with device": entry(kind=SOCKET, content=5),
    "fifo with size": entry(kind=FIFO, size=1),
    "xattr twice": entry(xattrs=((b"user.a", b""), (b"user.a", b""))),
    "xattr unsorted": entry(xattrs=((b"user.b", b""), (b"user.a", b""))),
    "xattr without name": entry(xattrs=((b"", b""),)),
    "xattr name with NUL": entry(xattrs=((b"a\0b", b""),)),
    "xattr name too long": entry(xattrs=((b"n" * 256, b""),)),
    "xattr value too large": entry(xattrs=((b"user.a", bytes(4097)),)),
    "a million xattrs": entry(xattrs=tuple((b"%07d" % number, b"") for number in range(1_000_000))),
    "xattrs, short digest": entry(xattrs=b"short"),
    "xattrs, empty digest": entry(xattrs=b""),
    "group, short": entry(group=b"short"),
}


@pytest.mark.parametrize("bad", BAD_ENTRIES.values(), ids=BAD_ENTRIES.keys())
def test_entries_that_cannot_be(bad: Entry) -> None:
    with pytest.raises(CorruptData):
        check_entry(bad)
    with pytest.raises(CorruptData):
        Page(leaf([bad]))


def test_only_the_root_has_no_name() -> None:
    check_entry(entry(b""), root=True)
    check_entry(entry(b"single"), root=True)
    with pytest.raises(CorruptData):
        check_entry(entry(b".."), root=True)


def test_types_are_strict() -> None:
    good = leaf([entry(b"a", size=5, content=D)])
    Page(good)
    for was, now in (
        (b"\xc4\x01a", b"\xa1a"),
        (b"\x05\xc4\x20", b"\xcb" + bytes(8) + b"\xc4\x20"),
        (b"\x01\x90", b"\xc3\x90"),
    ):
        if was in good:
            with pytest.raises(CorruptData):
                Page(good.replace(was, now))


Forged = Callable[[dict[bytes, bytes]], Subtree]


def forged(child: bytes, **claims: object) -> Tree:
    """An index page that says of a child page what is not so."""
    page = Page(child)
    real = page.items[0].name, page.names[-1], digest(child), *page.totals  # type: ignore[union-attr]
    fields = dict(zip(("first", "last", "digest", "inodes", "files", "size", "blocks"), real, strict=True)) | claims
    top = index([tuple(fields.values())])
    pages = {digest(child): child, digest(top): top, **{d: p for d, p in [(digest(leaf([])), leaf([]))]}}
    totals = [fields[key] for key in ("inodes", "files", "size", "blocks")]
    return Tree(Subtree(digest(top), *totals), lambda name: Page(pages[name]))  # type: ignore[arg-type]


CHILD = leaf([file(b"b"), file(b"c")])


@pytest.mark.parametrize(
    "claims",
    [
        {"inodes": 3},
        {"inodes": 1},
        {"files": 1},
        {"size": 5},
        {"blocks": 9},
        {"first": b"a"},
        {"last": b"d"},
        {"digest": digest(leaf([]))},
    ],
    ids=lambda claims: next(iter(claims)),
)
def test_a_page_is_what_its_parent_claims(claims: dict[str, object]) -> None:
    assert [item.name for item, _ in forged(CHILD).entries()] == [b"b", b"c"]
    tree = forged(CHILD, **claims)
    for ask in (
        lambda: list(tree.entries()),
        lambda: tree.at(0),
        lambda: tree.lookup(b"c"),
        lambda: list(tree.pages()),
    ):
        with pytest.raises(CorruptData):
            ask()


def test_a_directory_is_what_its_entry_claims() -> None:
    made = build(numbered(10))
    for place in range(4):
        totals = list(made.subtree.totals)
        totals[place] += 1
        tree = Tree(Subtree(made.subtree.digest, *totals), lambda name: Page(made.pages[name]))
        for ask in (lambda t=tree: list(t.entries()), lambda t=tree: t.at(0), lambda t=tree: t.lookup(b"x")):
            with pytest.raises(CorruptData):
                ask()


def test_depth_is_bounded() -> None:
    pages = {digest(CHILD): CHILD}
    name, last = digest(CHILD), CHILD

    def on_top(below: bytes) -> bytes:
        page = Page(below)
        return index([(b"b", b"c", digest(below), *page.totals)])

    for level in range(2, 60):
        last = on_top(last)
        name = digest(last)
        pages[name] = last
        tree = Tree(Subtree(name, *Page(last).totals), lambda asked: Page(pages[asked]))
        asks: list[Callable[[], object]] = [
            lambda tree=tree: list(tree.entries()),
            lambda tree=tree: tree.at(1),
            lambda tree=tree: tree.lookup(b"c"),
            lambda tree=tree: list(tree.pages()),
        ]
        for ask in asks:
            if level <= MAX_DEPTH:
                assert ask()
            else:
                with pytest.raises(CorruptData):
                    ask()


def test_mutated_pages_raise_nothing_else() -> None:
    small = build([entry(b"x", xattrs=((b"user.a", b"b"),), size=5, content=D), file(b"y")]).pages
    large = build(numbered(2_000)).pages
    for plain in (*small.values(), CHILD, index([(b"b", b"c", D, 2, 2, 200, 2)])):
        for damaged in mutations(plain, 11, 3000):
            try:
                Page(damaged)
            except CorruptData:
                pass
    for plain in large.values():
        for damaged in mutations(plain, 12, 10):
            try:
                Page(damaged)
            except CorruptData:
                pass


def test_mutated_entries_raise_nothing_else() -> None:
    for item in (file(b"x"), entry(xattrs=((b"user.a", b"b"),)), entry(kind=DIRECTORY, content=Subtree(D, 0, 0, 0, 0))):
        for damaged in mutations(encode_entry(item), 13, 2000):
            try:
                decode_entry(damaged)
            except CorruptData:
                pass


@given(inline_xattrs, digests)
def test_moved_out_xattrs(xattrs: tuple[tuple[bytes, bytes], ...], value: bytes) -> None:
    large = tuple(sorted({**dict(xattrs), b"user.large": value * 200}.items()))
    assert decode_xattrs(encode_xattrs(large)) == large
    with pytest.raises(CorruptData):  # what fits the entry stays there: one form for one thing
        decode_xattrs(encode_xattrs(xattrs))


def test_xattrs_that_cannot_be() -> None:
    for bad in (((b"a", bytes(65_537)),), ((b"b", bytes(5000)), (b"a", b"")), ((b"a\0", bytes(5000)),)):
        with pytest.raises(CorruptData):
            decode_xattrs(encode_xattrs(bad))
    for damaged in mutations(encode_xattrs(((b"user.a", bytes(5000)), (b"user.b", b"x"))), 14, 1000):
        try:
            decode_xattrs(damaged)
        except CorruptData:
            pass
