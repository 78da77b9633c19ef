"""A treemap: areas in proportion to sizes, as square as they can be laid out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """Where an area lies, in the units of the whole."""

    x: float
    y: float
    width: float
    height: float


def squarified(sizes: Sequence[float], whole: Box) -> list[Box]:
    """Boxes for sizes that fall, none of them 0, filling the whole. Each strip takes as many as make it squarer."""
    boxes: list[Box] = []
    left, at = whole, 0
    remaining = float(sum(sizes))
    while at < len(sizes):
        short = min(left.width, left.height)
        scale = left.width * left.height / remaining if remaining > 0 else 0.0
        end = at + 1
        total = sizes[at] * scale
        worst = _worst(sizes[at] * scale, sizes[at] * scale, total, short)
        while end < len(sizes):
            more = total + sizes[end] * scale
            then = _worst(sizes[at] * scale, sizes[end] * scale, more, short)
            if then > worst:
                break
            total, worst, end = more, then, end + 1
        thick = total / short if short > 0 else 0.0
        across = 0.0
        for size in sizes[at:end]:
            length = size * scale / thick if thick > 0 else 0.0
            if left.width >= left.height:
                boxes.append(Box(left.x, left.y + across, thick, length))
            else:
                boxes.append(Box(left.x + across, left.y, length, thick))
            across += length
            remaining -= size
        if left.width >= left.height:
            left = Box(left.x + thick, left.y, max(left.width - thick, 0.0), left.height)
        else:
            left = Box(left.x, left.y + thick, left.width, max(left.height - thick, 0.0))
        at = end
    return boxes


def _worst(largest: float, smallest: float, total: float, short: float) -> float:
    """How far from a square the worst box of a strip is: 1 is one."""
    if total <= 0 or smallest <= 0 or short <= 0:
        return float("inf")
    side = short * short
    return max(side * largest / (total * total), total * total / (side * smallest))
