"""The Range header: which bytes of a file are wanted. Pure."""

from __future__ import annotations

import itertools
import re

_ONE = re.compile(rb"(\d*)-(\d*)")
_MAX_RANGES = 64
_MAX_HEADER_BYTES = 2048


class UnsatisfiableError(Exception):
    """None of the ranges lies in the file."""


def wanted(header: bytes, size: int) -> list[tuple[int, int]] | None:
    """The ranges of a file of `size` bytes that a header asks for, as (start, stop) with start < stop, in its order.

    None where it is to be passed over, as RFC 9110 has it for what does not parse or asks for more ranges than anybody
    needs: then the whole file is the answer. Ranges that overlap are joined and then come in the file's order. Raises
    UnsatisfiableError.
    """
    unit, equals, listed = header.partition(b"=")
    if unit.strip().lower() != b"bytes" or not equals or len(header) > _MAX_HEADER_BYTES:
        return None
    found: list[tuple[int, int]] = []
    count = 0
    for one in listed.split(b","):
        one = one.strip(b" \t")
        if not one:
            continue
        match = _ONE.fullmatch(one)
        count += 1
        if match is None or count > _MAX_RANGES:
            return None
        first, last = match.groups()
        if first:
            start, stop = int(first), int(last) + 1 if last else size
            if last and stop <= start:
                return None
        elif last:
            start, stop = max(size - int(last), 0), size
        else:
            return None
        if start < min(stop, size):
            found.append((start, min(stop, size)))
    if not count:
        return None
    if not found:
        raise UnsatisfiableError
    return _joined(found)


def _joined(found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    in_order = sorted(found)
    if all(before[1] <= after[0] for before, after in itertools.pairwise(in_order)):
        return found
    joined = in_order[:1]
    for start, stop in in_order[1:]:
        if start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
