"""Lines of a text that a pattern fits, as grep has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from spraydry.actions.find import expression
from spraydry.actions.grep.literal import literal

# With what looks around, means the ends of the text, or gives nothing back, an expression may fit a line and not fit
# there in the whole text.
_LINE_BY_LINE = re.compile(rb"\(\?(?!:|P<)|\\[AZ]|[*+?}]\+")


class Line(NamedTuple):
    """A line of a file, counted from 1, without its line feed; `fits` is False for those around a match."""

    number: int
    text: bytes
    fits: bool


class Pattern:
    """A compiled pattern; never blocks, threads may share it."""

    def __init__(self, pattern: bytes, *, fixed: bool = False, ignore_case: bool = False, words: bool = False) -> None:
        """`fixed`: the very bytes; `words`: with no letter, digit or _ on either side. Letters beyond ASCII are bytes
        like any others. Raises UsageError for what is no regular expression."""
        if not fixed:
            expression(pattern)  # alone, so that an error is told at its place
        source = re.escape(pattern) if fixed else pattern
        self._line_by_line = not fixed and _LINE_BY_LINE.search(pattern) is not None
        if words:
            source = rb"(?<!\w)(?:%b)(?!\w)" % source
        self._expression = expression(source, ignore_case, re.MULTILINE)
        must = pattern if fixed else literal(pattern)
        self._ignore_case = ignore_case
        self._must = must.lower() if ignore_case else must

    def may_fit(self, text: bytes) -> bool:
        """False where the text certainly has no line that fits: quick."""
        return not self._must or self._must in (text.lower() if self._ignore_case else text)

    def fits(self, text: bytes) -> bool:
        """Whether some line of a text fits."""
        return next(self._spans(text), None) is not None

    def lines(self, text: bytes, before: int = 0, after: int = 0, first: int = 1) -> Iterator[Line]:
        """The lines that fit, with so many around each; the first line of the text has the number `first`."""
        number, at = first, 0  # of the line that begins at `at`, behind what was told
        owed = 0  # lines still to be told behind the last match
        for start, end in self._spans(text):
            between = text.count(b"\n", at, start)
            if before or owed:
                gap = text[at:start].split(b"\n")
                told = min(owed, between)
                for place in (*range(told), *range(max(told, between - before), between)):
                    yield Line(number + place, gap[place], False)
            number += between
            yield Line(number, text[start:end], True)
            number, at, owed = number + 1, end + 1, after
        for _ in range(owed):
            if at >= len(text):
                return
            end = text.find(b"\n", at)
            end = len(text) if end < 0 else end
            yield Line(number, text[at:end], False)
            number, at = number + 1, end + 1

    def _spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of each line that fits. A match in the whole text tells which line to look at: lines before it
        have none, for whatever fits a line alone fits it there, too."""
        if not self.may_fit(text):
            return
        at, search = 0, self._expression.search
        while at < len(text):
            if self._line_by_line:
                start = at
            elif (found := search(text, at)) is None:
                return
            else:
                start = text.rfind(b"\n", at, found.start()) + 1 or at
            end = text.find(b"\n", start)
            end = len(text) if end < 0 else end
            if start < len(text) and search(text[start:end]) is not None:
                yield start, end
            at = end + 1
