"""The progress of a long verb: a bar on a terminal, plain lines every few seconds elsewhere, nothing with --json."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from spraydry.commands import terminal

if TYPE_CHECKING:
    from spraydry.actions.progress import Done

_BAR_EVERY_S = 0.1
_LINE_EVERY_S = 5.0
_WIDE_COLUMNS = 110


class Progress:
    """A context manager, and the `report` an action calls with Done: `with Progress(quiet=json) as progress: ...`.

    On a terminal it draws a bar with files, bytes, rate and time left, taken away at the end; otherwise it writes a
    plain line to standard error every few seconds, so that short runs write nothing. Not thread-safe.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = not quiet and sys.stderr.isatty()
        self._started = time.monotonic()
        self._phase = ""
        self._phase_started = self._started
        self._phase_first = 0
        self._next = self._started + (0 if self._terminal else _LINE_EVERY_S)
        self._bar: Any = None
        self._text_columns = 0
        self._task: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            terminal.drawing.remove(self.note)
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """How long this has been going on."""
        return time.monotonic() - self._started

    def note(self, text: str) -> None:
        """A line for people beside the bar, on standard error; also with --json, where it disturbs nobody."""
        if self._bar is not None:
            self._bar.console.print(f"spraydry: {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            terminal.warn(text)

    def __call__(self, done: Done) -> None:
        """Show a state, or do nothing when it is too early to show another."""
        if self._quiet:
            return
        now = time.monotonic()
        if done.phase != self._phase:
            self._phase, self._phase_started = done.phase, now
            self._phase_first = done.bytes
        elif now < self._next:
            return
        if self._terminal:
            self._next = now + _BAR_EVERY_S
            self._draw(done, now)
        elif now >= self._next:
            self._next = now + _LINE_EVERY_S
            terminal.warn(self._text(done, now))

    def _text(self, done: Done, now: float, width: int | None = None) -> str:
        """What is said of a state. Where that is wider than `width`, the rate is left out, then how many files: the
        time that is left is what is looked for."""
        parts = {}
        if done.files or done.total_files:
            of = f" of {done.total_files:,}" if done.total_files else ""
            parts["files"] = f"{done.files:,}{of} {done.counted}"
        if done.bytes or done.total_bytes:
            of = f" of {terminal.size(done.total_bytes)}" if done.total_bytes else ""
            parts["bytes"] = f"{terminal.size(done.bytes)}{of}"
            if (more := done.bytes - self._phase_first) > 0:
                parts["rate"] = f"{terminal.size(more / max(now - self._phase_started, 1e-3))}/s"
        left_s = self._left_s(done, now)
        left = "" if left_s is None else f" ({terminal.duration(left_s)} left)"
        while True:
            said = f"{done.phase}: {', '.join(parts.values())}" if parts else done.phase
            if width is None or len(said + left) <= width or "bytes" not in parts or len(parts) == 1:
                return said + left
            parts.pop("rate" if "rate" in parts else "files")

    def _left_s(self, done: Done, now: float) -> float | None:
        spent = now - self._phase_started
        share = _share(done)
        return spent * (1 - share) / share if 0.001 < share < 1 and spent > 1 else None

    def _draw(self, done: Done, now: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            console = Console(stderr=True)
            bar_columns = 24 if console.width >= _WIDE_COLUMNS else 8
            self._text_columns = console.width - bar_columns - 1
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=bar_columns),
                console=console,
                transient=True,
                auto_refresh=False,
            )
            self._bar.start()
            terminal.drawing.append(self.note)
            self._task = self._bar.add_task("", total=None)
        known = done.total_bytes is not None or done.total_files is not None
        text = self._text(done, now, self._text_columns)
        self._bar.update(self._task, description=text, completed=_share(done), total=1.0 if known else None)
        self._bar.refresh()


def _share(done: Done) -> float:
    """How much is done, 0 to 1: by bytes where their sum is known, else by files; 0 where nothing is known."""
    if done.total_bytes:
        return min(done.bytes / done.total_bytes, 1.0)
    return min(done.files / done.total_files, 1.0) if done.total_files else 0.0
