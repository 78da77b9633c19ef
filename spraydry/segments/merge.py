"""Merging sorted rows: of each key the newest."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence


def merged_rows(sources: Sequence[Iterator[tuple[bytes, bytes]]]) -> Iterator[tuple[bytes, bytes]]:
    """Keys in order, each once, with the row of the first of `sources` (newest first) that has it."""
    if len(sources) == 1:
        yield from sources[0]
        return
    before = None
    for key, _, row in heapq.merge(*(_ranked(rank, source) for rank, source in enumerate(sources))):
        if key != before:
            before = key
            yield key, row


def _ranked(rank: int, source: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, int, bytes]]:
    return ((key, rank, row) for key, row in source)
