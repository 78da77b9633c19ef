"""Which versions retention rules keep, and by which rule; pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Rules:
    """What to keep: the `last` versions, the newest of each of the last `daily` days that have one, likewise weeks
    (ISO, Monday first), months and years, and all with a name that matches one of `tags` (shell patterns). They add up:
    what any of them keeps is kept. Numbers are 0 or more."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A version under all its names; `day` is the local date on which it was made."""

    names: tuple[str, ...]
    day: datetime.date


def reasons(candidates: Sequence[Candidate], rules: Rules) -> list[list[str]]:
    """Why each candidate is kept, such as `daily 2026-11-21`; nothing for those that go.

    Candidates come in the order they were committed in, and that is what "newest" and "last" mean: dates only say in
    which day, week, month or year one counts, so that a clock that was wrong for a while costs no more than that.
    """
    kept: list[list[str]] = [[] for _ in candidates]
    for place in range(len(candidates) - 1, max(len(candidates) - rules.last, 0) - 1, -1):
        kept[place].append(f"last {len(candidates) - place}")
    for word, number, period in (
        ("daily", rules.daily, _day),
        ("weekly", rules.weekly, _week),
        ("monthly", rules.monthly, _month),
        ("yearly", rules.yearly, _year),
    ):
        for place, key in _newest_of_each(candidates, period)[:number]:
            kept[place].append(f"{word} {key}")
    for place, candidate in enumerate(candidates):
        kept[place] += [
            f"tag {pattern}" for pattern in rules.tags if any(fnmatchcase(name, pattern) for name in candidate.names)
        ]
    return kept


def _newest_of_each(candidates: Sequence[Candidate], period: Callable[[datetime.date], str]) -> list[tuple[int, str]]:
    """Place and period of the newest candidate of each period, the newest first."""
    found: dict[str, int] = {}
    for place in range(len(candidates) - 1, -1, -1):
        found.setdefault(period(candidates[place].day), place)
    return [(place, key) for key, place in found.items()]


def _day(day: datetime.date) -> str:
    return day.isoformat()


def _week(day: datetime.date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02}"


def _month(day: datetime.date) -> str:
    return f"{day.year}-{day.month:02}"


def _year(day: datetime.date) -> str:
    return str(day.year)
