"""Putting small files: frames, index run and record in one go, without threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from io import BytesIO
from typing import NamedTuple

from spraydry.actions.hoard.commit import in_order, keep_house, record_of
from spraydry.actions.hoard.files import store_file
from spraydry.errors import SprayDryError
from spraydry.format.digest import Buffer
from spraydry.format.entry import Entry
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.run import FrameInfo, Row
from spraydry.format.version import AnyRecord
from spraydry.repository.dictionaries import Choice
from spraydry.repository.repository import Repository
from spraydry.repository.storer import Named, describe, publish

MAX_BYTES = 256 << 10
_PUTS_A_CHOICE = 1000


class Condemned(Exception):
    """Something was condemned meanwhile: the file is to be stored by a Writer, which finds out what of it."""


class _Chunk(NamedTuple):
    name: bytes
    plain: Buffer
    frame_class: str


class _Chunks(list[_Chunk]):
    """A sink of chunks that keeps them."""

    def add(self, name: bytes, plain: Buffer, frame_class: str, *, part: bool = False) -> None:
        self.append(_Chunk(name, plain, frame_class))


class SmallFiles:
    """Stores files of up to MAX_BYTES and commits them at once: a Writer's threads and lease take longer than such
    files. Blocks; threads may share it."""

    def __init__(self, repository: Repository, level: int = DEFAULT_LEVEL) -> None:
        self.repository = repository
        self._level = level
        self._lock = threading.Lock()
        self._choice: Choice | None = None
        self._puts = 0
        # One transaction where all lies in one file; elsewhere what a record needs is durable before it.
        self._one_file = repository.catalog.database.path == repository.store.location()

    def put(
        self,
        hoard: str,
        files: Sequence[tuple[str, bytes]],
        changes_of: Callable[[list[Entry]], Mapping[str, Entry | None]],
        check: Callable[[], None],
    ) -> list[Entry]:
        """Store files, up to MAX_BYTES in all, for these keys, and commit the changes that `changes_of` makes of their
        entries, if any; the entries. `check` as in `commit_changes`. Raises Condemned, and what `commit_changes`
        does."""
        repository = self.repository
        began_at = repository.heed()
        chunks = _Chunks()
        entries = [store_file(chunks, BytesIO(plain), key) for key, plain in files]
        changes = in_order(changes_of(entries))
        if not changes:
            return entries

        def make(previous: bytes, now_ns: int) -> AnyRecord:
            if repository.log.given_up_since(began_at):
                raise Condemned
            check()
            return record_of(hoard, changes, previous, now_ns)

        batch = self._encoded(chunks)
        with ExitStack() as stack:
            if self._one_file:
                stack.enter_context(repository.committing())
            if batch:
                with repository.batch():
                    repository.store.put_many("frames", ((made.name.hex(), made.stored) for _, made in batch))
                    infos: list[FrameInfo] = []
                    rows: list[Row] = []
                    describe(batch, infos, rows)
                    publish(repository, infos, rows)
            with repository.committing():
                slot, _ = repository.log.append(make)
                repository.remember_head()
        try:
            repository.log.pack(1)
        except SprayDryError:
            pass  # it is committed, and whoever commits next makes the pack
        keep_house(repository, hoard, slot, len(changes))
        return entries

    def _encoded(self, chunks: _Chunks) -> list[Named]:
        """The chunks that are not known yet in frames, one for each class."""
        if not chunks:
            return []
        names = {chunk.name for chunk in chunks}
        unknown = names - self.repository.catalog.chunks.known(list(names))
        unknown -= self.repository.vouch(unknown) if unknown else set()
        choice = self._chosen() if unknown else None
        batch = []
        for frame_class in dict.fromkeys(chunk.frame_class for chunk in chunks):
            fresh = {one.name: one.plain for one in chunks if one.name in unknown and one.frame_class == frame_class}
            unknown -= fresh.keys()
            if choice is not None and fresh:
                made = choice.encode(list(fresh.values()), frame_class, self._level)
                batch.append(Named(list(fresh), made))
        return batch

    def _chosen(self) -> Choice:
        """Which dictionaries to use: looked at anew now and then, and what has paid by now is adopted."""
        with self._lock:
            if self._choice is None or self._puts >= _PUTS_A_CHOICE:
                self.finish()
                self._choice, self._puts = Choice(self.repository), 0
            self._puts += 1
            if self._choice.due:
                self._choice.settle()
            return self._choice

    def finish(self) -> None:
        """Commit which dictionaries have paid."""
        if self._choice is not None and self._puts:
            self._choice.finish()
