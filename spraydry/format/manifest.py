"""Manifests: the chunks and holes of a file of more than one chunk, paged when long. Layout: FORMAT.md §5."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES, digest

MANIFEST, INDEX = 3, 4
PAGE_SPANS = 1024  # about 40 KiB a page
MAX_DEPTH = 4


class Span(NamedTuple):
    """`length` bytes at `offset` of a file: a chunk's, or zeros where `chunk` is None."""

    offset: int
    length: int
    chunk: bytes | None


class _Page(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    kind: int  # MANIFEST: chunk digests and holes; INDEX: pages below
    version: int
    length: int  # bytes of file this page stands for
    ends: tuple[int, ...]  # prefix sums of the items' lengths, the last one equal to `length`
    items: tuple[bytes | None, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Page)


def encode_manifest(spans: Iterable[tuple[int, bytes | None]]) -> list[tuple[bytes, bytes]]:
    """The pages of the manifest of (length, chunk digest or None) runs: (name, plain bytes) each, the top page last."""
    pages: list[tuple[bytes, bytes]] = []
    level = list(spans)
    kind = MANIFEST
    while True:
        above: list[tuple[int, bytes | None]] = []
        for at in range(0, len(level), PAGE_SPANS):
            part = level[at : at + PAGE_SPANS]
            ends = tuple(accumulate(length for length, _ in part))
            plain = _encoder.encode(_Page(kind, 1, ends[-1], ends, tuple(name for _, name in part)))
            pages.append((digest(plain), plain))
            above.append((ends[-1], pages[-1][0]))
        if len(above) == 1:
            return pages
        level, kind = above, INDEX


def _decode(plain: bytes, length: int, depth: int) -> _Page:
    try:
        page = _decoder.decode(plain)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"a manifest page does not parse: {error}") from None
    sound = (
        page.kind in (MANIFEST, INDEX)
        and page.version == 1
        and page.length == length
        and 0 < len(page.ends) == len(page.items) <= PAGE_SPANS
        and page.ends[-1] == length
        and all(a < b for a, b in zip((0, *page.ends), page.ends, strict=False))
        and all(item is None or len(item) == DIGEST_BYTES for item in page.items)
        and not (page.kind == INDEX and (None in page.items or depth >= MAX_DEPTH))
        and _encoder.encode(page) == plain
    )
    if not sound:
        raise CorruptData("a manifest page is not possible")
    return page


class Manifest:
    """Reads the manifest of a file of `length` bytes; pages come from `read` (digest -> plain bytes, verified).

    Keeps no page: what `read` does decides about caching and blocking. Raises CorruptData for what cannot be.
    """

    def __init__(self, name: bytes, length: int, read: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.length = length
        self._read = read

    def spans(self, start: int = 0, stop: int | None = None) -> Iterator[Span]:
        """The spans that overlap bytes `start` to `stop` (default: the end), in order, not clipped."""
        stop = self.length if stop is None else min(stop, self.length)
        if start < stop:
            yield from self._below(self.name, 0, self.length, start, stop, 0)

    def _below(self, name: bytes, at: int, length: int, start: int, stop: int, depth: int) -> Iterator[Span]:
        page = _decode(self._read(name), length, depth)
        first = bisect_right(page.ends, start - at)
        for place in range(first, len(page.ends)):
            low = page.ends[place - 1] if place else 0
            if at + low >= stop:
                return
            item, size = page.items[place], page.ends[place] - low
            if page.kind == INDEX and item is not None:
                yield from self._below(item, at + low, size, start, stop, depth + 1)
            else:
                yield Span(at + low, size, item)

    def pages(self) -> Iterator[bytes]:
        """The names of all its pages."""
        yield from self._pages(self.name, self.length, 0)

    def _pages(self, name: bytes, length: int, depth: int) -> Iterator[bytes]:
        yield name
        page = _decode(self._read(name), length, depth)
        if page.kind == INDEX:
            for low, end, item in zip((0, *page.ends), page.ends, page.items, strict=False):
                if item is not None:
                    yield from self._pages(item, end - low, depth + 1)


def merged(runs: Sequence[tuple[int, bytes | None]]) -> list[tuple[int, bytes | None]]:
    """Runs with neighbouring holes joined, as a manifest must have them."""
    out: list[tuple[int, bytes | None]] = []
    for length, name in runs:
        if name is None and out and out[-1][1] is None:
            out[-1] = (out[-1][0] + length, None)
        else:
            out.append((length, name))
    return out
