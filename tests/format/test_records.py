"""Log records and index runs: round trips, what cannot be, damage, and what is newer."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData, FormatTooNew, SprayDryError, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, Subtree
from spraydry.format.run import FrameInfo, Row, decode_run, encode_run
from spraydry.format.version import (
    NO_RECORD,
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
    check_new_name,
    decode_record,
    encode_record,
)
from tests.format.samples import digests, entries, entry, mutations

D, E = bytes(32), bytes(range(32))
COMMON = {"format": 1, "previous": NO_RECORD, "made_ns": 1_700_000_000_000_000_000, "made_by": "spraydry 0 test"}
VERSION = {
    "root": "photos",
    "name": "v1",
    "entry": entry(b"", DIRECTORY, 0, Subtree(D, 0, 0, 0, 0)),
    "links": None,
    "spec": "fixed:size=64K",
    "users": ((0, "root"), (1000, "me")),
    "groups": (),
    "incomplete": False,
    "new_bytes": 5,
    "stored_bytes": 4,
}
FILED = entry(b"")
HOARD = {"hoard": "h", "cleared": False}
RECORDS: list[AnyRecord] = [
    VersionRecord(**COMMON, **VERSION),
    VersionRecord(**COMMON, **(VERSION | {"links": E, "incomplete": True})),
    RemovalRecord(**COMMON, slot=3),
    TagRecord(**COMMON, root="photos", name="best", slot=1),
    CondemnRecord(**COMMON, frames=(D, E)),
    CondemnRecord(**COMMON, frames=()),
    RevokeRecord(**COMMON, slot=2),
    DictionariesRecord(**COMMON, adopted=(("json", D), ("python", E))),
    DropRecord(**COMMON, dictionaries=(D, E)),
    CheckpointRecord(**COMMON, hoard="h", upto=6, entry=entry(b"", DIRECTORY, 0, Subtree(D, 2, 2, 9, 2))),
    HoardRecord(
        **COMMON,
        hoard="h",
        cleared=False,
        changes=(("a/b", entry(b"", size=5, content=D)), ("a-b", None), ("ä", FILED)),
    ),
    HoardRecord(**COMMON, hoard="h", cleared=True, changes=()),
]


def sealed(fields: object) -> bytes:
    plain = fields if isinstance(fields, bytes) else msgspec.msgpack.encode(fields)
    return plain + digest(plain)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_round_trip(record: AnyRecord) -> None:
    value = encode_record(record)
    assert decode_record(value, 7) == (record, digest(value[:-32]))


@given(entries(), st.none() | digests)
def test_versions_round_trip(item: object, links: bytes | None) -> None:
    record = VersionRecord(**COMMON, **(VERSION | {"entry": item, "links": links}))
    assert decode_record(encode_record(record), 1)[0] == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_flip_and_cut_is_detected(record: AnyRecord) -> None:
    value = encode_record(record)
    for at in range(len(value)):
        for changed in (value[:at], value[:at] + bytes([value[at] ^ 0x10]) + value[at + 1 :]):
            with pytest.raises(CorruptData):
                decode_record(changed, 7)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_mutations_raise_nothing_else(record: AnyRecord) -> None:
    plain = encode_record(record)[:-32]
    for damaged in mutations(plain, 6, 2000):
        try:
            decode_record(sealed(damaged), 7)
        except (CorruptData, FormatTooNew):
            pass


IMPOSSIBLE: dict[str, object] = {
    "version with a bad entry": VersionRecord(**COMMON, **(VERSION | {"entry": entry(b"..")})),
    "version with a bad name": VersionRecord(**COMMON, **(VERSION | {"name": "a/b"})),
    "version called latest": VersionRecord(**COMMON, **(VERSION | {"name": "latest"})),
    "root with a bad name": VersionRecord(**COMMON, **(VERSION | {"root": "\x1b[2J"})),
    "root with a newline": VersionRecord(**COMMON, **(VERSION | {"root": "photos\n"})),
    "links not a digest": VersionRecord(**COMMON, **(VERSION | {"links": b"x"})),
    "users unsorted": VersionRecord(**COMMON, **(VERSION | {"users": ((5, "a"), (0, "b"))})),
    "bytes negative": VersionRecord(**COMMON, **(VERSION | {"new_bytes": -1})),
    "short previous": RemovalRecord(**(COMMON | {"previous": b"x"}), slot=1),
    "removal of itself": RemovalRecord(**COMMON, slot=7),
    "removal of what comes": RemovalRecord(**COMMON, slot=(1 << 64) - 1),
    "removal of nothing": RemovalRecord(**COMMON, slot=0),
    "tag of what comes": TagRecord(**COMMON, root="a", name="b", slot=8),
    "revoke of what comes": RevokeRecord(**COMMON, slot=9),
    "condemned unsorted": CondemnRecord(**COMMON, frames=(E, D)),
    "condemned twice": CondemnRecord(**COMMON, frames=(D, D)),
    "condemned, short": CondemnRecord(**COMMON, frames=(b"x",)),
    "dropped unsorted": DropRecord(**COMMON, dictionaries=(E, D)),
    "dropped, short": DropRecord(**COMMON, dictionaries=(b"x",)),
    "class with blanks": DictionariesRecord(**COMMON, adopted=(("a b", D),)),
    "class twice": DictionariesRecord(**COMMON, adopted=(("a", D), ("a", E))),
    "dictionary, short": DictionariesRecord(**COMMON, adopted=(("a", b"x"),)),
    "checkpoint of what comes": CheckpointRecord(
        **COMMON, hoard="h", upto=7, entry=entry(b"", DIRECTORY, 0, Subtree(D, 0, 0, 0, 0))
    ),
    "checkpoint that is a file": CheckpointRecord(**COMMON, hoard="h", upto=1, entry=FILED),
    "checkpoint with a name": CheckpointRecord(
        **COMMON, hoard="h", upto=1, entry=entry(b"x", DIRECTORY, 0, Subtree(D, 0, 0, 0, 0))
    ),
    "hoard with a bad name": HoardRecord(**COMMON, hoard="a/b", cleared=False, changes=(("a", None),)),
    "no changes": HoardRecord(**COMMON, **HOARD, changes=()),
    "keys unsorted": HoardRecord(**COMMON, **HOARD, changes=(("a-b", None), ("a/b", None))),
    "a key twice": HoardRecord(**COMMON, **HOARD, changes=(("a", None), ("a", FILED))),
    "a key that climbs": HoardRecord(**COMMON, **HOARD, changes=(("a/../b", None),)),
    "a key with a line feed": HoardRecord(**COMMON, **HOARD, changes=(("a\n", None),)),
    "a key that names a folder": HoardRecord(
        **COMMON, **HOARD, changes=(("a", entry(b"", DIRECTORY, 0, Subtree(D, 0, 0, 0, 0))),)
    ),
    "a key whose file has a name": HoardRecord(**COMMON, **HOARD, changes=(("a", entry(b"a")),)),
    "a key whose file is linked": HoardRecord(**COMMON, **HOARD, changes=(("a", entry(b"", group=bytes(16))),)),
    "a key whose file cannot be": HoardRecord(**COMMON, **HOARD, changes=(("a", entry(b"", size=5)),)),
    "nothing": b"",
    "a number": 5,
    "a map": {"a": 1},
    "text": "ab",
    "an empty array": [],
    "arrays without end": b"\x91" * 100_000,
    "a billion claimed": b"\xdd\x3b\x9a\xca\x00",
    "trailing": msgspec.msgpack.encode(RECORDS[2]) + b"\0",
    "one field more": [*msgspec.msgpack.decode(msgspec.msgpack.encode(RECORDS[2])), 5],
    "text that is not UTF-8": msgspec.msgpack.encode(RECORDS[3]).replace(b"photos", b"pho\xffos"),
}


@pytest.mark.parametrize("fields", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_records_that_cannot_be(fields: object) -> None:
    with pytest.raises(CorruptData):
        decode_record(sealed(fields), 7)


@pytest.mark.parametrize("value", [b"", b"x", bytes(31), bytes(32), bytes(33)])
def test_values_too_short(value: bytes) -> None:
    with pytest.raises(CorruptData):
        decode_record(value, 1)


@pytest.mark.parametrize("fields", [[0, 1, D, 0, ""], [11, 1, D], [99, 7], [1, 2, D, 0, "", 1, 2, 3]])
def test_what_is_newer_says_so(fields: object) -> None:
    with pytest.raises(FormatTooNew):
        decode_record(sealed(fields), 1)


@pytest.mark.parametrize("name", ["photos", "a", "v1", "A.b_c-d", "_x", "0", "n" * 200])
def test_names(name: str) -> None:
    check_new_name(name, "root")


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a@b", "a:b", "latest", "ü", "n" * 201, "a\n", "a\0"])
def test_names_that_do_not_fit(name: str) -> None:
    with pytest.raises(UsageError):
        check_new_name(name, "root")


# -- runs

INFOS = (
    FrameInfo(D, "python", 1, 3, None, 1000, 500),
    FrameInfo(E, "json", 0, -7, D, 4 << 20, (4 << 20) + 100),
)
ROWS = [Row(digest(b"%d" % number), number % 2, number, 900) for number in range(50)]


def test_runs_round_trip_sorted() -> None:
    rows = list(ROWS)
    random.Random(1).shuffle(rows)
    value = encode_run(INFOS, rows)
    assert value == encode_run(INFOS, ROWS)
    infos, found = decode_run(value)
    assert infos == INFOS and list(found) == sorted(ROWS)
    assert [list(part) for part in (decode_run(encode_run([], []))[1],)] == [[]]


def read_run(value: bytes) -> list[Row]:
    return list(decode_run(value)[1])


@pytest.mark.parametrize(
    "changed",
    [
        {"name": b"x"},
        {"frame_class": "a b"},
        {"codec": 2},
        {"codec": -1},
        {"level": 23},
        {"level": (1 << 64) - 1},
        {"dictionary": b"x"},
        {"plain": 0},
        {"plain": (4 << 20) + 1},
        {"stored": -1},
        {"stored": (1 << 64) - 1},
    ],
    ids=str,
)
def test_runs_with_frames_that_cannot_be(changed: dict[str, object]) -> None:
    with pytest.raises(CorruptData):
        read_run(encode_run([msgspec.structs.replace(INFOS[0], **changed)], []))


@pytest.mark.parametrize(
    "row", [Row(D, 2, 0, 1), Row(D, 0, 101, 900), Row(D, 0, 0, 0), Row(D, 0, (1 << 32) - 1, 1)], ids=str
)
def test_runs_with_rows_that_cannot_be(row: Row) -> None:
    with pytest.raises(CorruptData):
        read_run(encode_run(INFOS, [row]))


def test_runs_are_sorted_and_exact() -> None:
    value = encode_run(INFOS, sorted(ROWS)[:2])
    assert read_run(value)
    swapped = value[:-88] + value[-44:] + value[-88:-44]
    for changed in (swapped, value + b"\0", value + bytes(44), value[:5] + b"\1" + value[6:]):
        with pytest.raises(CorruptData):
            read_run(changed)
    for length in range(len(value)):
        with pytest.raises(CorruptData):
            read_run(value[:length])
    with pytest.raises(CorruptData):
        read_run(struct.pack("<4sB3sIII", b"SDrn", 1, bytes(3), (1 << 32) - 1, 1 << 31, 1 << 31))


def test_mutated_runs_raise_nothing_else() -> None:
    value = encode_run(INFOS, ROWS[:5])
    for damaged in mutations(value, 8, 4000):
        try:
            read_run(damaged)
        except SprayDryError as error:
            assert isinstance(error, CorruptData)
