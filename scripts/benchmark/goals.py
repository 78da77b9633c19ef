"""The goals: which numbers spraydry must reach, on which corpora, and whether it did."""

from __future__ import annotations

from typing import NamedTuple

from benchmark.corpora import BUILDERS, Corpus
from benchmark.measure import CUT, Measurement, Outcome
from benchmark.metrics import BY_KEY, ratio, value

FUSE, EROFS = "spraydry", "spraydry-erofs"  # the two engines, as peers
BOTH = (FUSE, EROFS)
TREE = ("src-versions",)
CACHE_MB = 256 * 1.048576  # the default of `spraydry mount --cache`


class Goal(NamedTuple):
    """How many times better than each of some peers; or a limit; where both are given, one of the two is enough.

    All of `keys` must reach it, for all of `subjects`.
    """

    text: str
    keys: tuple[str, ...]
    than: tuple[tuple[str, float], ...] = ()  # a peer, times better
    limit: float | None = None  # the most, or the least where more is better
    subjects: tuple[str, ...] = (FUSE,)
    corpora: tuple[str, ...] = TREE  # none: all


class Verdict(NamedTuple):
    goal: str
    measured: str
    reached: bool | None  # None: not measured, or not all of it, and that was reached

    def word(self) -> str:
        if self.reached is None:
            return "not all measured" if any(map(str.isdigit, self.measured)) else "not measured"
        return "reached" if self.reached else "NOT REACHED"

    def line(self) -> str:
        return f"{self.word()}: {self.goal}" + (f" ({self.measured})" if self.measured else "")


RIVALS = (("restic", 4.0), ("borg", 4.0))
KERNEL = (("squashfs", 1.0), ("erofs", 1.0))
MOUNTS = (("squashfuse", 2.0), ("borg", 5.0), ("restic", 5.0))

GOALS = [
    Goal("first ingest as fast as squashfs's, the aim 1.5 times that", ("ingest.first.rate",), (("squashfs", 1.0),)),
    Goal(
        "unchanged ingest 4 times as fast as restic's and borg's", ("ingest.unchanged.s",), (("restic", 4), ("borg", 4))
    ),
    Goal("stored bytes below half of squashfs's", ("stored.allocated",), (("squashfs", 2.0),)),
    Goal("engine erofs: cold find above kernel squashfs and kernel erofs", ("find.cold.rate",), KERNEL, None, (EROFS,)),
    Goal("engine erofs: cold tar above kernel squashfs and kernel erofs", ("tar.cold.rate",), KERNEL, None, (EROFS,)),
    Goal("engine erofs: cold open above kernel squashfs and kernel erofs", ("open.cold.rate",), KERNEL, None, (EROFS,)),
    Goal("engine fuse: cold find 2 x squashfuse, 5 x borg and restic mount", ("find.cold.rate",), MOUNTS),
    Goal("engine fuse: cold tar 2 x squashfuse, 5 x borg and restic mount", ("tar.cold.rate",), MOUNTS),
    Goal("engine fuse: warm find and tar 3 x borg mount", ("find.warm.rate", "tar.warm.rate"), (("borg", 3.0),)),
    Goal(
        "bytes that v2 adds at most casync's with chunks of 64 KiB",
        ("added.allocated", "added.apparent"),
        (("casync", 1.0),),
        corpora=("big",),
    ),
    Goal(
        "large file, sequential, cold: 500 MB/s or 80 % of squashfs",
        ("seq.cold.rate",),
        (("squashfs", 0.8),),
        500,
        BOTH,
        ("big",),
    ),
    Goal(
        "large file, random 4 KiB, cold: p99 within 2 x squashfuse's",
        ("rand.cold.p99",),
        (("squashfuse", 0.5),),
        None,
        BOTH,
        ("big",),
    ),
    Goal("mount to first ls below 300 ms", ("mount.ms",), (), 300, BOTH, ()),
    Goal("ingest within 300 MB of memory", ("ingest.peak",), (), 300, corpora=()),
    Goal("engine fuse: mount within 150 MB of memory, cache and all", ("mount.peak",), (), 150, corpora=()),
    Goal("mount within 100 MB of memory beyond its cache of 256 MiB", ("mount.peak",), (), 100 + CACHE_MB, BOTH, ()),
]


def applies(goal: Goal, corpus: Corpus) -> bool:
    """A folder of the user's is taken as a tree of sources, unless it is a corpus built elsewhere, with its name."""
    name = TREE[0] if corpus.own and corpus.name not in BUILDERS else corpus.name
    return not goal.corpora or name in goal.corpora


def verdicts(measured: Measurement) -> list[Verdict]:
    return [judge(goal, measured.outcomes) for goal in GOALS if applies(goal, measured.corpus)]


def judge(goal: Goal, outcomes: dict[str, Outcome]) -> Verdict:
    """One goal, with all that was compared; "-" stands for what was not measured."""
    said, found = [], []
    for subject in goal.subjects:
        for key in goal.keys:
            words, reached = _compare(goal, outcomes, subject, key)
            label = [subject] * (len(goal.subjects) > 1) + [_difference(goal.keys, key)] * (len(goal.keys) > 1)
            said.append(" ".join([*label, words]))
            found.append(reached)
    return Verdict(goal.text, "; ".join(said), _all(found))


def _compare(goal: Goal, outcomes: dict[str, Outcome], subject: str, key: str) -> tuple[str, bool | None]:
    """One number of one subject with everything that the goal names: in words, and whether it reaches the goal."""
    metric, mine = BY_KEY[key], value(outcomes.get(subject), key)
    words, reached = [], []
    for peer, least in goal.than:
        times = ratio(mine, value(outcomes.get(peer), key), metric.more_is_better)
        cut = any(name in outcomes and outcomes[name].marks.get(key) == CUT for name in (subject, peer))
        words.append(f"{'-' if times is None else f'{times:.2f}x'}{'~' if cut else ''} {peer}")
        reached.append(None if times is None else times >= least)
    if goal.limit is None:
        return ", ".join(words), _all(reached)
    if mine is None:
        return "-", None
    within = mine >= goal.limit if metric.more_is_better else mine <= goal.limit
    words.insert(0, f"{mine:.{metric.digits}f} {metric.title.rsplit(', ')[-1]}")
    return ", ".join(words), within if within or not goal.than else _all(reached)


def _all(found: list[bool | None]) -> bool | None:
    """One that is not reached decides, then one that was not measured."""
    return False if False in found else None if None in found else True


def _difference(keys: tuple[str, ...], key: str) -> str:
    """The part of a key that tells it from the others: `find` of find.warm.rate beside tar.warm.rate."""
    parts = zip(*(one.split(".") for one in keys), strict=True)
    return " ".join(mine for mine, all_of in zip(key.split("."), parts, strict=True) if len(set(all_of)) > 1)
