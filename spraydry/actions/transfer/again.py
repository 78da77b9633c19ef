"""Sending again what counted on something in the target that was collected meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from spraydry.errors import CollectedMeanwhile
from spraydry.repository.leases import Lease, hold
from spraydry.repository.repository import Repository

_TRIES = 5


def until_whole(target: Repository, attempt: Callable[[Lease], None]) -> None:
    """Call `attempt` until nothing that it counted on in the target was collected before it had committed. The lease
    keeps what it stores there. Raises CollectedMeanwhile after five times, and what `attempt` raises."""
    with ExitStack() as stack:
        lease = stack.enter_context(hold(target, "a transfer", writing=True))
        for left in reversed(range(_TRIES)):
            try:
                attempt(lease)
                return
            except CollectedMeanwhile:
                if not left:
                    raise
            # Others collect just now, so what is sent again is listed from the first.
            lease = stack.enter_context(hold(target, "a transfer", writing=True, at_once=True))
            target.refresh()
