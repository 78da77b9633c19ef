"""What is shown: the metrics, the goals, and tables of both as plain text and as Markdown."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from benchmark.measure import CUT, REBUILT, Measurement, Outcome

SUBJECT = "spraydry"
MARKS = {CUT: "~", REBUILT: "="}
LEGEND = [
    "Medians. (2.0x): spraydry is twice as good as this peer. MB = 10^6 bytes. Memory: the most in any round.",
    "~ cut off at the cap: the rate of the part done, and no second (warm) pass after it.",
    "= an image is made anew; its v2 holds both versions.",
]


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
PEAKS = {"ingest.peak", "mount.peak"}


class Goal(NamedTuple):
    """A limit, or how many times better than a peer; of several metrics all that were measured must reach it."""

    text: str
    keys: tuple[str, ...]
    peer: str | None
    least: float  # times better; without a peer the most that it may be
    corpora: tuple[str, ...] = ("src-versions",)  # and every folder of the user's; none: all


GOALS = [
    Goal("first ingest at least as fast as restic", ("ingest.first.rate",), "restic", 1.0),
    Goal("unchanged ingest twice as fast as restic's", ("ingest.unchanged.s",), "restic", 2.0),
    Goal("stored bytes below borg's", ("stored.allocated",), "borg", 1.0),
    Goal("find on the mount 3 times borg mount's", ("find.cold.rate", "find.warm.rate"), "borg", 3.0),
    Goal("tar on the mount 3 times borg mount's", ("tar.cold.rate", "tar.warm.rate"), "borg", 3.0),
    Goal("ingest within 300 MB of memory", ("ingest.peak",), None, 300, ()),
    Goal("mount within 150 MB of memory", ("mount.peak",), None, 150, ()),
]


class Verdict(NamedTuple):
    goal: str
    measured: str
    reached: bool | None  # None: not measured

    def line(self) -> str:
        word = {True: "reached", False: "NOT REACHED", None: "not measured"}[self.reached]
        return f"{word}: {self.goal}" + (f" ({self.measured})" if self.measured else "")


def value(outcome: Outcome | None, key: str) -> float | None:
    samples = outcome.samples.get(key) if outcome else None
    if not samples:
        return None
    return max(samples) if key in PEAKS else statistics.median(samples)


def ratio(mine: float | None, other: float | None, more_is_better: bool) -> float | None:
    """How many times better mine is."""
    if mine is None or other is None:
        return None
    better, worse = (mine, other) if more_is_better else (other, mine)
    return better / worse if worse > 0 else None


def verdicts(measured: Measurement) -> list[Verdict]:
    found = []
    mine = measured.outcomes.get(SUBJECT)
    for goal in GOALS:
        if goal.corpora and measured.corpus.name not in goal.corpora and not measured.corpus.own:
            continue
        said, all_reached = [], True
        for key in goal.keys:
            one = value(mine, key)
            label = key.split(".")[1] + " " if len(goal.keys) > 1 else ""
            if goal.peer is None:
                if one is not None:
                    said.append(f"{one:.0f} MB")
                    all_reached &= one <= goal.least
                continue
            times = ratio(one, value(measured.outcomes.get(goal.peer), key), BY_KEY[key].more_is_better)
            if times is not None:
                said.append(f"{label}{times:.2f}x")
                all_reached &= times >= goal.least
        found.append(Verdict(goal.text, ", ".join(said), all_reached if said else None))
    return found


def rows(measured: Measurement) -> list[list[str]]:
    """A head, then a row per metric that anyone has."""
    names = list(measured.outcomes)
    mine = measured.outcomes.get(SUBJECT)
    table = [["", *names]]
    for metric in METRICS:
        cells = []
        for name in names:
            outcome = measured.outcomes[name]
            one = value(outcome, metric.key)
            if one is None:
                cells.append("-")
                continue
            text = f"{one:.{metric.digits}f}{MARKS.get(outcome.marks.get(metric.key, ''), '')}"
            times = ratio(value(mine, metric.key), one, metric.more_is_better) if name != SUBJECT else None
            if times is not None:
                text += f" ({times:.1f}x)" if times >= 0.1 else f" ({times:.2f}x)"
            cells.append(text)
        if any(cell != "-" for cell in cells):
            table.append([metric.title, *cells])
    return table


def plain(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]


def markdown(table: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cell.replace("  ", "… ") for cell in row) + " |" for row in table]
    return [lines[0], "|---" + "|--:" * (len(table[0]) - 1) + "|", *lines[1:]]


def title(measured: Measurement) -> str:
    listing = measured.listing
    megabytes, (_, largest) = listing.bytes / 1e6, listing.largest()
    files = f"{len(listing.sizes)} files, {megabytes:.1f} MB, the largest {largest / 1e6:.1f} MB"
    return f"{measured.corpus.name}: {files}"


def notes(measured: Measurement) -> list[str]:
    lines = [f"{name}: {error}" for name, outcome in measured.outcomes.items() for error in outcome.errors]
    if measured.calibration:
        least, most = min(measured.calibration), max(measured.calibration)
        lines.append(
            f"A fixed piece of work took {least:.0f} to {most:.0f} ms during the run: that is how even the machine was."
        )
    return lines


def report(head: dict[str, dict[str, str]], remarks: list[str], done: list[Measurement], as_markdown: bool) -> str:
    """The whole result: the machine and the tools, then a table and the verdicts per corpus."""
    bullet, heading = ("- ", "## ") if as_markdown else ("  ", "")
    lines = ["# Benchmark", ""] if as_markdown else []
    for name, items in head.items():
        lines += [f"{name}: " + ", ".join(f"{key} {text}" for key, text in items.items())] if name != "peers" else []
        lines += [""] if as_markdown else []
    lines += [f"{bullet}{key} {text}" for key, text in head.get("peers", {}).items()]
    lines += ["", *(f"{bullet}{remark}" for remark in [*LEGEND, *remarks])]
    for measured in done:
        table = rows(measured)
        lines += ["", f"{heading}{title(measured)}", "", *(markdown(table) if as_markdown else plain(table)), ""]
        lines += [f"{bullet}{verdict.line()}" for verdict in verdicts(measured)]
        lines += [f"{bullet}{note}" for note in notes(measured)]
    return "\n".join(lines) + "\n"


def as_json(head: dict[str, dict[str, str]], remarks: list[str], done: list[Measurement]) -> dict[str, object]:
    corpora = {}
    for measured in done:
        peers = {
            name: {
                "values": {key: value(outcome, key) for key in outcome.samples},
                "samples": outcome.samples,
                "marks": outcome.marks,
                "errors": outcome.errors,
            }
            for name, outcome in measured.outcomes.items()
        }
        corpora[measured.corpus.name] = {
            "files": len(measured.listing.sizes),
            "bytes": measured.listing.bytes,
            "entries": measured.listing.entries,
            "calibration_ms": measured.calibration,
            "peers": peers,
            "goals": [verdict._asdict() for verdict in verdicts(measured)],
        }
    return {**head, "remarks": remarks, "corpora": corpora}
