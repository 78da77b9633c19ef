"""Pardoning condemned frames that hold what is to live again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import spraydry
from spraydry.actions.fence import all_chunks
from spraydry.errors import CollectedMeanwhile, CorruptData, NotFound
from spraydry.format.entry import Entry
from spraydry.format.version import AnyRecord, RevokeRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository

_TOGETHER = 1000


def pardon(repository: Repository, needed: Sequence[tuple[Entry, bytes | None]], *, dry_run: bool = False) -> int:
    """Take back what condemned the frames that alone hold what these entries with their links lists need, or the
    dictionaries these use; the newest slot when that was looked at: what is condemned behind it is not pardoned.

    Whole slots are taken back: what else was condemned there is condemned again by the next collection. Raises
    CollectedMeanwhile where some of it is deleted already.
    """
    repository.refresh()
    checked = repository.log.head[0]
    wanted = _condemned(repository, needed)
    given_up = [(slot, record.frames, collected) for slot, record, collected in repository.log.sentences()]
    given_up += [(slot, record.dictionaries, collected) for slot, record, collected in repository.log.drops()]
    for slot, names, collected in given_up:
        if not wanted.isdisjoint(names):
            if collected:
                raise CollectedMeanwhile(f"deleted by the collection of slot {slot}")
            if not dry_run:
                _revoke(repository, slot)
    if wanted and not dry_run:
        repository.refresh()
    return checked


def _condemned(repository: Repository, needed: Sequence[tuple[Entry, bytes | None]]) -> set[bytes]:
    """The condemned frames that hold what no other does, and the dictionaries that were given up which they use."""
    catalog, wanted, there = repository.catalog, set[bytes](), dict[bytes, bool]()
    users = catalog.users(repository.log.dropped)

    def is_there(frame: bytes) -> bool:
        if frame not in there:
            there[frame] = repository.store.info("frames", frame.hex()) is not None
        return there[frame]

    try:
        every = all_chunks(repository, needed)
        while names := list(islice(every, _TOGETHER)):
            for name in set(names) - catalog.chunks.known(names):
                places = [place.frame for place in catalog.chunks.locate(name) if is_there(place.frame)]
                if not places:
                    raise CollectedMeanwhile(f"chunk {name.hex()} is in no frame")
                if catalog.is_condemned(places[0]):
                    # Rather one that needs no dictionary which was given up, and may be deleted.
                    frame = next((place for place in places if place not in users), places[0])
                    wanted.update((frame, users.get(frame, frame)))
    except (NotFound, CorruptData) as error:
        raise CollectedMeanwhile(str(error)) from None
    return wanted


def _revoke(repository: Repository, slot: int) -> None:
    log = repository.log

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        for standing, _, collected in chain(log.sentences(), log.drops()):
            if standing == slot:
                if collected:
                    raise CollectedMeanwhile(f"deleted by the collection of slot {slot}")
                made_by = f"spraydry {spraydry.__version__} undelete"
                return RevokeRecord(format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=made_by, slot=slot)
        raise _AsBefore

    try:
        with repository.committing():
            log.append(make)
            repository.remember_head()
    except _AsBefore:
        return


class _AsBefore(Exception):
    pass
