"""What is shown of many files and of growth: tables, goals, JSON."""

from __future__ import annotations

from benchmark import layout
from benchmark.goals import CACHE_MB, Verdict
from benchmark.layout import Head
from benchmark.measure import CUT, Outcome
from benchmark.metrics import Metric, value
from benchmark.scale import Piece, Tree

ENGINES = ("fuse", "erofs")
INGEST_METRICS = [
    Metric("ingest.s", "ingest, s", False, 1),
    Metric("ingest.us", "  us/file", False, 1),
    Metric("ingest.cpu", "  CPU us/file", False, 1),
    Metric("ingest.maker", "  making the stream, CPU us/file", False, 1),
    Metric("ingest.fixed", "  a fixed piece of work before it, ms", False),
    Metric("ingest.peak", "ingest peak memory, MB", False),
    Metric("stored.mb", "repository, MB", False, 1),
    Metric("stored.per", "  bytes/file", False),
]
MOUNT_METRICS = [
    Metric("mount.ms", "mount to first ls, ms", False),
    Metric("mount.first.ms", "  the first after the ingest, ms", False),
    Metric("find.rate", "find -ls, entries/s", True),
    Metric("stat.p50", "look-up of random paths, p50 ms", False, 3),
    Metric("stat.p99", "  p99 ms", False, 3),
    Metric("mount.peak", "mount peak memory, MB", False),
]
LEGEND = [
    "tree: dozens of files in a folder, folders some levels deep. flat: all in one folder. Files of up to 640 bytes.",
    "MB = 10^6 bytes. Memory: the most of all mounts. ~ cut off at the cap: the rate of the part done.",
    "Ingest reads a tar stream; what makes it shares the CPUs with it.",
    "A fixed piece of work, the same before each ingest, tells how even the machine was.",
]
SAME = 1.25  # times the time per file, with ten times the files
KEPT = 0.8  # of the first rate, at the end

Trees = dict[Tree, Outcome]


def metrics() -> list[Metric]:
    mounts = [
        metric._replace(key=f"{engine}.{metric.key}", title=f"{metric.title} ({engine})")
        for engine in ENGINES
        for metric in MOUNT_METRICS
    ]
    return [*INGEST_METRICS, *mounts]


def tree_rows(trees: Trees) -> list[list[str]]:
    table = [["", *(tree.name for tree in trees)]]
    for metric in metrics():
        numbers = [value(outcome, metric.key) for outcome in trees.values()]
        marks = ["~" if outcome.marks.get(metric.key) == CUT else "" for outcome in trees.values()]
        if any(number is not None for number in numbers):
            cells = ["-" if number is None else f"{number:.{metric.digits}f}" for number in numbers]
            table.append([metric.title, *(cell + mark for cell, mark in zip(cells, marks, strict=True))])
    return table


def tree_verdicts(trees: Trees) -> list[Verdict]:
    mounts = [f"{engine}.mount" for engine in ENGINES]
    return [
        _within("ingest within 300 MB of memory", trees, ["ingest.peak"], 300, "MB"),
        _within("mount to first ls below 300 ms", trees, [f"{mount}.ms" for mount in mounts], 300, "ms"),
        _within(
            "mount within 100 MB of memory beyond its cache of 256 MiB",
            trees,
            [f"{mount}.peak" for mount in mounts],
            100 + CACHE_MB,
            "MB",
        ),
        _even(trees),
    ]


def _within(goal: str, trees: Trees, keys: list[str], limit: float, unit: str) -> Verdict:
    said, numbers = [], []
    for tree, outcome in trees.items():
        for key in keys:
            number = value(outcome, key)
            label = f"{tree.name} {key.split('.')[0]}" if len(keys) > 1 else tree.name
            said.append(f"{label}: {'-' if number is None else f'{number:.0f} {unit}'}")
            numbers.append(number)
    reached = None if None in numbers else True
    if any(number is not None and number > limit for number in numbers):
        reached = False
    return Verdict(goal, "; ".join(said), reached)


def _even(trees: Trees) -> Verdict:
    """Ten times the files take ten times as long: between the least and the most of the same kind."""
    goal = f"time per file at most {SAME} times that of the smallest tree of the kind"
    said, reached = [], None
    for kind in sorted({tree.kind for tree in trees}):
        sizes = sorted(tree for tree in trees if tree.kind == kind)
        least, most = (value(trees[tree], "ingest.us") for tree in (sizes[0], sizes[-1]))
        if len(sizes) > 1 and least and most:
            said.append(f"{kind}: {most / least:.2f} times")
            reached = reached is not False and most / least <= SAME
    return Verdict(goal, "; ".join(said), reached)


# --- Growth


def milestones(pieces: list[Piece], at: list[float]) -> list[tuple[Piece, float]]:
    """The pieces that reach each of so many MB, with the mean rate since the one before."""
    found, size, wall = [], 0.0, 0.0
    wanted = sorted(at)
    for piece in pieces:
        size, wall = size + piece.size, wall + piece.wall
        if wanted and piece.inserted + piece.size / 2 >= wanted[0]:
            while wanted and piece.inserted + piece.size / 2 >= wanted[0]:
                wanted.pop(0)
            found.append((piece, size / wall))
            size = wall = 0.0
    return found


def growth_rows(pieces: list[Piece], at: list[float]) -> list[list[str]]:
    titles = [
        "last piece, MB/s",
        "since the row above, MB/s",
        "CPU s/GB",
        "peak MB",
        "repository, MB",
        "fixed work, ms",
    ]
    table = [["inserted, GB", *titles]]
    for piece, rate in milestones(pieces, at):
        numbers = [f"{piece.size / piece.wall:.1f}", f"{rate:.1f}", f"{piece.cpu / piece.size * 1e3:.1f}"]
        numbers += [f"{number:.0f}" for number in (piece.peak, piece.stored, piece.fixed)]
        table.append([f"{piece.inserted / 1e3:.2f}", *numbers])
    return table


def growth_verdict(pieces: list[Piece], at: list[float]) -> Verdict:
    goal = f"insert rate at the end at least {KEPT:.0%} of that at the beginning"
    found = milestones(pieces, at)
    if len(found) < 2:
        return Verdict(goal, "", None)
    share = found[-1][1] / found[0][1]
    return Verdict(goal, f"{share:.0%}", share >= KEPT)


# --- All of it


def report(
    head: Head, remarks: list[str], trees: Trees, pieces: list[Piece], at: list[float], as_markdown: bool
) -> str:
    lines = [*layout.head_lines(head, as_markdown), "", *layout.bullets([*LEGEND, *remarks], as_markdown)]
    if trees:
        errors = [f"{tree.name}: {error}" for tree, outcome in trees.items() for error in outcome.errors]
        lines += layout.section("Many files", tree_rows(trees), tree_verdicts(trees), errors, as_markdown)
    if pieces:
        judged = [growth_verdict(pieces, at)]
        lines += layout.section("A repository that grows", growth_rows(pieces, at), judged, [], as_markdown)
    return "\n".join(lines) + "\n"


def as_json(head: Head, remarks: list[str], trees: Trees, pieces: list[Piece], at: list[float]) -> dict[str, object]:
    verdicts = [*(tree_verdicts(trees) if trees else []), *([growth_verdict(pieces, at)] if pieces else [])]
    return {
        **head,
        "remarks": remarks,
        "trees": {
            tree.name: {"samples": outcome.samples, "marks": outcome.marks, "errors": outcome.errors}
            for tree, outcome in trees.items()
        },
        "growth": [piece._asdict() for piece in pieces],
        "goals": [verdict._asdict() for verdict in verdicts],
    }
