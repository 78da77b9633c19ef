"""Which lines two texts have in common: in linear time but for small gaps, so that no input takes for ever."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Between lines that occur once on each side the best match is looked for where that is cheap; larger gaps, in which no
# line is unique, count as replaced.
_GAP_CELLS = 40_000
_MAX_SPLITS = 20


class Block(NamedTuple):
    """`length` lines from `old` of one text that are those from `new` of the other."""

    old: int
    new: int
    length: int


class _Range(NamedTuple):
    old: int
    old_end: int
    new: int
    new_end: int
    splits: int


def matching(old: Sequence[bytes], new: Sequence[bytes]) -> list[Block]:
    """The lines in common as blocks, rising on both sides, none of length 0, none touching the next on both sides."""
    pairs: list[tuple[int, int]] = []
    stack = [_Range(0, len(old), 0, len(new), 0)]
    while stack:
        low, high, first, last, splits = stack.pop()
        while low < high and first < last and old[low] == new[first]:
            pairs.append((low, first))
            low, first = low + 1, first + 1
        while low < high and first < last and old[high - 1] == new[last - 1]:
            high, last = high - 1, last - 1
            pairs.append((high, last))
        if low == high or first == last:
            continue
        anchors = _anchors(old, new, low, high, first, last) if splits < _MAX_SPLITS else []
        if anchors:
            pairs += anchors
            starts = [(low, first), *((a + 1, b + 1) for a, b in anchors)]
            ends = [*anchors, (high, last)]
            stack += [_Range(a, c, b, d, splits + 1) for (a, b), (c, d) in zip(starts, ends, strict=True)]
        elif (high - low) * (last - first) <= _GAP_CELLS:
            pairs += _longest(old[low:high], new[first:last], low, first)
    pairs.sort()
    return list(_blocks(pairs))


def _anchors(
    old: Sequence[bytes], new: Sequence[bytes], low: int, high: int, first: int, last: int
) -> list[tuple[int, int]]:
    """Lines that occur once on each side, as many as keep their order."""
    in_old = Counter(old[low:high])
    in_new = Counter(new[first:last])
    place = {new[at]: at for at in range(first, last) if in_new[new[at]] == 1}
    pairs = [(at, place[old[at]]) for at in range(low, high) if in_old[old[at]] == 1 and old[at] in place]
    tops: list[int] = []  # the least last place of a rising sequence of each length,
    held: list[int] = []  # and which pair that is
    before: list[int] = []
    for number, (_, at) in enumerate(pairs):
        length = bisect_left(tops, at)
        tops[length : length + 1] = [at]
        held[length : length + 1] = [number]
        before.append(held[length - 1] if length else -1)
    found = []
    number = held[-1] if held else -1
    while number >= 0:
        found.append(pairs[number])
        number = before[number]
    return found[::-1]


def _longest(old: Sequence[bytes], new: Sequence[bytes], low: int, first: int) -> Iterator[tuple[int, int]]:
    """A longest common subsequence, by the table of its lengths."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for a in range(len(old) - 1, -1, -1):
        row, below = table[a], table[a + 1]
        for b in range(len(new) - 1, -1, -1):
            row[b] = below[b + 1] + 1 if old[a] == new[b] else max(below[b], row[b + 1])
    a = b = 0
    while a < len(old) and b < len(new):
        if old[a] == new[b]:
            yield low + a, first + b
            a, b = a + 1, b + 1
        elif table[a + 1][b] >= table[a][b + 1]:
            a += 1
        else:
            b += 1


def _blocks(pairs: list[tuple[int, int]]) -> Iterator[Block]:
    start = 0
    for at in range(1, len(pairs) + 1):
        if at == len(pairs) or pairs[at] != (pairs[at - 1][0] + 1, pairs[at - 1][1] + 1):
            yield Block(*pairs[start], at - start)
            start = at


class Hunk(NamedTuple):
    """Lines that changed with some around them: where they begin and how many they are on each side, and the lines,
    each behind a blank, `-` or `+`."""

    old: int
    old_length: int
    new: int
    new_length: int
    lines: list[bytes]


def hunks(old: Sequence[bytes], new: Sequence[bytes], context: int = 3) -> Iterator[Hunk]:
    """What `diff -u` shows of two texts, as hunks with so many lines around what changed."""
    gaps: list[tuple[int, int, int, int]] = []
    at = to = 0
    for block in (*matching(old, new), Block(len(old), len(new), 0)):
        if at < block.old or to < block.new:
            gaps.append((at, block.old, to, block.new))
        at, to = block.old + block.length, block.new + block.length
    group: list[tuple[int, int, int, int]] = []
    for gap in gaps:
        if group and gap[0] - group[-1][1] > 2 * context:
            yield _hunk(old, new, group, context)
            group = []
        group.append(gap)
    if group:
        yield _hunk(old, new, group, context)


def _hunk(old: Sequence[bytes], new: Sequence[bytes], group: list[tuple[int, int, int, int]], context: int) -> Hunk:
    start, end = max(group[0][0] - context, 0), min(group[-1][1] + context, len(old))
    before = group[0][0] - start
    lines = []
    at = start
    for low, high, first, last in group:
        lines += [b" " + line for line in old[at:low]]
        lines += [b"-" + line for line in old[low:high]]
        lines += [b"+" + line for line in new[first:last]]
        at = high
    lines += [b" " + line for line in old[at:end]]
    first, last = group[0][2] - before, group[-1][3] + end - at
    return Hunk(start, end - start, first, last - first, lines)
