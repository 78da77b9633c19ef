"""Collecting what nothing names: marked from the log, condemned in it, deleted after a grace time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from spraydry.actions.collect.deleting import Due, delete_dictionaries_due, delete_due, dictionaries_due, due
from spraydry.actions.collect.planning import Plan
from spraydry.actions.collect.rewriting import rewrite
from spraydry.actions.collect.unused import drop_unused, unused
from spraydry.actions.progress import Report, unheard
from spraydry.errors import SlotTaken, StoreFull, StoreUnavailable, UsageError
from spraydry.repository.condemned import RECORD_FRAMES, clean_runs, condemn
from spraydry.repository.leases import heeded
from spraydry.repository.marks import Life, Marks
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs

DAY_NS = 86_400 * 10**9
DEFAULT_GRACE_NS = 7 * DAY_NS
DEFAULT_BELOW = 0.6
_TRIES = 50


@dataclass
class Collected:
    """What a run did, or would do; bytes and numbers of frames.

    `living_bytes` are the plain bytes that something names, each chunk counted once; `dropped_bytes` those that nothing
    names any more, of which `staying_bytes` stay in frames with enough life. `condemned` frames were given up by this
    run, in the log; `deleted` ones are gone; those that `wait` are deleted after `waiting_until_ns`; and the same of
    dictionaries: given up are those that no frame uses at the end of the run. What lived in `rewritten` frames was
    stored in `new` ones. `leases` were heeded (what they are of), and spared `spared_frames`. `missing_chunks` are
    named and in no frame. `damaged` frames (with the reason) could not be rewritten. With `clock_behind` the clock is
    before the newest record of the log, so that nothing counts as old. `full`: there was no room to rewrite more.
    """

    versions: int = 0
    hoards: int = 0
    living_bytes: int = 0
    dropped_bytes: int = 0
    staying_bytes: int = 0
    condemned_frames: int = 0
    condemned_bytes: int = 0
    deleted_frames: int = 0
    deleted_bytes: int = 0
    waiting_frames: int = 0
    waiting_bytes: int = 0
    waiting_until_ns: int | None = None
    condemned_dictionaries: int = 0
    condemned_dictionary_bytes: int = 0
    deleted_dictionaries: int = 0
    deleted_dictionary_bytes: int = 0
    waiting_dictionaries: int = 0
    waiting_dictionary_bytes: int = 0
    rewritten_frames: int = 0
    rewritten_bytes: int = 0
    new_frames: int = 0
    new_bytes: int = 0
    spared_frames: int = 0
    leases: list[str] = field(default_factory=list)
    missing_chunks: int = 0
    damaged: list[tuple[bytes, str]] = field(default_factory=list)
    clock_behind: bool = False
    full: bool = False


def gc(
    repository: Repository,
    *,
    grace_ns: int = DEFAULT_GRACE_NS,
    below: float = DEFAULT_BELOW,
    dry_run: bool = False,
    report: Report = unheard,
) -> Collected:
    """Give up what no version, tag or lease names, and delete what was given up `grace_ns` ago or before.

    Of frames of whose plain bytes less than the part `below` lives, what lives is stored in new ones. Readers and
    writers go on: a writer under which something was condemned notices before it commits. It may be interrupted or
    killed anywhere, and the next one finishes what it began. Raises CorruptData where a version cannot be walked,
    StoreUnavailable where a store does not answer, StoreReadOnly, UsageError.
    """
    if not 0 <= below <= 1:
        raise UsageError(f"a part of {below:.0%} cannot be: give one from 0% to 100%")
    if grace_ns < 0:
        raise UsageError("a grace time is not negative")
    if repository.opened.origin is not None:
        raise UsageError("a lazy clone keeps what its origin has: `spraydry pull` makes it whole first")
    repository.refresh()
    if repository.store.silent or repository.behind:
        raise StoreUnavailable(
            f"{', '.join(repository.store.silent)} does not answer: what it holds cannot be told from what is gone"
        )
    done = Collected()
    leases = heeded(repository)
    done.leases = [lease.what for lease in leases.values()]
    with Marks(repository.catalog) as marks:
        plan = Plan(repository, marks, leases, report)
        plan.note_stored()
        waiting, waiting_dictionaries = due(repository, marks, grace_ns), dictionaries_due(repository, grace_ns)
        if not dry_run:  # what gives room comes first
            _delete(repository, marks, waiting, done, report)
            _delete_dictionaries(repository, waiting_dictionaries, done)
        plan.mark()
        done.versions, done.hoards = len(plan.versions), len(plan.hoards)
        done.living_bytes, done.dropped_bytes = marks.living_bytes(), marks.dead_bytes()
        done.missing_chunks, done.spared_frames = plan.missing, plan.spared
        sparse = list(marks.frames(below, at_least=1)) if below else []
        dead = plan.dead()
        if dry_run:
            _foretell(marks, waiting, dead, sparse, grace_ns, done, below)
            going = {name for frames in waiting.slots.values() for name in frames}
            if grace_ns == 0:
                going |= dead.keys() | {life.info.name for life in sparse}
            _foretell_dictionaries(unused(repository, marks, plan, going), waiting_dictionaries, grace_ns, done)
            return done
        _condemn(repository, plan, dead, done)
        if grace_ns == 0:
            _delete(repository, marks, due(repository, marks, 0), done, report)
        for part in plan.portions(sparse):
            try:
                rewritten = rewrite(repository, marks, part, report)
            except StoreFull:
                done.full = True
                break
            done.damaged += rewritten.damaged
            done.rewritten_bytes += rewritten.plain_bytes
            done.new_frames += rewritten.new_frames
            done.new_bytes += rewritten.new_bytes
            emptied = plan.catch_up()
            done.rewritten_frames += len(emptied)
            _condemn(repository, plan, emptied, done)
            if grace_ns == 0:
                _delete(repository, marks, due(repository, marks, 0), done, report)
        done.staying_bytes = marks.dead_bytes()
        try:
            dropped = drop_unused(repository, marks, plan)
            done.condemned_dictionaries, done.condemned_dictionary_bytes = len(dropped), sum(dropped.values())
            if grace_ns == 0:
                _delete_dictionaries(repository, dictionaries_due(repository, 0), done)
        except StoreFull:
            done.full = True
        _tell_waiting(due(repository, marks, grace_ns), dictionaries_due(repository, grace_ns), done)
        if done.deleted_frames:
            try:
                clean_runs(repository)
            except StoreFull:
                done.full = True
        merge_runs(repository)
        with suppress(StoreFull):
            repository.log.pack(repository.log.head[0])
        repository.store.flush()
    return done


def _condemn(repository: Repository, plan: Plan, dead: dict[bytes, int], done: Collected) -> None:
    """Condemn frames, but for those that something came to name meanwhile."""
    waiting = dict(dead)
    for _ in range(_TRIES):
        try:
            for name in plan.spared_now() & waiting.keys():
                del waiting[name]
            while waiting:
                part = sorted(waiting)[:RECORD_FRAMES]
                (slot,) = condemn(repository, part, "gc", partial(plan.check, frozenset(part)))
                plan.weighed_at = slot
                for name in part:
                    done.condemned_frames += 1
                    done.condemned_bytes += waiting.pop(name)
            return
        except Plan.Stale:
            standing = plan.catch_up()
            waiting = {name: size for name, size in waiting.items() if name in standing}
    raise SlotTaken("others committed so often that nothing could be condemned; run it again")


def _delete(repository: Repository, marks: Marks, found: Due, done: Collected, report: Report) -> None:
    for frames, size in delete_due(repository, marks, found, "gc", report):
        done.deleted_frames += frames
        done.deleted_bytes += size


def _delete_dictionaries(repository: Repository, found: Due, done: Collected) -> None:
    gone = delete_dictionaries_due(repository, found, "gc")
    done.deleted_dictionaries += len(gone)
    done.deleted_dictionary_bytes += sum(gone.values())


def _tell_waiting(frames: Due, dictionaries: Due, done: Collected) -> None:
    done.waiting_frames, done.waiting_bytes = frames.waiting, frames.waiting_bytes
    done.waiting_dictionaries, done.waiting_dictionary_bytes = dictionaries.waiting, dictionaries.waiting_bytes
    done.waiting_until_ns = min(
        (until for until in (frames.until_ns, dictionaries.until_ns) if until is not None), default=None
    )
    done.clock_behind = frames.clock_behind


def _foretell_dictionaries(dropped: dict[bytes, int], waiting: Due, grace_ns: int, done: Collected) -> None:
    """The numbers a run would have for dictionaries; those for frames are there."""
    done.condemned_dictionaries, done.condemned_dictionary_bytes = len(dropped), sum(dropped.values())
    done.deleted_dictionaries, done.deleted_dictionary_bytes = waiting.count, waiting.bytes
    done.waiting_dictionaries, done.waiting_dictionary_bytes = waiting.waiting, waiting.waiting_bytes
    if grace_ns == 0:
        done.deleted_dictionaries += len(dropped)
        done.deleted_dictionary_bytes += sum(dropped.values())
    else:
        done.waiting_dictionaries += len(dropped)
        done.waiting_dictionary_bytes += sum(dropped.values())
    if done.waiting_dictionaries:
        until_ns = waiting.until_ns or time.time_ns() + grace_ns
        done.waiting_until_ns = min(done.waiting_until_ns or until_ns, until_ns)


def _foretell(
    marks: Marks,
    waiting: Due,
    dead: dict[bytes, int],
    sparse: Sequence[Life],
    grace_ns: int,
    done: Collected,
    below: float,
) -> None:
    """The numbers a run would have."""
    done.condemned_frames = len(dead) + len(sparse)
    done.condemned_bytes = sum(dead.values()) + sum(life.info.stored for life in sparse)
    done.rewritten_frames, done.rewritten_bytes = len(sparse), sum(life.bytes for life in sparse)
    done.staying_bytes = marks.staying_bytes(below)
    done.deleted_frames, done.deleted_bytes = waiting.count, waiting.bytes
    done.waiting_frames, done.waiting_bytes = waiting.waiting, waiting.waiting_bytes
    done.waiting_until_ns, done.clock_behind = waiting.until_ns, waiting.clock_behind
    if grace_ns == 0:
        done.deleted_frames += done.condemned_frames
        done.deleted_bytes += done.condemned_bytes
    elif done.condemned_frames:
        done.waiting_frames += done.condemned_frames
        done.waiting_bytes += done.condemned_bytes
        done.waiting_until_ns = waiting.until_ns or time.time_ns() + grace_ns
