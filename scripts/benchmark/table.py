"""What is shown of the peers on the corpora: a table of the metrics for each, the goals, and all as JSON."""

from __future__ import annotations

from benchmark import layout
from benchmark.goals import verdicts
from benchmark.layout import Head
from benchmark.measure import CUT, REBUILT, Measurement
from benchmark.metrics import METRICS, ratio, value

SUBJECT = "spraydry"
MARKS = {CUT: "~", REBUILT: "="}
LEGEND = [
    "Medians. (2.0x): spraydry, engine fuse, is twice as good. MB = 10^6 bytes. Memory: the most in any round.",
    "~ cut off at the cap: the rate of the part done, and no second (warm) pass after it.",
    "= an image is made anew; its v2 holds both versions.",
]


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


def report(head: Head, remarks: list[str], done: list[Measurement], as_markdown: bool) -> str:
    """The whole result: the machine and the tools, then a table and the verdicts per corpus."""
    lines = [*layout.head_lines(head, as_markdown), "", *layout.bullets([*LEGEND, *remarks], as_markdown)]
    for measured in done:
        lines += layout.section(title(measured), rows(measured), verdicts(measured), notes(measured), as_markdown)
    return "\n".join(lines) + "\n"


def as_json(head: Head, remarks: list[str], done: list[Measurement]) -> dict[str, object]:
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
