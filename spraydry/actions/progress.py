"""What a long action tells about how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Done(NamedTuple):
    """A state of work: `phase` in words (`reading`), what is done and what there is in all; None where unknown. `files`
    may be others than files: `counted` says what, as a plural."""

    phase: str
    files: int = 0
    bytes: int = 0
    total_files: int | None = None
    total_bytes: int | None = None
    counted: str = "files"


# Called often, from the thread that runs the action; cheap to call, since who listens decides what to show.
Report = Callable[[Done], None]


def unheard(done: Done) -> None:
    """The report nobody listens to."""
