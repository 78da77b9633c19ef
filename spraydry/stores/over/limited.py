"""A store on this machine that holds at most so much; what was used least recently goes first."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice

from spraydry.errors import CorruptData, StoreError, StoreFull, UsageError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.stores.base import Store, Stored
from spraydry.stores.over.ages import GUESS, Ages

CACHED = ("frames", "index", "dictionaries")  # whose names are the digests of their values

_AGES = ("config", "cache")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_GENERATIONS = 64  # times bytes used in one, as many as the limit; finer than needed to tell hot from cold
_SAVE_EVERY = GUESS  # generations: what a kill -9 forgets of the order, and others do not know yet
_SAMPLE = 256
_REST_S = 10.0  # how long a cache that failed is left alone


class Limited:
    """Keeps values of CACHED in `store`, at most `limit_bytes` of them. Blocks; threads and processes may share it.

    What it gives was compared with its name. When the store fails, `trouble` says how, and it has nothing for a while;
    when its disk is full, the limit sinks.

    Memory does not depend on the number of values: when they were used is in a table of at most 4 MiB (Ages). What is
    to go is the oldest part of samples taken from a listing that goes round and round: names are digests, so any
    stretch of them is a random sample. A full round also counts anew what is held; until then, and after a kill -9,
    the count errs to the safe side. The table and the count are kept in the store, and processes that share it merge
    theirs: each knows of what another did up to an eighth of the limit too late, and the limit can be overstepped by
    that.
    """

    def __init__(self, store: Store, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.trouble: str | None = None
        self._store = store
        self._no_reads_before = self._no_writes_before = 0.0
        self._lock = threading.Lock()
        self._ages = Ages(limit_bytes)
        self._used_bytes = 0  # in this generation
        self._unsaved_bytes = 0  # used since the table was saved
        self._reserved = False  # whether the saved count says that more may come
        self._held_bytes = 0
        self._change_bytes = 0  # of what is held, since the table was saved
        self._counted = False  # since then
        self._writing_bytes = 0  # by all threads at the moment
        self._added_bytes = 0  # since the round of the listing began
        self._round: Iterator[tuple[str, Stored]] | None = None
        self._round_bytes = 0
        try:
            if store.info("config", "config") is not None:
                raise UsageError("a cache must not lie in a repository: give it a place of its own")
            found, self._change_bytes = self._load() or (store.stat().bytes, 0)
            self._held_bytes = found + self._change_bytes
        except (StoreError, CorruptData) as error:
            self._fail(error, reading=True)

    def get(self, namespace: str, name: str) -> bytes | None:
        """A value that is what its name says; None where there is none. One that is not is removed."""
        if not _cacheable(namespace, name) or time.monotonic() < self._no_reads_before:
            return None
        value: bytes | None
        try:
            value = self._store.get(namespace, name)
        except ValueNotFound:
            return None
        except StoreError as error:
            self._fail(error, reading=True)
            return None
        except CorruptData:
            value = None
        if value is None or digest(value).hex() != name:
            self.forget(namespace, [name])
            return None
        self._use(name, len(value))
        return value

    def keep(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        """Keep those of the values that are what their names say and fit; forget what lies under the other names."""
        if self._store.read_only or time.monotonic() < self._no_writes_before:
            return
        kept: list[tuple[str, bytes]] = []
        size = 0
        for name, value in values:
            if not _cacheable(namespace, name):
                continue
            if digest(value).hex() != name:
                self.forget(namespace, [name])
            elif size + len(value) <= self.limit_bytes // 2:
                kept.append((name, value))
                size += len(value)
        if not kept:
            return
        try:
            with self._lock:
                if self._held_bytes + size > self.limit_bytes:
                    self._make_room(size)
                self._change(size)
                self._added_bytes += size
                self._writing_bytes += size
            try:
                self._store.put_many(namespace, kept)
            finally:
                with self._lock:
                    self._writing_bytes -= size
        except StoreFull as error:
            self._shrink(error)
        except (StoreError, CorruptData) as error:
            self._fail(error)
        else:
            for name, value in kept:
                self._use(name, len(value))

    def forget(self, namespace: str, names: Iterable[str]) -> None:
        """Remove values."""
        names = [name for name in names if _cacheable(namespace, name)]
        if names and not self._store.read_only:
            try:
                self._store.delete(namespace, names)
            except (StoreError, CorruptData) as error:
                self._fail(error)

    def locations(self) -> list[str]:
        """The local paths where it lies."""
        return self._store.locations()

    def flush(self) -> None:
        """Make what is known of when values were used last, for other processes and after a kill -9."""
        self._save(self._reserve_bytes())
        with suppress(StoreError, CorruptData):
            self._store.flush()

    def destroy(self) -> None:
        """Remove the store."""
        with suppress(StoreError, CorruptData):
            self._store.destroy()

    def close(self) -> None:
        """As of a Store."""
        self._save(0)
        with suppress(StoreError, CorruptData):
            self._store.close()

    def _use(self, name: str, size: int) -> None:
        self._ages.use(name)
        with self._lock:
            self._unsaved_bytes += size
            self._used_bytes += size
            if self._used_bytes >= self.limit_bytes // _GENERATIONS:
                self._used_bytes = 0
                self._ages.advance(self._ages.generation + 1)
            due = self._unsaved_bytes >= self._reserve_bytes() or not self._reserved
        if due:
            self._save(self._reserve_bytes())

    def _reserve_bytes(self) -> int:
        return self.limit_bytes * _SAVE_EVERY // _GENERATIONS

    def _make_room(self, size: int) -> None:
        """Remove what was used least recently until `size` more bytes fit, and a sixteenth, so as not to come back at
        once. The lock is held."""
        target = self.limit_bytes - self.limit_bytes // 16 - size
        try:
            while self._held_bytes > target:
                if self._round is None:
                    self._round, self._round_bytes, self._added_bytes = self._listing(), 0, self._writing_bytes
                sample = list(islice(self._round, _SAMPLE))
                self._round_bytes += sum(stored.size for _, stored in sample)
                if len(sample) < _SAMPLE:
                    self._round = None
                freed = self._remove_oldest(sample, self._held_bytes - target)
                self._round_bytes -= freed
                self._change(-freed)
                if self._round is None:  # all was seen
                    self._change(self._round_bytes + self._added_bytes - self._held_bytes)
                    self._counted = True
                    if not self._round_bytes:
                        return
        except (StoreError, CorruptData):
            self._round = None
            raise

    def _remove_oldest(self, sample: list[tuple[str, Stored]], excess: int) -> int:
        """Remove `excess` bytes or an eighth of a sample; the bytes that were freed."""
        sample.sort(key=lambda found: self._ages.used(found[1].name))
        freed = 0
        gone: dict[str, list[str]] = {}
        for namespace, stored in sample[: -(-len(sample) // 8)]:
            gone.setdefault(namespace, []).append(stored.name)
            freed += stored.size
            if freed >= excess:
                break
        for namespace, names in gone.items():
            self._store.delete(namespace, names)
        return freed

    def _listing(self) -> Iterator[tuple[str, Stored]]:
        for namespace in CACHED:
            for stored in self._store.list(namespace):
                if _cacheable(namespace, stored.name):
                    yield namespace, stored

    def _change(self, size: int) -> None:
        self._held_bytes += size
        self._change_bytes += size

    def _load(self) -> tuple[int, int] | None:
        """Merge the table that is kept in the store; the bytes that were held then and those that its writer may have
        added without counting them, if it was killed. None if there is no table."""
        try:
            return self._ages.merge(self._store.get(*_AGES))
        except (ValueNotFound, CorruptData):
            return None

    def _save(self, reserve_bytes: int) -> None:
        if (
            self._store.read_only
            or not (self._unsaved_bytes or self._reserved)
            or time.monotonic() < self._no_writes_before
        ):
            return
        try:
            with self._lock:
                found = self._load()
                if found is not None and not self._counted:
                    self._held_bytes = max(0, found[0] + self._change_bytes)
                self._store.put(*_AGES, self._ages.encode(self._held_bytes, reserve_bytes))
                self._change_bytes, self._counted, self._unsaved_bytes = 0, False, 0
                self._reserved = reserve_bytes > 0
        except StoreFull as error:
            self._shrink(error)
        except (StoreError, CorruptData) as error:
            self._fail(error)

    def _shrink(self, error: StoreFull) -> None:
        self.trouble = str(error)
        try:
            with self._lock:
                self.limit_bytes = self._held_bytes * 15 // 16
                self._make_room(0)
        except (StoreError, CorruptData) as worse:
            self._fail(worse)

    def _fail(self, error: StoreError | CorruptData, reading: bool = False) -> None:
        self.trouble = str(error)
        self._no_writes_before = time.monotonic() + _REST_S
        if reading:
            self._no_reads_before = self._no_writes_before


def _cacheable(namespace: str, name: str) -> bool:
    return namespace in CACHED and _DIGEST.fullmatch(name) is not None
