"""What verbs print: names made safe for terminals, sizes and times for people, JSON for machines, tables."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from spraydry.errors import UsageError
from spraydry.wording import duration as duration
from spraydry.wording import moment as moment
from spraydry.wording import plural as plural
from spraydry.wording import printable as printable
from spraydry.wording import safe as safe
from spraydry.wording import size as size

_TORN = 20  # characters; longer words are torn where a table would not fit


def line(text: str = "") -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """A line on standard error, with the program's name; what a terminal would act on is escaped."""
    sys.stdout.flush()
    sys.stderr.write(f"spraydry: {safe(text)}\n")
    sys.stderr.flush()


drawing: list[Callable[[str], None]] = []  # who draws on the terminal now, and so must write lines there itself


def notice(text: str) -> None:
    """A line as `warn` writes it, for whoever watches: where standard error is a terminal."""
    if sys.stderr.isatty():
        (drawing[-1] if drawing else warn)(safe(text))


def point(text: str, place: int) -> None:
    """A text on standard error, and below it a mark under the character at `place`."""
    before = printable(text[:place])
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in before)
    sys.stderr.write(f"  {printable(text)}\n  {' ' * (len(before) + wide)}^\n")


def raw(text: bytes | memoryview) -> None:
    """Bytes on standard output, as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text)


def text(lines: Iterable[bytes]) -> None:
    """Lines of a file's content, each with its line feed: as they are, but on a terminal with what it would act on
    escaped."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.writelines(lines)
        return
    for content in lines:
        sys.stdout.write("\t".join(map(safe, os.fsdecode(content[:-1]).split("\t"))) + "\n")


def refuse_terminal(what: str, instead: str) -> None:
    """Raises UsageError where standard output is a terminal, which bytes would only confuse."""
    if sys.stdout.isatty():
        raise UsageError(f"{what} is nothing for a terminal: write {instead}")


def print_json(value: Any) -> None:
    """One JSON document. Frozen dataclasses and named tuples become mappings; names that are bytes become text in
    which a byte that is no UTF-8 is a lone surrogate (\\udcNN), so that `os.fsencode` gives it back."""
    line(json.dumps(_plain(value), indent=2))


def print_json_list(values: Iterable[Any]) -> None:
    """One JSON array, an element a line, without holding them all."""
    before = "[\n "
    for value in values:
        sys.stdout.write(before + json.dumps(_plain(value)))
        before = ",\n "
    line("\n]" if before[0] == "," else "[]")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(item) for key, item in value._asdict().items()}
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> None:
    """A table; the columns numbered in `right` are aligned to the right. On a terminal rich draws it, never wider than
    that, and where words would be torn for it each row is a paragraph; otherwise plain columns, so that tools can cut
    them."""
    to_right = set(right)
    if not sys.stdout.isatty():
        held: list[Sequence[str]] = [heads, *rows]
        widths = [max(len(row[column]) for row in held) for column in range(len(heads))]
        for row in held:
            cells = (
                cell.rjust(width) if column in to_right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            line("  ".join(cells).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    shown: list[Sequence[str]] = list(rows)
    words = [max(_longest_word(row[column]) for row in (heads, *shown)) for column in range(len(heads))]
    if sum(words) + 3 * len(words) > console.width:
        _paragraphs(heads, shown)
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(heads):
        justify: Literal["left", "right"] = "right" if column in to_right else "left"
        drawn.add_column(Text(head), justify=justify, overflow="fold", min_width=words[column])
    for row in shown:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def _longest_word(cell: str) -> int:
    """In characters; what is longer than most, such as a URL, may be torn."""
    return max((min(len(word), _TORN) for word in cell.split()), default=0)


def _paragraphs(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Each row as lines of a head and a cell, without those that are empty, and a blank line behind it."""
    width = max(map(len, heads))
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            if cell:
                line(f"{head:<{width}}  {cell}")
        line()
