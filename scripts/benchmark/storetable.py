"""What is shown of the stores: tables with ratios to `sqlite:` and to the same store near by, goals, JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmark import layout
from benchmark.backends import NEAR
from benchmark.goals import CACHE_MB, Verdict
from benchmark.layout import Head
from benchmark.measure import CUT, Outcome
from benchmark.metrics import Metric, ratio, value
from benchmark.storerounds import CorpusRounds
from benchmark.table import title

BASE = "sqlite"
KEPT = 0.5  # of its throughput, by a store that is far away
INGEST_MB, MOUNT_MB = 300, 100 + CACHE_MB
ROUND_METRICS = [
    Metric("ingest.first.rate", "ingest first, MB/s", True, 1),
    Metric("ingest.first.cpu", "  CPU s", False, 2),
    Metric("ingest.unchanged.rate", "ingest unchanged, MB/s", True, 1),
    Metric("ingest.unchanged.s", "  s", False, 2),
    Metric("open.fresh.ms", "open on a fresh machine, ms", False),
    Metric("open.again.ms", "open again, ms", False),
    Metric("mount.ms", "mount to first ls, ms", False),
    Metric("tar.rate", "tar of a fresh mount, MB/s", True, 1),
    Metric("tar.cpu", "  CPU s/GB", False, 1),
    Metric("restore.rate", "restore, MB/s", True, 1),
    Metric("restore.cpu", "  CPU s", False, 2),
    Metric("ingest.peak", "ingest peak memory, MB", False),
    Metric("mount.peak", "mount peak memory, MB", False),
    Metric("restore.peak", "restore peak memory, MB", False),
]
VALUE_METRICS = [
    Metric("value.append", "append values as large as frames, MB/s", True),
    Metric("value.append.small", "append small values, /s", True),
    Metric("value.whole.cold", "read whole, random order, cold, MB/s", True),
    Metric("value.whole", "read whole, random order, MB/s", True),
    Metric("value.whole.threads", "read whole, random order, 4 threads, MB/s", True),
    Metric("value.range.cold", "read 4 KiB at random, cold, /s", True),
    Metric("value.range", "read 4 KiB at random, /s", True),
    Metric("value.small", "read small values, /s", True),
    Metric("value.absent", "look up what is not there, /s", True),
    Metric("value.list", "list, values/s", True),
    Metric("value.write.peak", "peak memory of writing, MB", False),
    Metric("value.read.peak", "peak memory of reading, MB", False),
]
FRAME_METRICS = [
    Metric("frames.count", "frames", True),
    Metric("frames.fill.rate", "making them, frames/s", True),
    Metric("frames.list.s", "list the frames, s", False, 2),
    Metric("frames.list.rate", "  frames/s", True),
    Metric("frames.list.peak", "  peak memory, MB", False),
    Metric("frames.open.s", "open, catalog there, s", False, 3),
    Metric("frames.open.peak", "  peak memory, MB", False),
    Metric("frames.fresh.s", "open from nothing on a fresh machine, s", False, 2),
    Metric("frames.fresh.peak", "  peak memory, MB", False),
]
LEGEND = [
    "Medians. (0.9x): so many times as good as sqlite: in the same round, the median of the rounds. MB = 10^6 bytes.",
    "Memory: the most of any round, of spraydry's processes; not that of servers, which share the CPUs with it.",
    "http: is nginx before what dir: stored. Ceph keeps all in memory, other servers on the disk of dir:.",
    "Rates are of whole commands, with the start of the process and connecting; opening is told without that start.",
    "The catalog of sqlite: lies in the store itself, so that opening it on a fresh machine is opening it again.",
    "~ cut off at the cap: the rate of the part done.",
]
MADE = (
    "Those of dir: are files written where it would put them, and made durable at the end."
    " For sqlite: from nothing: its catalog made anew from the index runs."
)


@dataclass
class Results:
    """All that was measured so far."""

    latency_ms: float
    labels: dict[str, str]
    rounds: list[CorpusRounds] = field(default_factory=list)
    values: dict[str, Outcome] = field(default_factory=dict)
    frames: dict[str, Outcome] = field(default_factory=dict)
    chunks: int = 1

    def errors(self) -> list[str]:
        tables = [measured.outcomes for measured in self.rounds] + [self.values, self.frames]
        return [f"{name}: {error}" for table in tables for name, one in table.items() for error in one.errors]


def share(outcomes: dict[str, Outcome], name: str, base: str, metric: Metric) -> float | None:
    """How many times as good as another in the same round, the median of the rounds; of memory, of the most."""
    if metric.key.endswith(".peak"):
        return ratio(value(outcomes.get(name), metric.key), value(outcomes.get(base), metric.key), False)
    mine, others = (outcomes[one].samples.get(metric.key, []) if one in outcomes else [] for one in (name, base))
    found = [ratio(one, other, metric.more_is_better) for one, other in zip(mine, others, strict=False)]
    known = [one for one in found if one is not None]
    return statistics.median(known) if known else None


def rows(
    outcomes: dict[str, Outcome], names: dict[str, str], metrics: list[Metric], base: dict[str, str]
) -> list[list[str]]:
    """A head, then a row per metric that any has; `base`: with whom each of `names` is compared."""
    table = [["", *names.values()]]
    for metric in metrics:
        cells = []
        for name in names:
            one = value(outcomes.get(name), metric.key)
            if one is None:
                cells.append("-")
                continue
            mark = "~" if outcomes[name].marks.get(metric.key) == CUT else ""
            times = share(outcomes, name, base[name], metric) if name in base else None
            cells.append(f"{one:.{metric.digits}f}{mark}" + (f" ({times:.2f}x)" if times is not None else ""))
        if any(cell != "-" for cell in cells):
            table.append([metric.title, *cells])
    return table


# --- Goals


def least(
    goal: str, outcomes: dict[str, Outcome], names: list[str], base: dict[str, str], key: str, wanted: float
) -> Verdict:
    """That each of some stores is so many times as good as another, where it was measured at all."""
    metric = next(one for one in [*ROUND_METRICS, *VALUE_METRICS] if one.key == key)
    found = {name: share(outcomes, name, base[name], metric) for name in names}
    said = [f"{name} {'-' if times is None else f'{times:.2f}x'}" for name, times in found.items()]
    reached = None if None in found.values() else True
    if any(times is not None and times < wanted for times in found.values()):
        reached = False
    return Verdict(goal, "; ".join(said), reached)


def round_verdicts(measured: CorpusRounds, results: Results) -> list[Verdict]:
    outcomes = measured.outcomes
    verdicts = []
    if "segment" in outcomes:
        for key, what in (
            ("ingest.first.rate", "ingests"),
            ("ingest.unchanged.rate", "ingests what is unchanged"),
            ("tar.rate", "is read by tar"),
            ("restore.rate", "is restored from"),
        ):
            goal = f"segment: {what} at least as fast as sqlite:"
            verdicts.append(least(goal, outcomes, ["segment"], {"segment": BASE}, key, 1.0))
    far = [name for name in NEAR if name in outcomes]
    for key, what in (("ingest.first.rate", "first ingest"), ("tar.rate", "tar of a fresh mount")) if far else ():
        goal = f"with {results.latency_ms:g} ms of latency at least half of the throughput without it: {what}"
        verdicts.append(least(goal, outcomes, far, NEAR, key, KEPT))
    verdicts.append(_within("ingest within 300 MB of memory", outcomes, "ingest.peak", INGEST_MB))
    goal = "mount within 100 MB of memory beyond its cache of 256 MiB"
    verdicts.append(_within(goal, outcomes, "mount.peak", MOUNT_MB))
    return verdicts


def _within(goal: str, outcomes: dict[str, Outcome], key: str, limit: float) -> Verdict:
    found = {name: number for name, one in outcomes.items() if (number := value(one, key)) is not None}
    said = ", ".join(f"{name} {number:.0f} MB" for name, number in found.items())
    return Verdict(goal, said, all(number <= limit for number in found.values()) if found else None)


def value_verdicts(results: Results) -> list[Verdict]:
    if not {"segment", BASE} <= results.values.keys():
        return []
    return [
        least(
            f"segment: at least as fast as sqlite: {metric.title.rsplit(', ', 1)[0]}",
            results.values,
            ["segment"],
            {"segment": BASE},
            metric.key,
            1.0,
        )
        for metric in VALUE_METRICS
        if not metric.key.endswith(".peak") and any(metric.key in one.samples for one in results.values.values())
    ]


# --- All of it


def report(head: Head, remarks: list[str], results: Results, as_markdown: bool) -> str:
    lines = [*layout.head_lines(head, as_markdown), "", *layout.bullets([*LEGEND, *remarks], as_markdown)]
    labels = results.labels
    for measured in results.rounds:
        outcomes = measured.outcomes
        near = {name: labels[name] for name in outcomes if name not in NEAR}
        table = rows(outcomes, near, ROUND_METRICS, {name: BASE for name in near if name != BASE})
        least_ms, most_ms = (round(pick(measured.calibration or [0])) for pick in (min, max))
        errors = [f"{name}: {error}" for name, one in outcomes.items() for error in one.errors]
        even = (
            f"A fixed piece of work took {least_ms} to {most_ms} ms during the run: that is how even the machine was."
        )
        judged = round_verdicts(measured, results)
        lines += layout.section(title(measured), table, judged, [*errors, even], as_markdown)
        if far := {name: NEAR[name] for name in outcomes if name in NEAR}:
            names = {name: labels[name] for pair in ((near, name) for name, near in far.items()) for name in pair}
            table = rows(outcomes, names, ROUND_METRICS, far)
            heading = f"{measured.corpus.name} with {results.latency_ms:g} ms of latency: how much of each is kept"
            lines += layout.section(heading, table, [], [], as_markdown)
    if results.values:
        names = {name: labels[name] for name in results.values}
        table = rows(results.values, names, VALUE_METRICS, {name: BASE for name in names if name != BASE})
        errors = [f"{name}: {error}" for name, one in results.values.items() for error in one.errors]
        heading = "Values in a store, without a repository, one after another by one thread"
        lines += layout.section(heading, table, value_verdicts(results), errors, as_markdown)
    if results.frames:
        table = rows(results.frames, {name: labels[name] for name in results.frames}, FRAME_METRICS, {})
        notes = [f"{name}: {error}" for name, one in results.frames.items() for error in one.errors]
        notes.append(f"Frames of {results.chunks} x 40 bytes, made by the repository's writer. {MADE}")
        lines += layout.section("Very many frames", table, [], notes, as_markdown)
    return "\n".join(lines) + "\n"


def as_json(head: Head, remarks: list[str], results: Results) -> dict[str, object]:
    def told(outcomes: dict[str, Outcome]) -> dict[str, object]:
        return {
            name: {"samples": one.samples, "marks": one.marks, "errors": one.errors} for name, one in outcomes.items()
        }

    return {
        **head,
        "remarks": remarks,
        "latency_ms": results.latency_ms,
        "corpora": {
            measured.corpus.name: {
                "files": len(measured.listing.sizes),
                "bytes": measured.listing.bytes,
                "calibration_ms": measured.calibration,
                "stores": told(measured.outcomes),
                "goals": [verdict._asdict() for verdict in round_verdicts(measured, results)],
            }
            for measured in results.rounds
        },
        "values": {
            "stores": told(results.values),
            "goals": [verdict._asdict() for verdict in value_verdicts(results)],
        },
        "frames": {"chunks": results.chunks, "stores": told(results.frames)},
    }
