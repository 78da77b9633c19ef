"""Transactions on a hoard: changes to several keys, seen by nobody else before all of them are committed at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.copies import sink_of
from spraydry.actions.hoard.files import Source, opened, store_file
from spraydry.actions.hoard.transacting import COMMITTED, PREPARED, Transacting
from spraydry.errors import Conflict, KeyExists, KeyNotFound
from spraydry.format.entry import Entry
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.hoards import Change, View
from spraydry.repository.keys import Kept, Keys
from spraydry.repository.repository import Repository
from spraydry.repository.stream import open_entry, parts
from spraydry.repository.writer import Writer


class _Touched(NamedTuple):
    """What a key named when it was first touched: where that is to be found."""

    base: Entry | None
    change: Change | None


class Transaction(Transacting):
    """A transaction on a hoard of a repository that is open here."""

    def __init__(self, repository: Repository, hoard: str, *, level: int = DEFAULT_LEVEL) -> None:
        """Raises UsageError for a name no hoard may have. The hoard need not be there."""
        check_new_name(hoard, "hoard")
        super().__init__(hoard)
        self.repository = repository
        self._level = level
        self._writer: Writer | None = None
        self._durable = True
        self._staged: dict[str, Entry | None] = {}
        self._new: set[str] = set()
        self._touched: dict[str, _Touched] = {}
        repository.refresh()
        self._began_at = repository.heed()

    # -- changing

    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        self._check_open()
        self._touch(key)
        if new and self._find(key) is not None:
            raise KeyExists(f"{self.hoard}/{key} is there already")
        if self._writer is None:
            self._writer = Writer(self.repository, self._level)
        self._durable = False
        with opened(source) as stream:
            entry = self._staged[key] = store_file(sink_of(self._writer, self.hoard), stream, key)
        if new:
            self._new.add(key)
        return Kept(key, entry)

    def delete(self, key: str) -> None:
        self._check_open()
        self._touch(key)
        if self._find(key) is None:
            raise KeyNotFound(f"{self.hoard}/{key} is not there")
        self._staged[key] = None
        self._new.discard(key)

    # -- reading

    def find(self, key: str) -> Kept | None:
        self._check_open()
        self._touch(key)
        entry = self._find(key)
        return None if entry is None else Kept(key, entry)

    def get(self, key: str) -> io.BufferedReader:
        found = self.find(key)
        if found is None:
            raise KeyNotFound(f"{self.hoard}/{key} is not there")
        self._store()
        return open_entry(found.entry, partial(parts, found.entry, self.repository.read_single))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        self._check_open()
        view = self.repository.log.hoards.view(self.hoard)
        staged = {name_of(key): Change(entry, 0) for key, entry in self._staged.items()}
        return Keys(view._replace(changes={**view.changes, **staged}), self.repository.tree).list(prefix, after)

    # -- ending

    def prepare(self) -> None:
        self._check_open()
        self._store()
        self.repository.refresh()
        self._check_unchanged()
        self.state = PREPARED

    def commit(self) -> int | None:
        self._check_open(PREPARED)
        try:
            self._store()
            slot = None
            if self._staged:
                verb = "put" if any(self._staged.values()) else "delete"
                slot = commit_changes(
                    self.repository,
                    self.hoard,
                    self._staged,
                    self._began_at,
                    verb=verb,
                    check=self._check_unchanged,
                )
        except BaseException:
            self.abort()
            raise
        self._end(COMMITTED)
        return slot

    # --

    def _end(self, state: str) -> None:
        self.state = state
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _store(self) -> None:
        if self._writer is not None and not self._durable:
            self._writer.finish()
            self._durable = True

    def _touch(self, key: str) -> None:
        name = name_of(key)
        if key not in self._touched:
            view = self.repository.log.hoards.view(self.hoard)
            self._touched[key] = _Touched(view.base, view.changes.get(name))

    def _find(self, key: str) -> Entry | None:
        if key in self._staged:
            return self._staged[key]
        return _entry(self.repository, name_of(key), self._touched[key])

    def _check_unchanged(self) -> None:
        view = self.repository.log.hoards.view(self.hoard)
        for key, before in self._touched.items():
            name = name_of(key)
            now = _Touched(view.base, view.changes.get(name))
            if now.base is before.base and now.change is before.change:
                continue
            there = _entry(self.repository, name, now)
            if there is not None and key in self._new:
                raise KeyExists(f"{self.hoard}/{key} is there already")
            if there != _entry(self.repository, name, before):
                raise Conflict(f"{self.hoard}/{key} was changed by another transaction meanwhile: begin anew")


def _entry(repository: Repository, name: bytes, touched: _Touched) -> Entry | None:
    if touched.change is not None:
        return touched.change.entry
    return Keys(View(touched.base, 0, {}), repository.tree).below(name)
