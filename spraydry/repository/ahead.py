"""Reading a file from front to back: as many of its frames at a time as the store is good for."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.format.entry import Entry, Runs
from spraydry.format.manifest import Span
from spraydry.parallel import default_threads, ordered_map
from spraydry.repository.chunks import Chunks
from spraydry.repository.stream import Part, parts, read_span, spans

_GROUP_SPANS = 64


def threads_of(chunks: Chunks) -> int:
    """How many threads are worth having for what is read from a repository's store."""
    return max(default_threads(), chunks.store.traits.concurrency)


def read_ahead(chunks: Chunks, entry: Entry, start: int = 0) -> Iterator[Part]:
    """As `parts`, read in threads: spans that follow each other in one frame by one, for threads that want the same
    frame wait for each other. Up to twice as many frames as there are threads are held."""
    if not isinstance(entry.content, Runs):
        return parts(entry, chunks.read_chunk, start)

    def read(group: list[Span]) -> list[Part]:
        return [(span, read_span(span, chunks.read_chunk)) for span in group]

    groups = _by_frame(chunks, spans(entry, chunks.read_chunk, start))
    return (part for group in ordered_map(read, groups, threads_of(chunks)) for part in group)


def _by_frame(chunks: Chunks, following: Iterator[Span]) -> Iterator[list[Span]]:
    group: list[Span] = []
    last: bytes | None = None
    for span in following:
        places = chunks.catalog.chunks.locate(span.chunk) if span.chunk is not None else []
        frame = places[0].frame if places else last
        if group and (frame != last or len(group) >= _GROUP_SPANS):
            yield group
            group = []
        group.append(span)
        last = frame
    if group:
        yield group
