"""Bringing every frame to as many copies as it should have, or to its place, with the progress of every action."""

from __future__ import annotations

from collections.abc import Callable

from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import UsageError
from spraydry.repository.repository import Repository
from spraydry.stores.over import heal as spreads
from spraydry.stores.over.indexes import Healed
from spraydry.stores.over.spread import Spread


def heal(repository: Repository, progress: Report = unheard) -> Healed:
    """Deliver what stores missed, replace damaged and missing copies, empty the drained stores. Raises UsageError for a
    repository on one store, StoreError."""
    return _run(repository, spreads.heal, progress)


def rebalance(repository: Repository, progress: Report = unheard) -> Healed:
    """As `heal`, and move frames until each store has its share."""
    return _run(repository, spreads.rebalance, progress)


def _run(repository: Repository, work: Callable[[Spread, spreads.Report], Healed], progress: Report) -> Healed:
    spread = repository.opened.spread
    if spread is None:
        raise UsageError("the repository lies on one store: `spraydry verify` checks what is there")

    def report(done: Healed) -> None:
        total = round(done.checked / done.fraction) if done.fraction > 0.001 else None
        progress(Done("looking at copies", done.checked, done.copied_bytes, total))

    return work(spread, report)
