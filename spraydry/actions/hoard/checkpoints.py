"""Checkpoints: all keys of a hoard as one tree, so that what was put before need not be kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

import spraydry
from spraydry.actions.compose.surgery import Surgery
from spraydry.actions.hoard.copies import sink_of
from spraydry.actions.ingest.segments import Sink
from spraydry.errors import CorruptData, NotFound, StoreFull
from spraydry.format.classes import TREE
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.format.tree_page import Page
from spraydry.format.version import AnyRecord, CheckpointRecord
from spraydry.repository.hoards import View
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer

# A checkpoint goes through all keys (5 us each) and stores the pages that changed; what is not in one is held in memory
# (400 bytes a key), and read from the log by everybody who opens the repository.
_LEAST, _MOST, _PART = 4096, 16_384, 16
_TRIES = 3


def fold(repository: Repository, hoard: str) -> None:
    """Make a checkpoint if so much was changed since the last one that it is time for it; if it fails because there is
    no room, or something is damaged, it is for somebody else to make."""
    view = repository.log.hoards.view(hoard)
    keys = view.base.content.files if view.base is not None and isinstance(view.base.content, Subtree) else 0
    if len(view.changes) >= min(max(keys // _PART, _LEAST), _MOST):
        try:
            checkpoint(repository, hoard)
        except (StoreFull, CorruptData, NotFound):
            pass


def checkpoint(repository: Repository, hoard: str) -> bool:
    """Commit what a hoard holds now as a tree; False where nothing was changed since the last checkpoint. Raises
    CorruptData or NotFound where its keys cannot be read, StoreError."""
    for _ in range(_TRIES):
        repository.refresh()
        upto, view = repository.log.stand(hoard)
        if not view.changes:
            return False
        try:
            with Writer(repository) as writer:
                emit = partial(_emit, sink_of(writer, hoard))
                entry = tree_of(view, repository.page, emit)
                writer.finish()
                _append(repository, hoard, upto, entry)
            return True
        except _Overtaken:
            return False
        except _Condemned:
            continue  # what is condemned counts for nothing: it is stored again
    return False


def _emit(sink: Sink, page: bytes, plain: bytes) -> None:
    sink.add(page, plain, TREE)


def _append(repository: Repository, hoard: str, upto: int, entry: Entry) -> None:
    def make(previous: bytes, now_ns: int) -> AnyRecord:
        if repository.log.hoards.view(hoard).upto > upto:
            raise _Overtaken
        if repository.log.given_up_since(upto):
            raise _Condemned
        return CheckpointRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=now_ns,
            made_by=f"spraydry {spraydry.__version__} checkpoint",
            hoard=hoard,
            upto=upto,
            entry=entry,
        )

    with repository.committing():
        repository.log.append(make)
        repository.remember_head()


class _Overtaken(Exception):
    pass


class _Condemned(Exception):
    pass


def tree_of(view: View, page: Callable[[bytes], Page], emit: Callable[[bytes, bytes], None]) -> Entry:
    """What a view of a hoard holds, as the directory of a checkpoint: the same whoever makes it. `page` gives the pages
    of the view's base, `emit(digest, plain)` takes those that are new."""
    surgery, base = Surgery(page, emit), view.base
    if base is None:
        made: dict[bytes, bytes] = {}
        base = Surgery(page, made.__setitem__).empty(Entry(b"", DIRECTORY, 0, 0, 0, 0, 0, 0, None, (), None))
        for name, plain in made.items():
            emit(name, plain)
        surgery.page = lambda name: Page(made[name]) if name in made else page(name)
    edits = (
        (name, None if change.entry is None else msgspec.structs.replace(change.entry, name=name))
        for name, change in sorted(view.changes.items(), key=lambda change: change[0])
    )
    return surgery.edited(base, edits)
