"""Both ends of the wire: what one encodes the other decodes, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry import errors
from spraydry.errors import CorruptData, FormatTooNew, StoreUnavailable
from spraydry.stores.remote import wire
from spraydry.stores.remote.wire import Failure, Greeting, Item, Items, Kind, Listing, Names

MOST = 300
names = st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,199}", fullmatch=True)
values = st.binary(max_size=MOST)
items = st.lists(
    st.builds(lambda name, value: Item(Kind.VALUE, name, value), names, values)
    | st.builds(lambda name: Item(Kind.ABSENT, name, b""), names),
    max_size=8,
)


def encoded(sent: list[Item]) -> bytes:
    parts = [
        wire.value_item(one.name, one.value) if one.kind == Kind.VALUE else wire.absent_item(one.name) for one in sent
    ]
    return b"".join(parts)


def taken(stream: bytes, cuts: list[int]) -> tuple[list[Item], bool]:
    reader, found = Items(MOST), []
    for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[low:high])
    return found, reader.ended


@given(items, st.data())
def test_a_stream_comes_apart_as_it_was_made(sent: list[Item], data: st.DataObject) -> None:
    stream = encoded(sent) + wire.END_ITEM
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    assert taken(stream, cuts) == (sent, True)
    assert len(stream) == sum(wire.item_bytes(one.name, len(one.value)) for one in sent) + len(wire.END_ITEM)


@given(items, st.data())
def test_a_stream_that_is_cut_off_does_not_end(sent: list[Item], data: st.DataObject) -> None:
    stream = encoded(sent) + wire.END_ITEM
    found, ended = taken(stream[: data.draw(st.integers(0, len(stream) - 1))], [])
    assert not ended and found == sent[: len(found)]


@given(st.binary(max_size=300))
def test_anything_else_is_refused(stream: bytes) -> None:
    try:
        found, _ = taken(stream, [])
    except CorruptData:
        return
    assert all(len(one.value) <= MOST or one.kind == Kind.FAILED for one in found)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x04\x00" + bytes(8),  # no such kind
        b"\x01\x00" + bytes(8),  # a value without a name
        b"\x00\x01" + bytes(8) + b"a",  # an end with one
        b"\x02\x01\x01" + bytes(7) + b"ab",  # nothing, of one byte
        b"\x01\x01" + (MOST + 1).to_bytes(8, "little"),
        b"\x01\x01" + b"\xff" * 8,
        b"\x01\x02" + bytes(8) + b"..",
        b"\x01\x02" + bytes(8) + "ü".encode(),
        b"\x01\x01" + bytes(8) + b"/",
        wire.END_ITEM + b"x",
    ],
)
def test_items_that_cannot_be(stream: bytes) -> None:
    with pytest.raises(CorruptData):
        Items(MOST).feed(stream)


def test_nothing_comes_behind_the_end() -> None:
    reader = Items(MOST)
    assert reader.feed(wire.END_ITEM) == [] and reader.ended and reader.feed(b"") == []
    with pytest.raises(CorruptData):
        reader.feed(b"x")


def test_a_stream_may_end_in_failure() -> None:
    reader = Items(0)
    (failed,) = reader.feed(wire.failed_item(Failure(error="it is far away", kind="StoreUnavailable")))
    assert reader.ended and failed.kind == Kind.FAILED
    told = wire.error_of(200, failed.value, "http://a")
    assert type(told) is StoreUnavailable and str(told) == "http://a: it is far away"


def test_greetings() -> None:
    mine = Greeting(
        spraydry=1, repository="0f" * 16, read_only=False, concurrency=8, batch_bytes=1 << 24, body_bytes=1 << 26
    )
    assert wire.greeting_of(wire.encode(mine)) == mine
    for other in (b"", b"<html>", b"{}", b"[1]", b'{"spraydry": 1}', wire.encode(mine)[:-1], b"[" * 100_000):
        assert wire.greeting_of(other) is None
    for wrong in ({"repository": "x"}, {"spraydry": 0}, {"concurrency": 0}, {"batch_bytes": -1}):
        assert wire.greeting_of(wire.encode(wire.msgspec.structs.replace(mine, **wrong))) is None
    with pytest.raises(FormatTooNew):
        wire.greeting_of(wire.encode(wire.msgspec.structs.replace(mine, spraydry=2)))
    # what a later server says beyond that is passed over
    assert wire.greeting_of(wire.encode(mine)[:-1] + b', "more": [1]}') == mine


def test_messages() -> None:
    page = Listing(values=(("a", 1), ("b", 0)), more=True)
    assert wire.decode(wire.encode(page), Listing) == page
    for body in (b"", b"{", b'{"namespace": "frames"}', b'{"namespace": "log", "names": [1]}', b"\xff", b"[" * 100_000):
        with pytest.raises(CorruptData):
            wire.decode(body, Names)
    with pytest.raises(CorruptData):
        wire.decode(b'{"namespace": "log", "names": [], "url": "s3://x"}', Names)


def test_paths() -> None:
    assert wire.value_path("frames", "ab.c-1") == "/v1/values/frames/ab.c-1"
    assert wire.value_path("..", "a/b?c") == "/v1/values/../a%2Fb%3Fc"
    assert wire.listing_path("log") == "/v1/values/log?after=&limit=1000"
    assert wire.listing_path("log", "a&b", 5, True) == "/v1/values/log?after=a%26b&limit=5&deleted=true"
    assert wire.batch_path("has") == "/v1/batch/has"


def test_errors_come_back_as_what_they_were() -> None:
    for kind in (errors.ValueNotFound, errors.StoreFull, errors.VersionExists, errors.CollectedMeanwhile):
        assert type(wire.error_of(400, wire.encode(Failure(error="x", kind=kind.__name__)), "h")) is kind
    for status, kind in ((503, StoreUnavailable), (507, errors.StoreFull), (403, errors.StoreReadOnly)):
        for body in (b"", b"<html>", wire.encode(Failure(error="x", kind="os")), wire.encode(Failure(error="x"))):
            assert type(wire.error_of(status, body, "h")) is kind
    for odd in ("ExpressionError", "SprayDryError", "annotations", "_errno", "__class__", "a.b", "é" * 9):
        assert type(wire.error_of(418, wire.encode(Failure(error="x", kind=odd)), "h")) is errors.StoreError
