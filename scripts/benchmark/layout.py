"""Tables, lists and verdicts as plain text, or as Markdown that fits below a heading of the README."""

from __future__ import annotations

from benchmark.goals import Verdict

Head = dict[str, dict[str, str]]  # what was measured on and with: of each group names and values


def plain(table: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]


def markdown(table: list[list[str]], rule: str = "--:") -> list[str]:
    lines = ["| " + " | ".join(cell.replace("  ", "… ") for cell in row) + " |" for row in table]
    return [lines[0], "|---" + f"|{rule}" * (len(table[0]) - 1) + "|", *lines[1:]]


def bullets(lines: list[str], as_markdown: bool) -> list[str]:
    return [f"{'- ' if as_markdown else '  '}{line}" for line in lines]


def head_lines(head: Head, as_markdown: bool) -> list[str]:
    """A line per group; a group of long values (`peers`) has a line for each of them."""
    lines = []
    for name, items in head.items():
        if name == "peers":
            lines += [f"{key} {text}" for key, text in items.items()]
        else:
            lines.append(f"{name}: " + ", ".join(f"{key} {text}" for key, text in items.items()))
    return bullets(lines, as_markdown)


def section(
    title: str, table: list[list[str]], verdicts: list[Verdict], notes: list[str], as_markdown: bool
) -> list[str]:
    """One table with what is said below it."""
    lines = ["", f"{'### ' if as_markdown else ''}{title}", ""]
    lines += markdown(table) if as_markdown else plain(table)
    if verdicts and as_markdown:
        judged = [[verdict.goal, verdict.measured or "-", verdict.word()] for verdict in verdicts]
        lines += ["", *markdown([["must reach", "measured", "verdict"], *judged], "---")]
    elif verdicts:
        lines += ["", *(f"  {verdict.line()}" for verdict in verdicts)]
    if notes:
        lines += ["", *bullets(notes, as_markdown)]
    return lines
