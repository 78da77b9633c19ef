"""Cutting: sums, determinism, windows, pinned cut points, spec strings, holes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import UsageError
from spraydry.format.chunker import (
    DEFAULT_SPEC,
    HOLE_BLOCK_BYTES,
    MAX_CHUNK_BYTES,
    parse_bytes,
    parse_spec,
    zero_blocks,
)
from spraydry.format.digest import digest

SMALL = "fastcdc:min=256,avg=1K,max=4K"
PLAIN = random.Random(7).randbytes(1 << 20)
GOLDEN = {
    "fastcdc:min=16K,avg=48K,max=256K": [
        91119,
        87256,
        53757,
        50187,
        95379,
        104304,
        62180,
        66337,
        86888,
        73116,
        77695,
        58785,
        20791,
        91248,
        29534,
    ],
    "fastcdc:min=16K,avg=64K,max=256K": [
        91119,
        87256,
        67902,
        71710,
        70301,
        93714,
        84280,
        66932,
        77384,
        74688,
        62932,
        68809,
        102015,
        29534,
    ],
}
GOLDEN_SMALL = [1318, 1134, 343, 1129, 1155, 1443, 1255, 1602, 1289, 1053, 270, 1689]
GOLDEN_SMALL_DIGEST = "19304091b05659d0"


def mixed(seed: int, size: int) -> bytes:
    """Bytes with runs, repetitions and noise, where cutting is not uniform."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        out += rng.choice((rng.randbytes(rng.randrange(1, 5000)), bytes(rng.randrange(1, 9000)), b"line\n" * 500))
    return bytes(out[:size])


@pytest.mark.parametrize("spec", [DEFAULT_SPEC, SMALL, "fixed:size=64K", "fixed:size=1000000"])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1023, 16 << 10, (64 << 10) + 1, 300_000])
def test_lengths_add_up_and_keep_to_the_bounds(spec: str, size: int) -> None:
    chunker = parse_spec(spec)
    lengths = chunker.cut(mixed(size, size))
    assert sum(lengths) == size
    assert all(0 < length <= chunker.max_bytes for length in lengths)
    assert all(length >= chunker.min_bytes for length in lengths[:-1])


def test_cut_points_are_pinned() -> None:
    """Other cut points would store everything anew: what cuts must not change under a spec string."""
    assert digest(PLAIN).hex().startswith("9b2f48d8e2")
    assert DEFAULT_SPEC in GOLDEN
    for spec, lengths in GOLDEN.items():
        assert parse_spec(spec).cut(PLAIN) == lengths
    small = parse_spec(SMALL).cut(PLAIN)
    assert small[:12] == GOLDEN_SMALL
    assert digest(repr(small).encode()).hex()[:16] == GOLDEN_SMALL_DIGEST
    assert parse_spec(SMALL).cut(bytes(10_000)) == [4096, 4096, 1808]


@given(st.integers(0, 1000), st.integers(4096, 60_000), st.sampled_from((SMALL, "fixed:size=2K", "fixed:size=5000")))
def test_windows_give_what_the_whole_gives(seed: int, window: int, spec: str) -> None:
    chunker = parse_spec(spec)
    plain = mixed(seed, 150_000)
    lengths: list[int] = []
    held = b""
    at = 0
    while at < len(plain):
        held += plain[at : at + window]
        at += window
        cut = chunker.cut(held, last=at >= len(plain))
        lengths += cut
        held = held[sum(cut) :]
    assert lengths == chunker.cut(plain)


def test_insertion_changes_few_chunks() -> None:
    chunker = parse_spec(SMALL)
    before, after = chunker.cut(PLAIN), chunker.cut(PLAIN[:500_000] + b"inserted" + PLAIN[500_000:])

    def pieces(plain: bytes, lengths: list[int]) -> set[bytes]:
        out, at = set(), 0
        for length in lengths:
            out.add(plain[at : at + length])
            at += length
        return out

    new = pieces(PLAIN[:500_000] + b"inserted" + PLAIN[500_000:], after) - pieces(PLAIN, before)
    assert len(new) <= 3


def test_any_buffer_and_any_thread_cut_alike() -> None:
    chunker = parse_spec(SMALL)
    plain = mixed(3, 500_000)
    expected = chunker.cut(plain)
    assert chunker.cut(bytearray(plain)) == chunker.cut(memoryview(plain)) == expected
    with ThreadPoolExecutor(8) as pool:
        assert all(lengths == expected for lengths in pool.map(lambda _: chunker.cut(plain), range(64)))


def test_a_buffer_can_be_resized_after_cutting() -> None:
    held = bytearray(mixed(4, 100_000))
    parse_spec(SMALL).cut(held)
    held += b"more"  # BufferError if a view were still there


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "fastcdc",
        "fastcdc:",
        "zpaq:size=1K",
        "fixed:size=",
        "fixed:size=1023",
        "fixed:size=5M",
        "fixed:size=64K,size=32K",
        "fixed:size=64K,",
        "fixed:avg=64K",
        "fastcdc:min=16K,avg=64K",
        "fastcdc:min=16K,avg=64K,max=8M",
        "fastcdc:min=64K,avg=16K,max=256K",
        "fastcdc:min=16K,avg=512K,max=256K",
        "fastcdc:min=1,avg=64K,max=256K",
        "fastcdc:min=16K,avg=64K,max=256K,max=1M",
        "fastcdc:min=16K,avg=64K,max=12Q",
    ],
)
def test_what_is_no_chunker_is_refused(spec: str) -> None:
    with pytest.raises(UsageError):
        parse_spec(spec)


@pytest.mark.parametrize(
    "spec", [f"fixed:size={MAX_CHUNK_BYTES}", "fastcdc:min=1M,avg=2M,max=4M", "fastcdc:max=4K,avg=1K,min=64"]
)
def test_the_largest_and_oddest_chunkers_work(spec: str) -> None:
    assert sum(parse_spec(spec).cut(bytes(9 << 20))) == 9 << 20


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        (" 1.5M ", 3 << 19),
        ("2GiB", 2 << 30),
        ("2GB", 2 << 30),
        ("3Ki", None),
        ("1T", 1 << 40),
        ("9007199254740993", 9007199254740993),
        ("7.999999999T", int(7.999999999 * (1 << 40))),
        ("9223372036854775807", (1 << 63) - 1),
        ("9223372036854775808", None),
        ("8388608T", None),
        ("12Q", None),
        ("", None),
        ("K", None),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("1_000", None),
        ("0x10", None),
        ("nan", None),
        ("inf", None),
        (".5M", None),
        ("٣", None),
        ("1" * 5000, None),
    ],
)
def test_sizes(text: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(UsageError, match="not a size"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == value


@given(st.lists(st.sampled_from("zno"), max_size=6), st.integers(0, HOLE_BLOCK_BYTES - 1))
def test_zero_blocks(blocks: list[str], tail: int) -> None:
    parts = {"z": bytes(HOLE_BLOCK_BYTES), "n": b"x" * HOLE_BLOCK_BYTES, "o": bytes(HOLE_BLOCK_BYTES - 1) + b"\1"}
    plain = b"".join(parts[block] for block in blocks) + bytes(tail)
    expected = [block == "z" for block in blocks] + ([True] if tail else [])
    assert zero_blocks(plain) == zero_blocks(bytearray(plain)) == zero_blocks(memoryview(plain)) == expected
    if tail:
        assert zero_blocks(plain[:-1] + b"\1")[-1] is False
