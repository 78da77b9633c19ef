"""Condemned frames and dictionaries: given up in the log, deleted only when the log says so too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

import spraydry
from spraydry.errors import CorruptData, StoreError, ValueNotFound
from spraydry.format.run import frames_in_run, table_bytes
from spraydry.format.version import AnyRecord, CollectRecord, CondemnRecord, DropRecord
from spraydry.parallel import ordered_map
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.runs import replace_runs

RECORD_FRAMES = 30_000  # in one record, of 1 MB
_DELETED_TOGETHER = 256  # so many frames leave a SQLite file in one transaction, which takes as much beside it
_RUNS_BYTES = 4 << 20  # of index runs, written anew at a time: decoded, a row takes six times as much
_FIRST_BYTES = 64 << 10


def condemn(
    repository: Repository, names: Collection[bytes], verb: str, check: Callable[[], None] = lambda: None
) -> list[int]:
    """Give frames up: nothing may count on them from the slot on that says so. They stay where they are. The slots.

    `check` is called before each record, when every slot before it has been read; it raises where what came meanwhile
    may rest on these frames, and then nothing more is condemned.
    """
    ordered, slots = sorted(names), []
    for at in range(0, len(ordered), RECORD_FRAMES):
        part = tuple(ordered[at : at + RECORD_FRAMES])

        def make(previous: bytes, now_ns: int, part: tuple[bytes, ...] = part) -> AnyRecord:
            check()
            return CondemnRecord(
                format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_made_by(verb), frames=part
            )

        with repository.committing():
            slot, _ = repository.log.append(make)
            repository.remember_head()
        slots.append(slot)
    return slots


def drop(repository: Repository, names: Collection[bytes], verb: str, check: Callable[[], None]) -> int:
    """Give dictionaries up, and with them every frame that uses one, whenever it was or is stored; the slot. They stay
    where they are. `check` as for `condemn`; CorruptData for one that is in use."""

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        check()
        return DropRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=now_ns,
            made_by=_made_by(verb),
            dictionaries=tuple(sorted(names)),
        )

    with repository.committing():
        slot, _ = repository.log.append(make)
        repository.remember_head()
    return slot


def collect(repository: Repository, slot: int, verb: str) -> bool:
    """Commit that what was condemned in a slot is deleted from now on; False if it was pardoned."""

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        for standing, _, collected in _given_up(repository):
            if standing == slot and not collected:
                return CollectRecord(
                    format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=_made_by(verb), slot=slot
                )
        raise _AsBefore

    try:
        with repository.committing():
            repository.log.append(make)
            repository.remember_head()
    except _AsBefore:
        repository.remember_head()
        return any(standing == slot for standing, _, _ in _given_up(repository))
    return True


def _given_up(repository: Repository) -> Iterator[tuple[int, AnyRecord, bool]]:
    return chain(repository.log.sentences(), repository.log.drops())


class _AsBefore(Exception):
    pass


def delete_frames(repository: Repository, names: Sequence[bytes]) -> Iterator[int]:
    """Delete frames of slots that were collected; how many are gone, after each batch.

    Before the runs that name them are written anew: that takes room, and this gives it. What such runs say of them
    counts nowhere, for the log says that they are gone.
    """
    for at in range(0, len(names), _DELETED_TOGETHER):
        part = names[at : at + _DELETED_TOGETHER]
        with repository.batch():
            repository.store.delete("frames", [name.hex() for name in part])
            repository.catalog.bury(part)
        yield at + len(part)


def delete_dictionaries(repository: Repository, names: Collection[bytes]) -> None:
    """Delete dictionaries of slots that were collected."""
    with repository.batch():
        repository.store.delete("dictionaries", [name.hex() for name in sorted(names)])


def clean_runs(repository: Repository) -> None:
    """Write the index runs that name frames of collected slots anew, without them. Raises StoreFull; what is damaged,
    or another process works on, is left to the next time."""
    gone = {name for _, record, collected in repository.log.sentences() if collected for name in record.frames}
    if not gone:
        return
    names: list[str] = []
    held = 0
    # Only those the catalog has taken in: what is put in their place counts as taken.
    taken = repository.catalog.runs()
    runs = {stored.name: stored.size for stored in list(repository.store.list("index")) if stored.name in taken}
    for name in _naming(repository, runs, gone):
        names.append(name)
        held += runs[name]
        if held >= _RUNS_BYTES:
            _without(repository, names, gone)
            names, held = [], 0
    if names:
        _without(repository, names, gone)
    repository.catalog.chunks.drop_dead_rows()


def _without(repository: Repository, names: list[str], gone: Collection[bytes]) -> None:
    try:
        replace_runs(repository, names, gone)
    except (ValueNotFound, CorruptData):
        pass


def _naming(repository: Repository, runs: Iterable[str], gone: Collection[bytes]) -> Iterator[str]:
    """Those of these runs that name some of these frames; of each only its table is read."""

    def names_some(name: str) -> bool:
        try:
            front = repository.store.get("index", name, 0, _FIRST_BYTES)
            if table_bytes(front) > len(front):
                front += repository.store.get("index", name, len(front), table_bytes(front) - len(front))
            return any(info.name in gone for info in frames_in_run(front))
        except (CorruptData, ValueNotFound):
            return False

    names = list(runs)
    for name, some in zip(
        names, ordered_map(names_some, names, max(1, repository.store.traits.concurrency)), strict=True
    ):
        if some:
            yield name


def give_up(
    repository: Repository, names: Collection[bytes], verb: str, check: Callable[[], None] = lambda: None
) -> None:
    """Condemn and delete frames at once: for those whose chunks are in others as well. Raises what `check` does."""
    with repository.committing():  # in SQLite all of it is one transaction
        for slot in condemn(repository, names, verb, check):
            if not collect(repository, slot, verb):
                raise StoreError("another process brought back what was condemned just now; try again")
        for _ in delete_frames(repository, sorted(names)):
            pass


def _made_by(verb: str) -> str:
    return f"spraydry {spraydry.__version__} {verb}"
