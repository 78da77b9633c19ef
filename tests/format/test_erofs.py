"""EROFS images, read by a small reader of our own and by fsck.erofs; the mounts that the kernel makes of them are
tested with the mount."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import ImageImpossible
from spraydry.format.digest import digest
from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry, Runs, Xattrs
from spraydry.format.erofs import Image, Source, write_image
from spraydry.format.erofs_contents import SLOT_BLOCKS, Addresses, device_slots
from spraydry.format.erofs_layout import DirectoryBlocks, XattrBodies, chunk_bits, device_number
from spraydry.format.hashtable import Table
from spraydry.format.links import Group, Links, encode_links
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page
from tests.format.samples import entry, file, names

Tree = dict[bytes, "Tree | Entry"]
LONG: Xattrs = ((b"user.x", b"v" * 65536),)
HOLES = {b"sparse": [(65536, 131072), (1 << 20, (1 << 20) + 5)]}


def built(tree: Tree, groups: dict[bytes, int] | None = None, **root: object) -> Source:
    """A source made of names and entries."""
    pages: dict[bytes, bytes] = {}

    def emit(name: bytes, plain: bytes) -> None:
        pages[name] = plain

    def of(name: bytes, below: Tree) -> Entry:
        builder = TreeBuilder(emit)
        for child in sorted(below):
            value = below[child]
            builder.add(of(child, value) if isinstance(value, dict) else value)
        return entry(name, DIRECTORY, 0, builder.finish(), mode=0o755)

    links = encode_links([Group(group, count, b"x") for group, count in sorted((groups or {}).items())], emit)
    return Source(
        of(b"", tree),
        lambda name: Page(pages[name]),
        Links(links, pages.__getitem__),
        lambda one: one.xattrs if isinstance(one.xattrs, tuple) else LONG,
        lambda one: iter(HOLES[one.name]),
    )


def image_of(source: Source, **options: object) -> tuple[bytes, Image]:
    """The image's bytes, put together as they were written."""
    parts = bytearray()

    def write(at: int, plain: bytes) -> None:
        if len(parts) < at + len(plain):
            parts.extend(bytes(at + len(plain) - len(parts)))
        parts[at : at + len(plain)] = plain

    slots = device_slots(source.root.totals.blocks)
    done = write_image(source, write, Addresses(), slots=slots, **options)  # type: ignore[arg-type]
    assert len(parts) == done.size
    return bytes(parts), done


class Reader:
    """Reads directories and inodes of an image, by the format's own words."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        fields = struct.unpack_from("<III2BHQQIIII16s16sIHHH", image, 1024)
        assert fields[0] == 0xE0F5E1E2 and fields[3] == 12
        self.root, self.count, self.meta = fields[5], fields[6], fields[10]

    def inode(self, nid: int) -> tuple[int, ...]:
        return struct.unpack_from("<HHHHQIIIIqII", self.image, self.meta * 4096 + nid * 32)

    def plain(self, nid: int) -> bytes:
        layout, xattrs, _, _, size, block, *_ = self.inode(nid)
        behind = self.meta * 4096 + nid * 32 + 64 + (12 + (xattrs - 1) * 4 if xattrs else 0)
        if layout >> 1 == 0:
            return self.image[block * 4096 : block * 4096 + size]
        whole = size // 4096 * 4096
        assert layout >> 1 == 2 and behind // 4096 == (behind + size - whole - 1) // 4096
        return self.image[block * 4096 : block * 4096 + whole] + self.image[behind : behind + size - whole]

    def directory(self, nid: int) -> Iterator[tuple[bytes, int, int]]:
        plain = self.plain(nid)
        for at in range(0, len(plain), 4096):
            block = plain[at : at + 4096]
            count = struct.unpack_from("<QH", block)[1] // 12
            heads = [struct.unpack_from("<QHB", block, 12 * place) for place in range(count)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for (number, start, kind), end in zip(heads, ends, strict=True):
                yield block[start:end].rstrip(b"\0"), number, kind

    def walk(self, nid: int, above: int) -> Tree:
        found = list(self.directory(nid))
        assert [name for name, _, _ in found] == sorted(name for name, _, _ in found)
        dots = {name: number for name, number, _ in found if name in (b".", b"..")}
        assert dots == {b".": nid, b"..": above}
        return {
            name: self.walk(number, nid) if kind == 2 else number  # type: ignore[misc]
            for name, number, kind in found
            if name not in dots
        }


def shape(tree: Tree) -> object:
    return {name: shape(below) if isinstance(below, dict) else None for name, below in tree.items()}


@given(st.recursive(st.just(None), lambda below: st.dictionaries(names, below, max_size=30), max_leaves=60))
def test_what_is_written_is_read(drawn: dict[bytes, object] | None) -> None:
    def entries(below: dict[bytes, object]) -> Tree:
        return {
            name: entries(value) if isinstance(value, dict) else file(name, 1 + len(name) * 37)
            for name, value in below.items()
        }

    tree = entries(drawn or {})
    plain, done = image_of(built(tree))
    reader = Reader(plain)
    assert shape(reader.walk(reader.root, reader.root)) == shape(tree)
    assert reader.count == done.inodes


def test_large_directories_and_names_around_the_dots() -> None:
    tree: Tree = {b"%06d" % number: file(b"%06d" % number) for number in range(5000)}
    tree |= {name: file(name) for name in (b"!", b"-", b"..a", b".a", b"\x01", b"\xff" * 255)}
    tree[b"d"] = {b"." * 255: {b"e": {}}}
    plain, _ = image_of(built(tree))
    reader = Reader(plain)
    assert shape(reader.walk(reader.root, reader.root)) == shape(tree)


def everything() -> Source:
    group = digest(b"group")[:16]
    long: Xattrs = tuple((b"user.%03d" % number, bytes([number]) * 30) for number in range(80))
    tree: Tree = {
        b"a": file(b"a", 5000),
        b"acl": entry(b"acl", FILE, 0, None, xattrs=((b"system.posix_acl_access", b"\2\0\0\0" + b"\1" * 8),)),
        b"block": entry(b"block", BLOCK, 0, 259 << 32 | 70_000),
        b"char": entry(b"char", CHARACTER, 0, 5 << 32 | 1),
        b"empty": entry(b"empty", FILE),
        b"fifo": entry(b"fifo", FIFO),
        b"h1": entry(b"h1", FILE, 5000, digest(b"a"), group=group),
        b"h2": entry(b"h2", FILE, 5000, digest(b"a"), group=group),
        b"link": entry(b"link", SYMLINK, 4095, b"t" * 4095),
        b"many": entry(b"many", FILE, 7, digest(b"m"), xattrs=long, mtime_s=-5, mtime_ns=999_999_999, mode=0o4755),
        b"socket": entry(b"socket", SOCKET),
        b"sparse": entry(b"sparse", FILE, 5 << 20, Runs(digest(b"s"), digest(b"manifest"), 65541)),
        b"sub": {b"xx": entry(b"xx", SYMLINK, 3, b"../")},
    }
    return built(tree, {group: 2})


@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="NOT TESTED: needs fsck.erofs (package erofs-utils)")
def test_fsck_and_dump_agree(tmp_path: Path) -> None:
    source = everything()
    plain, _ = image_of(source)
    (tmp_path / "image").write_bytes(plain)
    with open(tmp_path / "device", "wb") as device:
        device.truncate(source.root.totals.blocks * 4096)
    option = f"--device={tmp_path}/device"
    checked = subprocess.run(["fsck.erofs", option, tmp_path / "image"], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr

    def dump(path: str) -> str:
        command = ["dump.erofs", option, f"--path={path}", tmp_path / "image"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"})
        return told.stdout

    assert "Size: 5000" in dump("/a") and "0644/rw-r--r--" in dump("/a")
    assert "Links: 2" in dump("/h1") and dump("/h1").split("NID:")[1] == dump("/h2").split("NID:")[1]
    assert "symlink file" in dump("/link") and "Size: 4095" in dump("/link")
    assert "fifo" in dump("/fifo") and "socket" in dump("/socket")
    assert "Uid: 1000   Gid: 1000" in dump("/many") and "23:59:55.999999999" in dump("/many")


def test_equal_contents_share_a_range_and_the_rest_follow_the_tree() -> None:
    source = everything()
    plain, _ = image_of(source)
    reader = Reader(plain)
    found = {name: reader.inode(number) for name, number, _ in reader.directory(reader.root)}
    blocks = {name: fields[5] - SLOT_BLOCKS for name, fields in found.items() if fields[4] and name in (b"a", b"many")}
    assert blocks == {b"a": 0, b"many": 6}  # behind both hardlinks, which take their room in the tree's own count
    assert found[b"h1"] == found[b"h2"] and found[b"h1"][5] == found[b"a"][5] and found[b"h1"][11] == 2


def test_contents_that_take_several_devices() -> None:
    huge = 5 << 42  # 20 TiB
    tree: Tree = {
        b"a": entry(b"a", FILE, huge, Runs(None, digest(b"m"), huge)),
        b"b": entry(b"b", FILE, 100, digest(b"b")),
        b"c": entry(b"c", FILE, 100, digest(b"b")),
    }
    source = built(tree)
    slots = device_slots(source.root.totals.blocks)
    assert len(slots) == 3 and max(slots) < 1 << 32
    plain, _ = image_of(source)
    reader = Reader(plain)
    found = {name: number for name, number, _ in reader.directory(reader.root)}
    at = reader.meta * 4096 + found[b"a"] * 32 + 64
    assert [struct.unpack_from("<HHI", plain, at + 8 * place) for place in range(3)] == [(0, n, 0) for n in (1, 2, 3)]
    far = [struct.unpack_from("<HHI", plain, reader.meta * 4096 + found[name] * 32 + 64) for name in (b"b", b"c")]
    assert far[0] == far[1] == (0, 3, (huge >> 12) - 2 * SLOT_BLOCKS)


@pytest.mark.parametrize(
    "impossible",
    [
        entry(b"x", FILE, 0, None, xattrs=((b"strange.name", b""),)),
        entry(b"x", FILE, 0, None, xattrs=digest(b"moved to a chunk")),
        entry(b"x", CHARACTER, 0, 1 << 45),
        entry(b"x", FILE, 1 << 60, Runs(None, digest(b"m"), 1 << 60)),
    ],
)
def test_what_erofs_cannot_hold_is_refused(impossible: Entry) -> None:
    with pytest.raises(ImageImpossible):
        image_of(built({b"x": impossible}))


def test_one_pass_gives_the_same_bytes_however_it_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    tree: Tree = {b"d%d" % d: {b"%04d" % n: file(b"%d %d" % (d, n)) for n in range(700)} for d in range(6)}
    tree = {name: {inner: file(inner, 9) for inner in below} for name, below in tree.items() if isinstance(below, dict)}
    whole, _ = image_of(built(tree))
    monkeypatch.setattr("spraydry.format.erofs._FLUSH_BYTES", 1)
    assert image_of(built(tree))[0] == whole


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(0, (1 << 64) - 2), max_size=3000))
def test_a_table_is_a_dict(expected: dict[bytes, int]) -> None:
    table = Table()
    for key, value in expected.items():
        assert table.get(key) is None
        assert table.setdefault(key, value) == value == table.setdefault(key, 0)
    assert all(table.get(key) == value for key, value in expected.items())


def test_a_table_grows() -> None:
    table = Table()
    for number in range(20_000):
        table.setdefault(digest(b"%d" % number)[:16], number)
    assert all(table.get(digest(b"%d" % number)[:16]) == number for number in range(20_000))
    assert table.get(bytes(16)) is None


@given(st.integers(1, 1 << 45), st.lists(st.integers(0, 1 << 29), max_size=8))
def test_chunks_end_where_holes_end_unless_there_are_too_many(size: int, edges: list[int]) -> None:
    marks = sorted({edge << 16 for edge in edges if edge << 16 < size})
    filled = list(zip(marks[::2], marks[1::2], strict=False))
    bits = chunk_bits(size, filled)
    assert 16 <= bits <= 43
    count = (size - 1 >> bits) + 1
    assert count <= 1 << 14 or bits == 43
    exact = all(edge % (1 << bits) == 0 for pair in filled for edge in pair)
    assert exact or (size - 1 >> bits - 1) + 1 > 1 << 14


def test_device_numbers_are_those_of_linux() -> None:
    for major, minor in ((0, 0), (5, 1), (259, 70_000), (4095, (1 << 20) - 1)):
        number = device_number(major << 32 | minor)
        assert (number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00) == (major, minor)


def test_attributes_that_repeat_are_shared() -> None:
    bodies = XattrBodies()
    first = bodies.of(((b"user.a", b"1"), (b"user.b", b"2")))
    assert len(first) == 12 + 8 and bodies.of(((b"user.b", b"2"),))[12:] == first[16:]
    before = len(bodies.shared)
    large = tuple((b"user.%d" % number, random.randbytes(60_000)) for number in range(4))
    for _ in range(12):
        large = tuple((name, random.randbytes(60_000)) for name, _ in large)
        assert len(bodies.of(large)) % 4 == 0
    assert before < len(bodies.shared) <= 2 << 20
    assert len(bodies.of(large)) > 200_000


def test_an_empty_directory() -> None:
    blocks: Callable[[], DirectoryBlocks] = DirectoryBlocks
    assert len(blocks().finish()) == 2 * 12 + 3
