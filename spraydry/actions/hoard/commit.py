"""Committing changes to a hoard: one record, which has all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import spraydry
from spraydry.actions.fence import append_whole
from spraydry.actions.hoard.checkpoints import fold
from spraydry.errors import UsageError
from spraydry.format.entry import Entry
from spraydry.format.keys import name_of
from spraydry.format.version import MAX_CHANGES, AnyRecord, HoardRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs

Changes = tuple[tuple[str, Entry | None], ...]

_HOUSEKEEPING_SLOTS = 256
_MANY_RUNS = 128


def commit_changes(
    repository: Repository,
    hoard: str,
    changes: Mapping[str, Entry | None],
    began_at: int,
    *,
    cleared: bool = False,
    verb: str = "put",
    check: Callable[[], None] = lambda: None,
) -> int:
    """Let keys of a hoard name these files (entries without names, all they need durable by now), or nothing (None);
    the slot. With `cleared` all that the hoard held before is deleted.

    `began_at` is the newest slot when the first chunk was taken for known (see fence). `check` is called when every
    slot before was read, and may raise to give up. Not to be called in a batch. Raises UsageError for too many changes,
    CollectedMeanwhile, StoreError.
    """
    ordered = in_order(changes)

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        check()
        return record_of(hoard, ordered, previous, now_ns, cleared=cleared, verb=verb)

    needed = [(entry, None) for _, entry in ordered if entry is not None]
    slot, _ = append_whole(repository, make, needed, began_at)
    keep_house(repository, hoard, slot, len(ordered))
    return slot


def in_order(changes: Mapping[str, Entry | None]) -> Changes:
    """Changes as a record has them. Raises UsageError for too many, and for keys that cannot be."""
    if len(changes) > MAX_CHANGES:
        raise UsageError(f"one transaction changes at most {MAX_CHANGES:,} keys, not {len(changes):,}: make several")
    return tuple(sorted(changes.items(), key=lambda change: name_of(change[0])))


def record_of(
    hoard: str, changes: Changes, previous: bytes, now_ns: int, *, cleared: bool = False, verb: str = "put"
) -> HoardRecord:
    """The record that makes changes be."""
    return HoardRecord(
        format=RECORD_FORMAT,
        previous=previous,
        made_ns=now_ns,
        made_by=f"spraydry {spraydry.__version__} {verb}",
        hoard=hoard,
        cleared=cleared,
        changes=changes,
    )


def keep_house(repository: Repository, hoard: str, slot: int, changes: int) -> None:
    """What is to be done now and then when something was committed in `slot`: it looks at much, so not each time."""
    fold(repository, hoard)
    if slot % _HOUSEKEEPING_SLOTS < changes:
        repository.refresh()
        merge_runs(repository, _MANY_RUNS)
        repository.store.flush()
