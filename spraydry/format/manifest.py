"""Manifests: the chunks and holes of a file of more than one chunk, paged when long. Layout: FORMAT.md §5."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.chunker import MAX_CHUNK_BYTES
from spraydry.format.digest import DIGEST_BYTES, digest

MANIFEST, INDEX = 3, 4
# A page ends behind the first item whose digest says so once it has MIN items, or at MAX: so bytes put into a long file
# change one page, not all that follow. 1,024 items are about 40 KiB.
MIN_PAGE_SPANS = 512
PAGE_SPANS = 1024
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


class ManifestBuilder:
    """Makes the pages of one manifest from its spans, added in order, holding no more than a page a level.

    `emit(digest, plain)` gets every page, those below before those above. Neighbouring holes are joined. Not
    thread-safe.
    """

    def __init__(self, emit: Callable[[bytes, bytes], None], _kind: int = MANIFEST) -> None:
        self._emit = emit
        self._kind = _kind
        self._lengths: list[int] = []
        self._items: list[bytes | None] = []
        self._above: ManifestBuilder | None = None

    def add(self, length: int, chunk: bytes | None) -> None:
        """The next `length` bytes of the file: a chunk, or a hole where `chunk` is None."""
        if chunk is None and self._items and self._items[-1] is None:
            self._lengths[-1] += length
            return
        if len(self._items) == PAGE_SPANS or (len(self._items) >= MIN_PAGE_SPANS and _ends_page(self._items[-1])):
            self._flush()
        self._lengths.append(length)
        self._items.append(chunk)

    def finish(self) -> bytes:
        """Write what is left; the name of the top page. Raises ValueError when nothing was added."""
        if self._above is None:
            return self._page()[1]
        self._flush()
        return self._above.finish()

    def _flush(self) -> None:
        if self._above is None:
            self._above = ManifestBuilder(self._emit, INDEX)
        self._above.add(*self._page())
        self._lengths.clear()
        self._items.clear()

    def _page(self) -> tuple[int, bytes]:
        if not self._items:
            raise ValueError("a file without bytes has no manifest")
        ends = tuple(accumulate(self._lengths))
        plain = _encoder.encode(_Page(self._kind, 1, ends[-1], ends, tuple(self._items)))
        name = digest(plain)
        self._emit(name, plain)
        return ends[-1], name


def _ends_page(item: bytes | None) -> bool:
    return item is not None and item[0] & 63 == 0


def encode_manifest(spans: Iterable[tuple[int, bytes | None]]) -> list[tuple[bytes, bytes]]:
    """The pages of the manifest of (length, chunk digest or None) runs: (name, plain bytes) each, the top page last."""
    pages: list[tuple[bytes, bytes]] = []
    builder = ManifestBuilder(lambda name, plain: pages.append((name, plain)))
    for length, chunk in spans:
        builder.add(length, chunk)
    builder.finish()
    return pages


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
        and _items_sound(page, depth)
        and _encoder.encode(page) == plain
    )
    if not sound:
        raise CorruptData("a manifest page is not possible")
    return page


def _items_sound(page: _Page, depth: int) -> bool:
    if page.kind == INDEX:
        return depth < MAX_DEPTH and None not in page.items
    lengths = (end - low for low, end in zip((0, *page.ends), page.ends, strict=False))
    return all(
        length <= MAX_CHUNK_BYTES if item is not None else before is not None
        for length, item, before in zip(lengths, page.items, (b"", *page.items), strict=False)
    )


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
