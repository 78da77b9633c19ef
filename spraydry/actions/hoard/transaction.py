"""Transactions on a hoard: changes to several keys, seen by nobody else before all of them are committed at once."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.copies import sink_of
from spraydry.actions.hoard.files import Source, opened, store_file
from spraydry.errors import Conflict, KeyExists, KeyNotFound, UsageError
from spraydry.format.entry import Entry
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.hoards import Change, View
from spraydry.repository.keys import Kept, Keys
from spraydry.repository.repository import Repository
from spraydry.repository.stream import open_entry, parts
from spraydry.repository.writer import Writer

OPEN, PREPARED, COMMITTED, ABORTED = "open", "prepared", "committed", "aborted"


class _Touched(NamedTuple):
    """What a key named when it was first touched: where that is to be found."""

    base: Entry | None
    change: Change | None


class Transaction:
    """Changes to one hoard, made together or not at all. Blocks; for one thread at a time.

    What was put is stored at once and committed with `commit`; whoever reads through the transaction sees it before,
    nobody else does. As a context manager it commits at the end, and aborts when something is raised. A transaction
    that is dropped or killed leaves nothing but bytes that gc finds.
    """

    def __init__(self, repository: Repository, hoard: str, *, level: int = DEFAULT_LEVEL) -> None:
        """Raises UsageError for a name no hoard may have. The hoard need not be there."""
        check_new_name(hoard, "hoard")
        self.repository = repository
        self.hoard = hoard
        self.state = OPEN
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
        """Store a file for `key` to name: what a binary stream gives until its end, bytes, or the file at a path. The
        content it had stays until gc.

        With `new`, a key that is there is refused (KeyExists), at the latest by `commit`. Raises UsageError for what
        can be no key, StoreError, OSError for a file that cannot be read.
        """
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
        """Let `key` name nothing any more. Raises KeyNotFound, UsageError."""
        self._check_open()
        self._touch(key)
        if self._find(key) is None:
            raise KeyNotFound(f"{self.hoard}/{key} is not there")
        self._staged[key] = None
        self._new.discard(key)

    # -- reading

    def find(self, key: str) -> Kept | None:
        """What a key names, in this transaction; None where it names nothing."""
        self._check_open()
        self._touch(key)
        entry = self._find(key)
        return None if entry is None else Kept(key, entry)

    def has(self, key: str) -> bool:
        """Whether a key names something, in this transaction."""
        return self.find(key) is not None

    def get(self, key: str) -> io.BufferedReader:
        """The bytes of a key as a seekable stream, verified. Raises KeyNotFound, UsageError."""
        found = self.find(key)
        if found is None:
            raise KeyNotFound(f"{self.hoard}/{key} is not there")
        self._store()
        return open_entry(found.entry, partial(parts, found.entry, self.repository.read_single))

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """As Keys.list, with the changes of this transaction. What was listed may change before `commit`."""
        self._check_open()
        view = self.repository.log.hoards.view(self.hoard)
        staged = {name_of(key): Change(entry, 0) for key, entry in self._staged.items()}
        return Keys(view._replace(changes={**view.changes, **staged}), self.repository.tree).list(prefix, after)

    # -- ending

    def prepare(self) -> None:
        """Make all that was put durable, and see that nobody changed what this transaction touched: `commit` then only
        has to append a record. Others may still be faster before it. Raises Conflict, StoreError."""
        self._check_open()
        self._store()
        self.repository.refresh()
        self._check_unchanged()
        self.state = PREPARED

    def commit(self) -> int | None:
        """Make the changes be; the slot of the record, None where nothing was changed.

        Raises Conflict where another transaction changed a key since this one first touched it, KeyExists for a `new`
        one that is there by now, StoreError; then nothing was changed, and the transaction is aborted.
        """
        if self.state != PREPARED:
            self._check_open()
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

    def abort(self) -> None:
        """Give the changes up. What was stored for them is left to gc. Does nothing when it has ended."""
        if self.state in (OPEN, PREPARED):
            self._end(ABORTED)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
        elif self.state in (OPEN, PREPARED):
            self.commit()

    # --

    def _check_open(self) -> None:
        if self.state != OPEN:
            raise UsageError(f"the transaction on {self.hoard!r} is {self.state}: begin another one")

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
