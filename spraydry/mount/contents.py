"""Reading the content of files that have several chunks: from an offset to the bytes. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator

from spraydry.errors import CorruptData
from spraydry.format.entry import Runs
from spraydry.format.manifest import Manifest, Span

# Spans are looked up in windows of a file, so that its manifest is not decoded for every read, and so many of them are
# kept (about 230 bytes each).
_WINDOW_BYTES = 16 << 20
_KEPT_SPANS = 32768

_ZEROS = bytes(1 << 20)


class Contents:
    """The bytes of files, from chunks that `chunk(digest)` gives, verified; it may raise to say what to load first:
    then the same call is made again. Keeps the spans used last. Not thread-safe."""

    def __init__(self, chunk: Callable[[bytes], memoryview]) -> None:
        self._chunk = chunk
        self._windows: OrderedDict[tuple[bytes, int], list[Span]] = OrderedDict()
        self._held = 0

    def read(self, runs: Runs, size: int, start: int, stop: int) -> list[bytes | memoryview]:
        """The pieces that are the bytes `start` to `stop` (at most `size`) of a file of `size` bytes."""
        parts: list[bytes | memoryview] = []
        stop = min(stop, size)
        for span in self.spans(runs, size, start, stop):
            low, high = max(start - span.offset, 0), min(stop - span.offset, span.length)
            if span.chunk is None:
                while low < high:
                    part = min(high - low, len(_ZEROS))
                    parts.append(memoryview(_ZEROS)[:part])
                    low += part
                continue
            plain = self._chunk(span.chunk)
            if len(plain) != span.length:
                raise CorruptData(f"chunk {span.chunk.hex()} has {len(plain)} bytes, a manifest says {span.length}")
            parts.append(plain[low:high])
        return parts

    def spans(self, runs: Runs, size: int, start: int, stop: int) -> Iterator[Span]:
        """The spans that overlap bytes `start` to `stop` of the file, in order."""
        while start < stop:
            window = self._window(runs, size, start // _WINDOW_BYTES)
            for place in range(bisect_right(window, start, key=_end), len(window)):
                span = window[place]
                if span.offset >= stop:
                    return
                yield span
                start = span.offset + span.length

    def _window(self, runs: Runs, size: int, number: int) -> list[Span]:
        key = (runs.manifest, number)
        window = self._windows.get(key)
        if window is not None:
            self._windows.move_to_end(key)
            return window
        manifest = Manifest(runs.manifest, size, lambda name: bytes(self._chunk(name)))
        at = number * _WINDOW_BYTES
        window = self._windows[key] = list(manifest.spans(at, at + _WINDOW_BYTES))
        self._held += len(window)
        while self._held > _KEPT_SPANS and len(self._windows) > 1:
            self._held -= len(self._windows.popitem(last=False)[1])
        return window


def _end(span: Span) -> int:
    return span.offset + span.length
