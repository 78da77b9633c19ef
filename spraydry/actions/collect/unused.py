"""Dictionaries that no frame uses, and that new frames do not use either, are given up."""

from __future__ import annotations

from collections.abc import Iterable

from spraydry.actions.collect.deleting import stored_dictionaries
from spraydry.actions.collect.planning import Plan
from spraydry.errors import CorruptData
from spraydry.repository.condemned import drop
from spraydry.repository.leases import heeded
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository

_TRIES = 5


def unused(repository: Repository, marks: Marks, plan: Plan, going: Iterable[bytes] = ()) -> dict[bytes, int]:
    """The dictionaries that no frame uses but those that are `going`, with their sizes.

    A frame of which nobody knows what it uses may use any: so there are none while somebody writes, while there are
    frames that no run names, runs that are damaged or chunks that are missing, or while a store is silent.
    """
    log = repository.log
    sizes = stored_dictionaries(repository)
    for name in {*log.dictionaries.values(), *log.dropped}:
        sizes.pop(name, None)
    if not sizes or plan.missing or repository.damaged_runs or repository.store.silent:
        return {}
    if any(lease.writing for lease in heeded(repository).values()):
        return {}
    used = marks.dictionaries(going)
    return {} if used is None else {name: size for name, size in sizes.items() if name not in used}


def drop_unused(repository: Repository, marks: Marks, plan: Plan) -> dict[bytes, int]:
    """Give up the dictionaries that no frame uses; which, with their sizes. A writer that used one of them all the same
    stores again what it needs. None of them where others commit so often that it cannot be told."""
    for _ in range(_TRIES):
        repository.refresh()
        names = unused(repository, marks, plan)
        if not names:
            return {}
        try:
            plan.weighed_at = drop(repository, names, "gc", plan.check)
            return names
        except Plan.Stale:
            plan.catch_up()
        except CorruptData:
            if set(repository.log.dictionaries.values()).isdisjoint(names):
                raise
            # One of them was taken into use meanwhile.
    return {}
