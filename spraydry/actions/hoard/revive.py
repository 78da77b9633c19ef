"""Bringing back what a key named before it was deleted or overwritten."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

import msgspec

from spraydry.actions.closure import chunks_of_files
from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.history import key_history
from spraydry.errors import Conflict, CorruptData, KeyNotFound, NotFound
from spraydry.format.entry import Entry
from spraydry.repository.keys import Kept, Keys
from spraydry.repository.repository import Repository

_TOGETHER = 1000


def revive(
    repository: Repository,
    hoard: str,
    key: str,
    *,
    dry_run: bool = False,
    allowed: Callable[[Entry | None], None] = lambda _: None,
) -> Kept:
    """Let a key name what it did before it was deleted last, or overwritten with something else. What was given up by a
    collection is stored again. `allowed` gets what it names now, and may raise to give up.

    Raises HoardNotFound, KeyNotFound where it never named anything else or where that was collected, Conflict,
    UsageError.
    """
    repository.refresh()
    repository.heed()
    now = Keys(repository.log.hoards.view(hoard), repository.tree).find(key)
    allowed(now)
    before: Entry | None = None
    for event in key_history(repository, hoard, key):
        if event.entry is not None and (now is None or event.entry.content != now.content):
            before = event.entry
    if before is None:
        raise KeyNotFound(f"{hoard}/{key} never named anything else than it does")
    made_s, made_ns = divmod(time.time_ns(), 10**9)
    before = msgspec.structs.replace(before, mtime_s=made_s, mtime_ns=made_ns)
    _check_there(repository, before, f"{hoard}/{key}")

    def check() -> None:
        if Keys(repository.log.hoards.view(hoard), repository.tree).find(key) != now:
            raise Conflict(f"{hoard}/{key} was changed meanwhile: try again")

    if not dry_run:
        # From slot 0 on: whatever of it was ever condemned is stored again.
        commit_changes(repository, hoard, {key: before}, 0, verb="undelete", check=check)
    return Kept(key, before)


def _check_there(repository: Repository, entry: Entry, what: str) -> None:
    """Raises KeyNotFound where a chunk of a file is in no frame any more."""
    try:
        names = chunks_of_files(repository, [entry])
        while part := list(islice(names, _TOGETHER)):
            if not repository.catalog.chunks.places(part).keys() >= set(part):
                raise KeyNotFound(f"what {what} named was collected since: it cannot be brought back")
    except (NotFound, CorruptData) as error:
        if isinstance(error, KeyNotFound):
            raise
        raise KeyNotFound(f"what {what} named cannot be brought back: {error}") from None
