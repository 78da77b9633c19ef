"""What an ingest leaves out: `--exclude` patterns and `.spraydryignore` files, both with gitignore rules."""

from __future__ import annotations

import os
from collections.abc import Sequence

IGNORE_FILE = b".spraydryignore"


class Ignore:
    """The patterns that hold in one directory: its own, and those of the directories above. Immutable."""

    def __init__(self, base: bytes, lines: Sequence[str], above: Ignore | None) -> None:
        """`base` is the directory's path from the source, empty or ending in a slash."""
        from pathspec import GitIgnoreSpec  # 20 ms that most runs need not spend

        self._base = base
        self._spec = GitIgnoreSpec.from_lines(lines)
        self._above = above

    def says(self, path: bytes, directory: bool) -> bool | None:
        """Whether the entry at `path` (from the source) is left out, by the innermost file that names it; or None."""
        level: Ignore | None = self
        while level is not None:
            name = os.fsdecode(path[len(level._base) :]) + ("/" if directory else "")
            if (said := level._spec.check_file(name).include) is not None:
                return said
            level = level._above
        return None
