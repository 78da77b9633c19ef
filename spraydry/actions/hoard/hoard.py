"""A hoard as a mapping from keys to files, over a repository."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, MutableMapping
from functools import partial
from typing import Any, BinaryIO

import spraydry
from spraydry.actions.hoard.commit import commit_changes
from spraydry.actions.hoard.copies import class_of_hoard, sink_of
from spraydry.actions.hoard.files import Following, Source, opened, store_file
from spraydry.actions.hoard.history import Event, key_history
from spraydry.actions.hoard.revive import revive
from spraydry.actions.hoard.small import MAX_BYTES, Condemned, SmallFiles
from spraydry.actions.hoard.transaction import Transaction
from spraydry.actions.hoard.url import address_of
from spraydry.errors import KeyExists, KeyNotFound
from spraydry.format.entry import Entry
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.ahead import read_ahead
from spraydry.repository.keys import Kept, Keys
from spraydry.repository.repository import Repository
from spraydry.repository.stream import open_entry, parts
from spraydry.repository.writer import Writer

_TOGETHER = 10_000
_TOGETHER_BYTES = 64 << 20


class Hoard(MutableMapping[str, Any]):
    """Files under keys: `hoard[key]` is a seekable binary stream, and what is assigned a stream, bytes or a path.

    Keys are text of 1 to 255 bytes of UTF-8, without control characters, and no part between slashes is empty, `.` or
    `..`. Each call sees what others committed before. It blocks; threads may share it, and a first put makes it. What
    is overwritten or deleted can be read by those who have it open until gc, and comes back by `undelete`."""

    def __new__(cls, name: str, url: str | os.PathLike[str] | None = None, **options: Any) -> Hoard:
        """One behind servers where the URL is theirs."""
        if cls is Hoard and options.get("repository") is None:
            from spraydry.actions.hoard.remote import hoard_at

            served = hoard_at(name, spraydry.default_url() if url is None else os.fspath(url))
            if served is not None:
                return served
        return super().__new__(cls)

    def __init__(
        self,
        name: str,
        url: str | os.PathLike[str] | None = None,
        *,
        repository: Repository | None = None,
        create: bool = False,
        level: int = DEFAULT_LEVEL,
    ) -> None:
        """The hoard of that name in the repository at a path or URL (default: the one the command line uses; with
        `create` one is made where there is none), which `close` closes; or in one that is open, which stays open.
        Where a URL is that of servers (http:), they are asked for single files, and no catalog is made here. Raises
        UsageError for a name that cannot be, and what opening a repository raises."""
        check_new_name(name, "hoard")
        self.name = name
        self._level = level
        self._owns = repository is None
        self.repository = spraydry.open(url, create=create) if repository is None else repository
        self._small = SmallFiles(self.repository, level)

    # -- reading

    def get(self, key: str, default: Any = None) -> Any:
        """The bytes of a key as a seekable binary stream (io.BufferedReader), each verified when it is read; `default`
        where there is none. Raises UsageError for what can be no key."""
        try:
            return self[key]
        except KeyNotFound:
            return default

    def __getitem__(self, key: str) -> io.BufferedReader:
        found = self.find(key)
        if found is None:
            raise KeyNotFound(f"{self.name}/{key} is not there")
        return self.open(found)

    def open(self, kept: Kept, *, ahead: bool = False) -> io.BufferedReader:
        """The bytes of what `find` or `list` gave; with `ahead` what follows is read in threads."""
        entry, repository = kept.entry, self.repository
        return open_entry(
            entry, partial(read_ahead, repository, entry) if ahead else partial(parts, entry, repository.read_single)
        )

    def find(self, key: str) -> Kept | None:
        """What a key names: size, digest, when it was put; None where it names nothing. Raises UsageError."""
        entry = self._keys().find(key)
        return None if entry is None else Kept(key, entry)

    def has(self, key: str) -> bool:
        """Whether there is such a key. Raises UsageError for what can be none."""
        return self.find(key) is not None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.has(key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """The keys that begin with `prefix` and come behind `after`, in the order of their bytes, but that a slash
        comes before all else; as of now, whatever is put meanwhile."""
        return self._keys().list(prefix, after)

    def __iter__(self) -> Iterator[str]:
        return (kept.key for kept in self.list())

    def __len__(self) -> int:
        return self._keys().count()

    def check_there(self) -> None:
        """Raises HoardNotFound where nothing was ever put into it."""
        self._read()
        self.repository.log.hoards.existing(self.name)

    def history(self, key: str) -> Iterator[Event]:
        """What happened to a key, the oldest first. Raises KeyNotFound where it never was there, HoardNotFound."""
        self._read()
        return key_history(self.repository, self.name, key)

    def url(self, key: str, *, expires_s: float | None = None, server: str | None = None) -> str:
        """An address from which any program can read the file of a key, now or when it is another one: on `server`, the
        address of a `spraydry serve` of this repository, or of what stands before it. Good for `expires_s` seconds
        where the server, or the object store that it lies in, wants that; by itself for a week.

        Raises KeyNotFound, UsageError where there is no such place.
        """
        return address_of(self.repository, self.name, key, self.find(key), server, expires_s)

    def ping(self) -> None:
        """Raises StoreUnavailable, or another StoreError, where the repository does not answer."""
        self._read()

    # -- changing

    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        """Store a file for `key` to name: what a binary stream gives until its end, bytes, or the file at a path (str
        or PathLike). Of several at a time the last one to end wins. With `new` a key that is there is refused.

        Durable when it returns; killed before, the key names what it did. Raises KeyExists, UsageError, StoreError,
        OSError for a file that cannot be read.
        """
        name_of(key)

        def check() -> None:
            if new and self._keys_read().find(key) is not None:
                raise KeyExists(f"{self.name}/{key} is there already")

        with opened(source) as stream:
            front = _front(stream)
            if len(front) <= MAX_BYTES and class_of_hoard(self.repository, self.name) is None:
                try:
                    made = self._small.put(self.name, [(key, front)], lambda entries: {key: entries[0]}, check)
                    return Kept(key, made[0])
                except Condemned:
                    pass
            self.repository.refresh()
            began_at = self.repository.heed()
            check()
            with Writer(self.repository, self._level) as writer:
                entry = store_file(sink_of(writer, self.name), Following(front, stream), key)
                writer.finish()
                commit_changes(self.repository, self.name, {key: entry}, began_at, check=check)
        return Kept(key, entry)

    def put_unnamed(self, source: Source) -> Kept:
        """Store a file under the digest of its bytes, in hex. Raises as `put`."""
        self.repository.refresh()
        began_at = self.repository.heed()
        with opened(source) as stream, Writer(self.repository, self._level) as writer:
            entry = store_file(sink_of(writer, self.name), stream, "")
            writer.finish()
            assert entry.file_digest is not None
            key = entry.file_digest.hex()
            commit_changes(self.repository, self.name, {key: entry}, began_at)
        return Kept(key, entry)

    def put_many(self, sources: Iterable[tuple[str, Source]]) -> int:
        """Store many files, each for its key to name; the number of keys. Much faster than one by one: up to 10,000
        become durable, and visible, together. What was stored before an error stays. Raises as `put`."""
        count = 0
        changes: dict[str, Entry | None] = {}
        self.repository.refresh()
        began_at = self.repository.heed()
        with Writer(self.repository, self._level) as writer:
            held, sink = 0, sink_of(writer, self.name)
            for key, source in sources:
                name_of(key)
                with opened(source) as stream:
                    entry = changes[key] = store_file(sink, stream, key)
                held += entry.size
                count += 1
                if len(changes) >= _TOGETHER or held >= _TOGETHER_BYTES:
                    writer.finish()
                    commit_changes(self.repository, self.name, changes, began_at)
                    changes, held = {}, 0
            writer.finish()
            if changes:
                commit_changes(self.repository, self.name, changes, began_at)
        return count

    def __setitem__(self, key: str, source: Source) -> None:
        self.put(source, key)

    def delete(self, key: str) -> None:
        """Let a key name nothing any more. Raises KeyNotFound, UsageError, StoreError."""
        name_of(key)
        began_at = self.repository.heed()

        def check() -> None:
            if self._keys_read().find(key) is None:
                raise KeyNotFound(f"{self.name}/{key} is not there")

        check()
        commit_changes(self.repository, self.name, {key: None}, began_at, verb="delete", check=check)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def undelete(self, key: str, *, dry_run: bool = False) -> Kept:
        """Let a key name what it did before it was deleted last, or overwritten with something else; with `dry_run`
        only say what. Raises HoardNotFound, KeyNotFound where that is nothing, or was collected, Conflict, UsageError,
        StoreError."""
        return revive(self.repository, self.name, key, dry_run=dry_run)

    def clear(self) -> None:
        """Delete all keys at once, with one record."""
        began_at = self.repository.heed()
        if next(self._keys_read().list(), None) is not None:
            commit_changes(self.repository, self.name, {}, began_at, cleared=True, verb="delete")

    def transaction(self) -> Transaction:
        """Changes to several keys that are made together or not at all: `with hoard.transaction() as change:`."""
        return Transaction(self.repository, self.name, level=self._level)

    # --

    def _read(self) -> None:
        self.repository.log.follow()

    def _keys(self) -> Keys:
        """What the hoard holds now."""
        self._read()
        return self._keys_read()

    def _keys_read(self) -> Keys:
        """What the hoard held when the log was read last."""
        return Keys(self.repository.log.hoards.view(self.name), self.repository.tree)

    def close(self) -> None:
        """Tidy up, and close the repository, if it was opened here."""
        self._small.finish()
        if self._owns:
            if not self.repository.read_only:
                self.repository.store.flush()
            self.repository.close()

    def __enter__(self) -> Hoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hoard {self.name!r} of {self.repository.url}>"


def _front(stream: BinaryIO) -> bytes:
    """The first bytes of a stream: all of them, where it is small."""
    parts, missing = [], MAX_BYTES + 1
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
