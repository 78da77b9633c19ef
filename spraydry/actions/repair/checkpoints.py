"""Lost pages of hoards' checkpoints, made again from the log, which has all that was ever put."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

from spraydry.actions.hoard import tree_of
from spraydry.actions.repair.cures import Cured
from spraydry.errors import SprayDryError
from spraydry.format.entry import Subtree
from spraydry.format.keys import name_of
from spraydry.format.version import HoardRecord
from spraydry.repository.hoards import Change, View
from spraydry.repository.repository import Repository


def checkpoints_again(repository: Repository, lost: Callable[[], Set[bytes]]) -> Iterator[Cured]:
    """Those pages of checkpoints that are lost. Reads the records of hoards of which some page is, and holds all keys
    of one of these at a time."""
    for hoard, view in repository.log.hoards.views().items():
        if view.base is None or not _lacks(repository, view, lost()):
            continue
        changes: dict[bytes, Change] = {}
        slots = [slot for slot in repository.log.puts(hoard) if slot <= view.upto]
        try:
            for slot, record in repository.log.reread(slots):
                assert isinstance(record, HoardRecord)
                if record.cleared:
                    changes.clear()
                for key, entry in record.changes:
                    if entry is None:
                        changes.pop(name_of(key), None)
                    else:
                        changes[name_of(key)] = Change(entry, slot)
        except SprayDryError:
            continue  # a record is lost as well
        pages: list[Cured] = []
        wanted = set(lost())

        def emit(name: bytes, plain: bytes, wanted: set[bytes] = wanted, pages: list[Cured] = pages) -> None:
            if name in wanted:
                pages.append(Cured(name, plain, "the log"))

        tree_of(View(None, view.upto, changes), repository.page, emit)
        yield from pages


def _lacks(repository: Repository, view: View, lost: Set[bytes]) -> bool:
    """Whether a page of a checkpoint is lost, or cannot be read."""
    assert view.base is not None
    try:
        assert isinstance(view.base.content, Subtree)
        return any(name in lost for name in repository.tree(view.base.content).pages())
    except SprayDryError:
        return True
