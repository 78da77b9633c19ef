"""What is measured of every peer, and how samples become one number."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from benchmark.measure import Outcome


class Metric(NamedTuple):
    key: str
    title: str
    more_is_better: bool
    digits: int = 0


METRICS = [
    Metric("ingest.first.rate", "ingest first, MB/s", True, 1),
    Metric("ingest.first.s", "ingest first, s", False, 2),
    Metric("ingest.first.cpu", "  CPU s", False, 2),
    Metric("ingest.unchanged.s", "ingest unchanged, s", False, 2),
    Metric("ingest.unchanged.cpu", "  CPU s", False, 2),
    Metric("ingest.changed.s", "ingest changed (v2), s", False, 2),
    Metric("ingest.changed.cpu", "  CPU s", False, 2),
    Metric("ingest.peak", "ingest peak memory, MB", False),
    Metric("stored.allocated", "stored, MB allocated", False, 2),
    Metric("stored.apparent", "stored, MB apparent", False, 2),
    Metric("added.allocated", "v2 adds, MB allocated", False, 2),
    Metric("added.apparent", "v2 adds, MB apparent", False, 2),
    Metric("mount.ms", "mount to first ls, ms", False),
    Metric("mount.first.ms", "  the first after the ingest, ms", False),
    Metric("find.cold.rate", "find -ls cold, entries/s", True),
    Metric("find.warm.rate", "find -ls warm, entries/s", True),
    Metric("find.cold.cpu", "  cold, CPU us/entry", False),
    Metric("tar.cold.rate", "tar cold, MB/s", True, 1),
    Metric("tar.warm.rate", "tar warm, MB/s", True, 1),
    Metric("tar.cold.cpu", "  cold, CPU s/GB", False, 1),
    Metric("open.cold.rate", "open small files cold, /s", True),
    Metric("open.warm.rate", "open small files warm, /s", True),
    Metric("open.cold.p99", "  cold, p99 ms", False, 2),
    Metric("seq.cold.rate", "largest file cold, MB/s", True),
    Metric("seq.warm.rate", "largest file warm, MB/s", True),
    Metric("rand.cold.rate", "random 4 KiB cold, /s", True),
    Metric("rand.warm.rate", "random 4 KiB warm, /s", True),
    Metric("rand.cold.p99", "  cold, p99 ms", False, 2),
    Metric("mount.peak", "mount peak memory, MB", False),
]
BY_KEY = {metric.key: metric for metric in METRICS}


def value(outcome: Outcome | None, key: str) -> float | None:
    """The median; of memory the most."""
    samples = outcome.samples.get(key) if outcome else None
    if not samples:
        return None
    return max(samples) if key.endswith(".peak") else statistics.median(samples)


def ratio(mine: float | None, other: float | None, more_is_better: bool) -> float | None:
    """How many times better mine is."""
    if mine is None or other is None:
        return None
    better, worse = (mine, other) if more_is_better else (other, mine)
    return better / worse if worse > 0 else None
