"""From the bytes of a file to its content: segments between holes, chunks, manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from spraydry.format.chunker import HOLE_BLOCK_BYTES, Chunker, zero_blocks
from spraydry.format.classes import TREE
from spraydry.format.digest import Buffer, digest, hasher
from spraydry.format.entry import Content, Runs
from spraydry.format.manifest import ManifestBuilder

WINDOW_BYTES = 4 << 20
ZERO_WINDOW = bytes(WINDOW_BYTES)


class Segmenter:
    """Cuts a stream of blocks into chunks and holes. Blocks but the last must be multiples of HOLE_BLOCK_BYTES."""

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker
        self._carry: Buffer = b""
        self._fed = 0

    def feed(self, block: Buffer, last: bool) -> list[tuple[int, Buffer | None]]:
        """The runs that are complete now: (length, plain bytes), or (length, None) for a hole."""
        runs: list[tuple[int, Buffer | None]] = []
        if block is ZERO_WINDOW:
            self._end_of_data(runs)
            self._fed += len(block)
            return [*runs, (len(block), None)]
        # A file below one block has no holes; a short zero block counts only behind whole ones.
        zeros = zero_blocks(block) if self._fed or len(block) >= HOLE_BLOCK_BYTES else []
        self._fed += len(block)
        if True not in zeros:
            self._data(block, runs)
        else:
            view, start = memoryview(block), 0
            while start < len(zeros):
                stop = start
                while stop < len(zeros) and zeros[stop] == zeros[start]:
                    stop += 1
                part = view[start * HOLE_BLOCK_BYTES : stop * HOLE_BLOCK_BYTES]
                if zeros[start]:
                    self._end_of_data(runs)
                    runs.append((len(part), None))
                else:
                    self._data(part, runs)
                start = stop
        if last:
            self._end_of_data(runs)
        return runs

    def _data(self, part: Buffer, runs: list[tuple[int, Buffer | None]]) -> None:
        buffer = memoryview(b"".join((self._carry, part)) if self._carry else part)
        self._carry = buffer[self._take(buffer, False, runs) :]

    def _end_of_data(self, runs: list[tuple[int, Buffer | None]]) -> None:
        if self._carry:
            self._take(memoryview(self._carry), True, runs)
            self._carry = b""

    def _take(self, buffer: memoryview, last: bool, runs: list[tuple[int, Buffer | None]]) -> int:
        at = 0
        for length in self._chunker.cut(buffer, last):
            runs.append((length, buffer[at : at + length]))
            at += length
        return at


class ContentBuilder:
    """The content of a file from its runs, added in order; holds no more than a manifest page a level.

    `emit(digest, plain)` gets the manifest's pages, if it needs one.
    """

    def __init__(self, emit: Callable[[bytes, bytes], None]) -> None:
        self._manifest = ManifestBuilder(emit)
        self._count = 0
        self._first: bytes | None = None
        self._filled = 0
        self.length = 0

    def add(self, length: int, chunk: bytes | None) -> None:
        """The next `length` bytes: a chunk, or a hole where `chunk` is None."""
        self._count += 1
        if self._count == 1:
            self._first = chunk
        self._manifest.add(length, chunk)
        self.length += length
        self._filled += length if chunk is not None else 0

    def finish(self, file_digest: Callable[[], bytes]) -> Content:
        """The content; `file_digest` is asked for where it is not that of the only chunk."""
        if self._count == 0:
            return None
        if self._count == 1 and self._first is not None:
            return self._first
        return Runs(file_digest(), self._manifest.finish(), self._filled)


class Sink(Protocol):
    """What takes chunks, as a Writer does."""

    def add(self, name: bytes, plain: Buffer, frame_class: str, *, part: bool = False) -> None: ...


def store_stream(writer: Sink, read: Callable[[int], bytes], chunker: Chunker, frame_class: str) -> tuple[int, Content]:
    """Cut and store what `read(most bytes)` gives until it gives nothing; the length and the content that names it."""

    def window() -> bytes:
        pieces, missing = [], WINDOW_BYTES
        while missing and (piece := read(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    segmenter = Segmenter(chunker)
    whole = hasher(large=True)
    content = ContentBuilder(lambda name, plain: writer.add(name, plain, TREE))
    block = window()
    while block:
        following = window()
        whole.update(block)
        for length, part in segmenter.feed(block, not following):
            name = None if part is None else digest(part)
            content.add(length, name)
            if part is not None and name is not None:
                writer.add(name, part, frame_class, part=content.length > length or bool(following))
        block = following
    return content.length, content.finish(whole.digest)
