"""What every phase is given, and what it gives back."""

from __future__ import annotations

import os
import statistics
from typing import IO, NamedTuple

from benchmark.backends import Sqlite
from benchmark.goals import Verdict
from benchmark.peer import PeerError
from benchmark.reading import Drained, drain


class Row(NamedTuple):
    """A number, as often as it was measured. Where a goal is told, the median must be at most its limit; with `least`,
    at least that."""

    what: str
    samples: list[float]
    unit: str
    goal: str = ""
    limit: float | None = None
    least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def cells(self) -> list[str]:
        many = len(self.samples) > 1
        spread = f"{min(self.samples):.4g} to {max(self.samples):.4g}" if many else ""
        return [f"{self.what}, {self.unit}", f"{self.median:.4g}", spread]

    def verdict(self) -> Verdict | None:
        if self.limit is None:
            return None
        reached = self.median >= self.limit if self.least else self.median <= self.limit
        return Verdict(self.goal, f"{self.median:.4g} {self.unit}", reached)


class Setting(NamedTuple):
    """`scale` 1 is the real thing, less is a try; `limit` are the seconds that one command may take."""

    folder: str
    corpora: str
    log: IO[bytes]
    repeat: int
    scale: float
    limit: float

    def repository(self, name: str) -> Sqlite:
        """An empty repository in one file, with a machine of its own that remembers nothing."""
        backend = Sqlite(os.path.join(self.folder, name), self.log)
        if reason := backend.missing():
            raise PeerError(reason)
        backend.reset()
        return backend

    def spray(self, repository: Sqlite, *words: str) -> Drained:
        """Run spraydry to its end, and count what it prints."""
        done = drain(repository.words(*words), self.folder, self.limit, self.log, repository.environment())
        if done.cut:
            raise PeerError(f"spraydry {words[0]} took more than {self.limit:.0f} s")
        return done
