"""What verbs print: names made safe for terminals, sizes and times for people, JSON for machines, tables."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spraydry.errors import UsageError
from spraydry.wording import duration as duration
from spraydry.wording import moment as moment
from spraydry.wording import plural as plural
from spraydry.wording import printable as printable
from spraydry.wording import safe as safe
from spraydry.wording import size as size


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
    that; otherwise plain columns, so that tools can cut them."""
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

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(heads):
        drawn.add_column(Text(head), justify="right" if column in to_right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(soft_wrap=False).print(drawn)
