"""Merging sorted rows: of each key the newest. Block by block, since that is several times as fast as row by row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

Block = tuple[list[bytes], list[bytes]]  # keys in order, at least one, and the packed row of each


def merged(sources: Sequence[Iterator[Block]]) -> Iterator[Block]:
    """Keys in order, each once, with the row of the first of `sources` (newest first) that has it."""
    ahead = [(*block, source) for source in reversed(sources) if (block := next(source, None)) is not None]
    while len(ahead) > 1:
        bound = min(keys[-1] for keys, _, _ in ahead)
        found: dict[bytes, bytes] = {}
        for place in range(len(ahead) - 1, -1, -1):  # backwards, as what has ended leaves the list
            keys, rows, source = ahead[place]
            stop = bisect_right(keys, bound)
            found = dict(zip(keys[:stop], rows[:stop], strict=True)) | found
            if stop < len(keys):
                ahead[place] = keys[stop:], rows[stop:], source
            elif (block := next(source, None)) is not None:
                ahead[place] = *block, source
            else:
                del ahead[place]
        order = sorted(found)
        yield order, [found[key] for key in order]
    for keys, rows, source in ahead:
        yield keys, rows
        yield from source
