"""Manifests: agreement with a plain list of spans, stable pages, and damage."""

from __future__ import annotations

import random
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spraydry.errors import CorruptData
from spraydry.format.digest import digest
from spraydry.format.manifest import INDEX, MANIFEST, PAGE_SPANS, Manifest, Span, encode_manifest
from tests.format.samples import mutations

Runs = list[tuple[int, bytes | None]]
packed = msgspec.msgpack.encode
D = bytes(32)


def runs(count: int, seed: int = 1) -> Runs:
    rng = random.Random(seed)
    return [(rng.randrange(1, 100_000), rng.randbytes(32)) for _ in range(count)]


def read(made: Runs) -> Manifest:
    pages = encode_manifest(made)
    assert all(digest(plain) == name for name, plain in pages)
    return Manifest(pages[-1][0], sum(length for length, _ in made), dict(pages).__getitem__)


def spans(made: Runs) -> list[Span]:
    starts = accumulate((length for length, _ in made), initial=0)
    return [Span(at, length, name) for at, (length, name) in zip(starts, made, strict=False)]


def merged(made: list[tuple[int, bytes | None]]) -> list[tuple[int, bytes | None]]:
    """Runs with neighbouring holes joined, as a manifest has them."""
    out: list[tuple[int, bytes | None]] = []
    for length, name in made:
        if name is None and out and out[-1][1] is None:
            out[-1] = (out[-1][0] + length, None)
        else:
            out.append((length, name))
    return out


any_runs = st.lists(
    st.tuples(st.integers(1, 4 << 20), st.none() | st.binary(min_size=32, max_size=32)), min_size=1, max_size=50
).map(merged)


@given(any_runs, st.integers(0, 1 << 24), st.integers(0, 1 << 24))
def test_agrees_with_a_list(made: Runs, start: int, length: int) -> None:
    manifest = read(made)
    assert list(manifest.spans()) == spans(made)
    stop = start + length
    wanted = [span for span in spans(made) if span.offset < stop and span.offset + span.length > start and start < stop]
    assert list(manifest.spans(start, stop)) == wanted


@pytest.mark.parametrize("count", [1, 511, 512, 1024, 1025, 5000, 300_000])
def test_paged(count: int) -> None:
    made = runs(count)
    manifest = read(made)
    expected = spans(made)
    assert list(manifest.spans()) == expected
    assert next(manifest.pages()) == manifest.name
    assert set(manifest.pages()) == {name for name, _ in encode_manifest(made)}
    for place in random.Random(count).sample(range(count), min(count, 50)):
        span = expected[place]
        assert list(manifest.spans(span.offset, span.offset + 1)) == [span]
        assert list(manifest.spans(span.offset + span.length - 1, span.offset + span.length)) == [span]
    assert all(len(plain) < 64 << 10 for _, plain in encode_manifest(made))


def test_bytes_put_into_a_long_file_change_few_pages() -> None:
    made = runs(100_000)
    before = {name for name, _ in encode_manifest(made)}
    for place in (10, 50_000, 99_000):
        after = encode_manifest([*made[:place], *runs(1, seed=9), *made[place:]])
        assert len({name for name, _ in after} - before) <= 5


def test_a_long_hole_is_one_span() -> None:
    made: Runs = [(5, D), *([(64 << 10, None)] * 5000), (7, D)]
    pages = encode_manifest(made)
    assert len(pages) == 1
    length = 12 + 5000 * (64 << 10)
    assert [span.length for span in Manifest(pages[0][0], length, dict(pages).__getitem__).spans()] == [
        5,
        length - 12,
        7,
    ]
    whole = encode_manifest([((1 << 63) - 1, None)])
    assert len(list(Manifest(whole[0][0], (1 << 63) - 1, dict(whole).__getitem__).spans(1 << 62))) == 1


def test_no_bytes_no_manifest() -> None:
    with pytest.raises(ValueError, match="no manifest"):
        encode_manifest([])


def page(kind: object, ends: object, items: object, length: object = None, version: int = 1) -> bytes:
    return packed([kind, version, ends[-1] if length is None else length, ends, items])  # type: ignore[index]


IMPOSSIBLE = {
    "kind 1": page(1, [5], [D]),
    "version 2": page(MANIFEST, [5], [D], version=2),
    "other length": page(MANIFEST, [6], [D]),
    "length not the last end": page(MANIFEST, [6], [D], 5),
    "nothing": page(MANIFEST, [], [], 5),
    "fewer items": page(MANIFEST, [2, 5], [D]),
    "empty chunk": page(MANIFEST, [0, 5], [D, D]),
    "overlapping": page(MANIFEST, [4, 3, 5], [D, D, D]),
    "negative": page(MANIFEST, [-1, 5], [D, D]),
    "beyond 2^63": page(MANIFEST, [(1 << 64) - 1, 5], [D, D]),
    "short digest": page(MANIFEST, [5], [b"x"]),
    "hole below an index": page(INDEX, [5], [None]),
    "holes side by side": page(MANIFEST, [2, 4, 5], [None, None, D]),
    "trailing": page(MANIFEST, [5], [D]) + b"\0",
    "more fields": packed([MANIFEST, 1, 5, [5], [D], 0]),
    "padded": page(MANIFEST, [5], [D]).replace(b"\x95\x03", b"\x95\xcc\x03"),
    "a billion claimed": b"\x95\x03\x01\x05\xdd\x3b\x9a\xca\x00",
    "empty": b"",
}


@pytest.mark.parametrize("plain", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_pages_that_cannot_be(plain: bytes) -> None:
    manifest = Manifest(digest(plain), 5, lambda _: plain)
    for ask in (lambda: list(manifest.spans()), lambda: list(manifest.pages())):
        with pytest.raises(CorruptData):
            ask()


def test_larger_than_may_be() -> None:
    count = PAGE_SPANS + 1
    with pytest.raises(CorruptData):
        list(Manifest(D, count, lambda _: page(MANIFEST, list(range(1, count + 1)), [D] * count)).spans())
    with pytest.raises(CorruptData):  # a chunk no frame could hold
        list(Manifest(D, 5 << 20, lambda _: page(MANIFEST, [5 << 20], [D])).spans())
    with pytest.raises(CorruptData):  # which names itself, were that possible
        list(Manifest(D, 5, lambda _: page(INDEX, [5], [D])).spans())


def test_a_page_is_as_long_as_its_parent_claims() -> None:
    below = page(MANIFEST, [5], [D])
    top = page(INDEX, [6], [digest(below)])
    pages = {digest(below): below, digest(top): top}
    for ask in (Manifest(digest(top), 6, pages.__getitem__).spans, Manifest(digest(top), 6, pages.__getitem__).pages):
        with pytest.raises(CorruptData):
            list(ask())


def test_mutations_raise_nothing_else() -> None:
    for plain in (encode_manifest([(5, D), (65536, None), (9, D)])[0][1], page(INDEX, [5, 9], [D, D])):
        for damaged in mutations(plain, 3, 3000):
            try:
                list(Manifest(D, 65550, lambda _, found=damaged: found).spans())
            except CorruptData:
                pass
