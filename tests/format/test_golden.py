"""The exact bytes of format 1: what is pinned here must be read, and (but for compressed bytes) written, for ever.

tests/golden/format-1.txt has a name and the bytes in hex on each line.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec
import pytest

from spraydry.format.chunker import parse_spec
from spraydry.format.digest import digest
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    SOCKET,
    SYMLINK,
    Entry,
    Runs,
    Subtree,
    encode_xattrs,
)
from spraydry.format.frame import RAW, ZSTD, Dictionary, decode, encode, header
from spraydry.format.links import Group, Links, encode_links
from spraydry.format.manifest import Manifest, encode_manifest
from spraydry.format.run import FrameInfo, Row, decode_run, encode_run
from spraydry.format.tree import Tree
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page
from spraydry.format.version import (
    AnyRecord,
    CheckpointRecord,
    CondemnRecord,
    DictionariesRecord,
    DropRecord,
    HoardRecord,
    RemovalRecord,
    RevokeRecord,
    TagRecord,
    VersionRecord,
    decode_record,
    encode_record,
)
from spraydry.repository.opening import Config
from tests.format.samples import entry, file

GOLDEN = {
    name: bytes.fromhex(value)
    for name, value in (
        line.split() for line in (Path(__file__).parent.parent / "golden" / "format-1.txt").read_text().splitlines()
    )
}
SALT = bytes(range(16))
A, B = digest(b"a"), digest(b"b")

ENTRIES = [
    entry(b"block", BLOCK, 0, (8 << 32) | 1, mode=0o660, uid=0, gid=6),
    entry(b"char", CHARACTER, 0, (1 << 32) | 3, mode=0o666),
    entry(b"directory", DIRECTORY, 0, Subtree(A, 5, 3, 12345, 7), mode=0o1755),
    entry(b"empty"),
    entry(b"fifo", FIFO),
    entry(b"linked", size=5, content=A, group=bytes(range(16))),
    entry(b"long", size=1 << 40, content=Runs(None, B, 70000)),
    entry(b"not \xff UTF-8", size=5, content=A, mtime_s=-1, mtime_ns=999_999_999),
    entry(b"parts", size=300_000, content=Runs(A, B, 300_000)),
    entry(b"setuid", size=5, content=A, mode=0o4755, uid=0xFFFFFFFE, mtime_s=1 << 40),
    entry(b"socket", SOCKET),
    entry(b"symlink", SYMLINK, 6, b"target", mode=0o777),
    entry(b"with xattrs", size=5, content=A, xattrs=((b"security.capability", b"\0\1"), (b"user.x", b""))),
    entry(b"with xattrs elsewhere", size=5, content=A, xattrs=B),
]
COMMON = {"format": 1, "previous": A, "made_ns": 1_700_000_000_123_456_789, "made_by": "spraydry 0.1.0 ingest"}
RECORDS: dict[str, AnyRecord] = {
    "record-version": VersionRecord(
        **COMMON,
        root="photos",
        name="v1",
        entry=entry(b"", DIRECTORY, 0, Subtree(A, 5, 3, 12345, 7), mode=0o755),
        links=B,
        spec="fastcdc:min=16K,avg=64K,max=256K",
        users=((0, "root"), (1000, "me")),
        groups=((100, "users"),),
        incomplete=True,
        new_bytes=12345,
        stored_bytes=678,
    ),
    "record-removal": RemovalRecord(**COMMON, slot=1),
    "record-tag": TagRecord(**COMMON, root="photos", name="best", slot=1),
    "record-condemn": CondemnRecord(**COMMON, frames=tuple(sorted((A, B)))),
    "record-revoke": RevokeRecord(**COMMON, slot=2),
    "record-dictionaries": DictionariesRecord(**COMMON, adopted=(("json", A), ("python", B))),
    "record-drop": DropRecord(**COMMON, dictionaries=tuple(sorted((A, B)))),
    "record-checkpoint": CheckpointRecord(
        **COMMON, hoard="photos", upto=8, entry=entry(b"", DIRECTORY, 0, Subtree(A, 3, 3, 12345, 7), mode=0o700)
    ),
    "record-hoard": HoardRecord(
        **COMMON,
        hoard="photos",
        cleared=False,
        changes=(("a/b", entry(b"", size=5, content=A)), ("a-b", None), ("\u00e4", entry(b""))),
    ),
    "record-hoard-cleared": HoardRecord(**COMMON, hoard="photos", cleared=True, changes=()),
}
INFOS = (FrameInfo(A, "python", ZSTD, 3, B, 1000, 500), FrameInfo(B, "packed", RAW, -1, None, 2000, 2100))
ROWS = [Row(A, 1, 0, 2000), Row(B, 0, 0, 400), Row(digest(b"c"), 0, 400, 600)]
CHUNKS = [b"spray " * 20, b"dry " * 30]


def tree_pages(wanted: list[Entry]) -> list[bytes]:
    pages: list[bytes] = []
    builder = TreeBuilder(lambda _, plain: pages.append(plain))
    for item in wanted:
        builder.add(item)
    builder.finish()
    return pages


def links_pages(groups: list[Group]) -> list[bytes]:
    pages: list[bytes] = []
    encode_links(groups, lambda _, plain: pages.append(plain))
    return pages


# Wide directories, long manifests and links lists: their top page pins all below it, and so the cutting rule.
WIDE = [file(b"%06d" % number) for number in range(3000)]
LONG = [(65536 + number, digest(b"%d" % number)) for number in range(3000)]
MANY = sorted((Group(digest(b"%d" % n)[:16], 2, b"path/%d" % n) for n in range(3000)), key=lambda found: found.group)

WRITTEN: dict[str, Callable[[], bytes]] = {
    "frame-raw": lambda: encode([b"raw ", b"bytes"], "other", salt=SALT).stored,
    "tree-leaf": lambda: tree_pages(ENTRIES)[-1],
    "tree-empty": lambda: tree_pages([])[-1],
    "tree-index": lambda: tree_pages(WIDE)[-1],
    "xattrs": lambda: encode_xattrs(((b"user.large", b"x" * 5000),)),
    "manifest": lambda: encode_manifest([(65536, A), (131072, None), (100, B)])[-1][1],
    "manifest-index": lambda: encode_manifest(LONG)[-1][1],
    "links": lambda: links_pages([Group(bytes(16), 2, b"a/b"), Group(bytes(range(16)), 300, b"c")])[-1],
    "links-index": lambda: links_pages(MANY)[-1],
    **{name: lambda record=record: encode_record(record) for name, record in RECORDS.items()},
    "run": lambda: encode_run(INFOS, ROWS),
    "config": lambda: sealed(msgspec.msgpack.encode(Config("spraydry", 1, SALT, SALT[::-1], 1))),
}


def sealed(plain: bytes) -> bytes:
    return plain + digest(plain)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_is_written(name: str) -> None:
    assert WRITTEN[name]().hex() == GOLDEN[name].hex()


def test_all_that_is_pinned_is_tested() -> None:
    assert set(GOLDEN) == {*WRITTEN, "frame-zstd", "frame-dictionary", "dictionary"}


def test_frames_are_read() -> None:
    dictionary = Dictionary.of(GOLDEN["dictionary"])
    for name, chunks, codec, needs in (
        ("frame-zstd", CHUNKS, ZSTD, None),
        ("frame-raw", [b"raw ", b"bytes"], RAW, None),
        ("frame-dictionary", CHUNKS, ZSTD, dictionary.digest),
    ):
        head, plain = decode(GOLDEN[name], {dictionary.digest: dictionary}.__getitem__)
        ends = list(accumulate(head.lengths, initial=0))
        assert [plain[low:high] for low, high in pairwise(ends)] == chunks
        assert (head.codec, head.dictionary, head.frame_class, head.level) == (codec, needs, "other", 3)
        assert header(GOLDEN[name]) == head


def test_headers_of_compressed_frames_are_written_the_same() -> None:
    """All but the compressed bytes themselves and their length, which another zstd may make otherwise."""
    made = encode(CHUNKS, "other", salt=SALT).stored
    at = header(GOLDEN["frame-zstd"]).encoded_at
    assert made[:8] + made[12:at] == GOLDEN["frame-zstd"][:8] + GOLDEN["frame-zstd"][12:at]


def test_pages_are_read() -> None:
    assert list(Page(GOLDEN["tree-leaf"]).items) == ENTRIES
    assert Page(GOLDEN["tree-empty"]).items == ()
    pages = {digest(plain): plain for plain in tree_pages(WIDE)}
    top = digest(GOLDEN["tree-index"])
    tree = Tree(Subtree(top, *Page(pages[top]).totals), lambda name: Page(pages[name]))
    assert [item for item, _ in tree.entries()] == WIDE
    spans = Manifest(A, 196_708, lambda _: GOLDEN["manifest"]).spans()
    assert [(span.length, span.chunk) for span in spans] == [(65536, A), (131072, None), (100, B)]
    assert Links(A, lambda _: GOLDEN["links"]).find(bytes(range(16))) == Group(bytes(range(16)), 300, b"c")


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_read(name: str) -> None:
    assert decode_record(GOLDEN[name], 9)[0] == RECORDS[name]


def test_runs_are_read() -> None:
    infos, rows = decode_run(GOLDEN["run"])
    assert infos == INFOS and list(rows) == sorted(ROWS)


def test_specs_are_read() -> None:
    assert parse_spec("fastcdc:min=16K,avg=64K,max=256K").max_bytes == 262144
