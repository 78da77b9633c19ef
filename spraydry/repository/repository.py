"""A repository: opens a store with its catalog and log, and reads verified chunks, pages and versions from it."""

from __future__ import annotations

import atexit
import io
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate

from spraydry.errors import (
    ChunkCorrupt,
    ChunkNotFound,
    CorruptData,
    DictionaryMissing,
    SprayDryError,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.format import frame as frames
from spraydry.format.digest import DIGEST_BYTES, Buffer, digest
from spraydry.format.links import Links
from spraydry.format.run import FrameInfo, Row, decode_run
from spraydry.format.tree import FILE, Page, Subtree, Tree
from spraydry.format.version import RevokeRecord
from spraydry.parallel import default_threads, ordered_map
from spraydry.repository import address as addresses
from spraydry.repository import losses
from spraydry.repository.address import Found
from spraydry.repository.cache import FrameCache
from spraydry.repository.catalog import Catalog
from spraydry.repository.log import Log, Version
from spraydry.repository.opening import Config, Opened, open_at
from spraydry.repository.stream import open_entry
from spraydry.stores.base import Store
from spraydry.stores.database.database import Database
from spraydry.stores.sqlite import SqliteStore

DEFAULT_CACHE_BYTES = 64 << 20
_DIRECTORIES_BYTES = 4 << 20
_PAGE_CACHE_BYTES = 16 << 20
_DECODED_FACTOR = 8  # a decoded page takes about so many times its encoded bytes, measured


class Repository:
    """Everything below is blocking; threads may share a repository, processes must not carry it over a fork."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        config: Config,
        url: str,
        cache_bytes: int,
        opened: Opened | None = None,
    ) -> None:
        self.opened = opened or Opened(store, config, None)
        self.store = store
        self.catalog = catalog
        self.config = config
        self.url = url
        self.log = Log(store)
        self.read_only = store.read_only
        self.cache_bytes = cache_bytes
        self._frames = FrameCache(cache_bytes)
        self._directories: OrderedDict[bytes, bytes] = OrderedDict()  # of a frame: the digests of its chunks
        self._directories_held = 0
        self._directories_lock = threading.Lock()
        self._loading: dict[bytes, threading.Event] = {}  # frames that a thread is reading now
        self._pages: OrderedDict[bytes, Page] = OrderedDict()
        self._pages_held = 0
        self._pages_lock = threading.Lock()
        self._dictionaries: dict[bytes, frames.Dictionary] = {}
        self.behind: str | None = None  # why this is not the newest there is
        self.damaged_runs: dict[str, str] = {}  # name -> what is wrong; what only they name cannot be found
        self.refresh()

    # -- opening

    @classmethod
    def open(
        cls,
        url: str,
        *,
        create: bool = False,
        read_only: bool = False,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        metered: bool = False,
    ) -> Repository:
        """Open the repository at a path or URL; with `create`, make one where there is nothing.

        Raises StoreNotFound, NotARepository, FormatTooNew, StoreUnavailable and other StoreErrors.
        """
        opened = open_at(url, create=create, read_only=read_only, metered=metered)
        try:
            return cls(opened.store, _catalog(opened), opened.config, url, cache_bytes, opened)
        except BaseException:
            opened.store.close()
            raise

    def refresh(self) -> None:
        """Take in what others committed since: log slots, index runs. Raises CorruptData for a log cut short."""
        configuration = self.opened.configuration
        lost = losses.pending(configuration, self.catalog)
        seen = None if lost else self.catalog.state("head")
        slot = self.log.read()
        self.behind = None
        if seen is not None:
            seen_slot = int.from_bytes(seen[:8], "big")
            if seen_slot > slot and configuration is not None and configuration.owner in self.store.silent:
                self.behind = f"{configuration.owner}, which owns the log, does not answer, and has newer versions"
                return
            if seen_slot > slot or (seen_slot and self.log.digests[seen_slot - 1] != seen[8:]):
                raise CorruptData(f"{self.url}: the log was cut short or replaced (slot {seen_slot} was seen before)")
        if self.catalog.database.read_only:
            return
        fresh = self.log.records[seen_slot if seen else 0 :]
        if any(isinstance(record, RevokeRecord) for record in fresh):
            self.catalog.forget_runs()  # what was condemned may be back
        if self._take_runs() or fresh:
            # Another machine's catalog forgot these when it condemned them: nothing may count on them any more.
            self.catalog.forget_frames(self.log.condemned_since(0))
            self.remember_head()
        if lost and not self.read_only and configuration is not None:
            losses.settle(configuration, self.catalog, self.store, cache_folder(self.config.repository))

    def _take_runs(self) -> int:
        """Take in the index runs that are new; how many that were."""
        taken, took = self.catalog.runs(), 0
        for stored in list(self.store.list("index")):
            if stored.name not in taken and stored.name not in self.damaged_runs:
                try:
                    value = self.store.get("index", stored.name)
                    if digest(value).hex() != stored.name:
                        raise CorruptData(f"index run {stored.name} is damaged")
                    infos, rows = decode_run(value)
                    self.catalog.add_run(stored.name, infos, rows, verified=False)
                    took += 1
                except ValueNotFound:
                    continue  # merged into another meanwhile
                except CorruptData as error:  # the rest can be read, and rebuild_catalog does without it
                    self.damaged_runs[stored.name] = str(error)
        return took

    def vouch(self, names: Iterable[bytes]) -> set[bytes]:
        """Those of `names` that lie in frames which others have indexed, after these were read, decoded and verified.

        Only then do they count for deduplication: an index that lies must not make a version lose what it needs.
        """

        def read(frame: bytes) -> tuple[FrameInfo, list[Row]] | None:
            try:
                return self.decode_frame(frame)[:2]
            except SprayDryError:
                return None  # whoever reads it meets the error; here, what it holds is stored again

        wanted, found = set(names), set()
        claimed = sorted(self.catalog.claimed(list(wanted)))
        for decoded in ordered_map(read, claimed, max(default_threads(), self.store.traits.concurrency)):
            if decoded is not None:
                info, rows = decoded
                self.catalog.add_run(None, [info], rows, verified=True)
                found |= wanted & {row.digest for row in rows}
        return found

    def reindex(self) -> int:
        """Make the catalog anew from the store's index runs, reading no frame; the number of frames they name.

        What they say counts for deduplication only once it was verified: see `vouch`. Raises StoreUnavailable where a
        store does not answer: what only it holds would be forgotten.
        """
        self._check_complete()
        with self.batch():
            self.catalog.clear()
            self.damaged_runs.clear()
            self._take_runs()
            self.catalog.forget_frames(self.log.condemned_since(0))
            self.remember_head()
        return self.catalog.frames_count()

    def rebuild_catalog(self) -> int:
        """Make the catalog anew from the store's frames; the number of frames found.

        Reads every frame once, decoding it: the time is that of `verify`. Of frames that are damaged or gone it knows
        what the index runs say, so that an error can name them; nothing is deduplicated against them.
        """
        self._check_complete()
        with self.store.uncached(), self.batch():
            self.catalog.clear()
            self.damaged_runs.clear()
            count = 0
            for stored in self.store.list("frames"):
                value = self.store.get("frames", stored.name)
                name = digest(value)
                if name.hex() != stored.name:
                    continue
                try:
                    info, rows, _ = self._decoded(name, value)
                except SprayDryError:
                    continue
                self.catalog.add_run(None, [info], rows, verified=True)
                count += 1
            self._take_runs()
            for stored in self.store.list("index"):
                self.catalog.replace_runs([], stored.name)
            self.remember_head()
        return count

    def _check_complete(self) -> None:
        if self.store.silent:
            raise StoreUnavailable(
                f"{_list(self.store.silent)} does not answer: the catalog would forget what is there"
            )

    def remember_head(self) -> None:
        """Note the newest slot, so that a log cut short is noticed."""
        slot, name = self.log.head
        self.catalog.remember("head", slot.to_bytes(8, "big") + name)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is written inside becomes durable together at its end, where store and catalog are one file."""
        if self.read_only:
            raise StoreReadOnly(f"{self.url} cannot be written (permissions, or a read-only medium)")
        with ExitStack() as stack:
            # The catalog's ends last: it must never know of a frame that the store did not keep.
            stack.enter_context(self.catalog.database.transaction())
            stack.enter_context(self.store.batch())
            yield

    def close(self) -> None:
        """Close store and catalog."""
        self.catalog.close()
        self.store.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what it holds

    def roots(self) -> list[str]:
        """The names of the roots, sorted."""
        return self.log.roots()

    def versions(self, root: str) -> list[Version]:
        """The versions of a root under all their names, oldest first. Raises RootNotFound."""
        self.log.find(root)
        return self.log.versions(root)

    def resolve(self, address: str) -> Found:
        """What `ROOT[@VERSION][:PATH]` names. Raises UsageError, RootNotFound, VersionNotFound, PathNotFound."""
        return addresses.resolve(self, address)

    def walk(self, what: str | Found) -> Iterator[Found]:
        """What is named and everything below it, each directory before its entries, these by name bytes."""
        return addresses.walk(self, self.resolve(what) if isinstance(what, str) else what)

    def open_file(self, what: str | Found) -> io.BufferedReader:
        """A seekable binary stream over a regular file; what it gives was verified. Raises UsageError for others."""
        found = self.resolve(what) if isinstance(what, str) else what
        if found.entry.kind != FILE:
            raise UsageError(f"{what if isinstance(what, str) else os.fsdecode(found.path)} is not a regular file")
        return open_entry(found.entry, self.read_chunk)

    # -- chunks

    def peek_chunk(self, name: bytes) -> memoryview | None:
        """A chunk that is in memory, verified; None if it is not. Never blocks."""
        return self._frames.get(name)

    def read_chunk(self, name: bytes) -> memoryview:
        """The plain bytes of a chunk, verified against its name.

        Tries every frame that is known to hold it, looks again once for new ones, and raises ChunkNotFound or
        ChunkCorrupt, naming chunk and frames, when none gives the right bytes; StoreUnavailable when one might later.
        """
        if (chunk := self._frames.get(name)) is not None:
            return chunk
        tried: dict[bytes, str] = {}
        waiting: SprayDryError | None = None
        for attempt in range(2):
            if attempt:
                self._look_again()
            for place in self.catalog.locate(name):
                if place.frame in tried:
                    continue
                try:
                    chunk = self._load_once(place.frame, name)
                except SprayDryError as error:
                    tried[place.frame] = str(error)
                    waiting = error if error.retryable else waiting
                    continue
                if chunk is not None:
                    return chunk
                tried[place.frame] = "it does not hold that chunk"
        if not tried and self.store.silent:
            raise StoreUnavailable(f"chunk {name.hex()} may be on {_list(self.store.silent)}, which does not answer")
        if not tried:
            raise ChunkNotFound(f"chunk {name.hex()} is in no frame of {self.url}")
        if waiting is not None:
            raise waiting
        reasons = "; ".join(f"frame {found.hex()}: {reason}" for found, reason in tried.items())
        raise ChunkCorrupt(f"chunk {name.hex()} cannot be read: {reasons}")

    def _load_once(self, frame: bytes, name: bytes) -> memoryview | None:
        """As `_load`; of several threads that want one frame, one reads it, and the others find it in memory."""
        mine = threading.Event()
        other = self._loading.setdefault(frame, mine)  # atomic under the GIL
        if other is not mine:
            other.wait()
            if (chunk := self._frames.get(name)) is not None:
                return chunk
            return self._load(frame, name)  # it could not be read, or was evicted since
        try:
            return self._load(frame, name)
        finally:
            del self._loading[frame]
            mine.set()

    def _load(self, frame: bytes, name: bytes) -> memoryview | None:
        """Bring a frame into memory; the chunk, verified, or None where the frame does not hold it.

        The digests of a frame's chunks are computed when it is read for the first time, and remembered, for that takes
        longer than decoding it: when it is read again each chunk is compared when it is asked for.
        """
        known = self._directories.get(frame)
        if known is not None:
            head, plain = frames.decode(self._stored_frame(frame), self.dictionary)
            names = [known[at : at + DIGEST_BYTES] for at in range(0, len(known), DIGEST_BYTES)]
            starts = accumulate(head.lengths, initial=0)
            self._frames.add(frame, plain, list(zip(names, starts, head.lengths, strict=False)), verified=False)
            if (chunk := self._frames.get(name)) is not None:
                return chunk
        info, rows, plain = self.decode_frame(frame)
        self._frames.add(info.name, plain, [(row.digest, row.offset, row.length) for row in rows], verified=True)
        with self._directories_lock:
            self._directories[frame] = b"".join(row.digest for row in rows)
            self._directories_held += len(self._directories[frame])
            while self._directories_held > _DIRECTORIES_BYTES:
                self._directories_held -= len(self._directories.popitem(last=False)[1])
        for row in rows:
            if row.digest == name:
                return memoryview(plain)[row.offset : row.offset + row.length]
        return None

    def _look_again(self) -> None:
        try:
            self.refresh()
        except SprayDryError:
            pass  # what is known already must do; the caller reports what it could not read

    def decode_frame(self, name: bytes) -> tuple[FrameInfo, list[Row], Buffer]:
        """Read a frame and give its chunks' digests, computed from the bytes: what is in a row is verified by that."""
        return self._decoded(name, self._stored_frame(name))

    def _stored_frame(self, name: bytes) -> bytes:
        try:
            return self.store.get("frames", name.hex())
        except ValueNotFound:
            raise ValueNotFound(f"frame {name.hex()} is gone") from None

    def _decoded(self, name: bytes, stored: bytes) -> tuple[FrameInfo, list[Row], Buffer]:
        head, plain = frames.decode(stored, self.dictionary)
        view = memoryview(plain)
        rows = [
            Row(digest(view[at : at + length]), 0, at, length)
            for at, length in zip(accumulate(head.lengths, initial=0), head.lengths, strict=False)
        ]
        return frame_info(name, head, len(stored)), rows, plain

    def dictionary(self, name: bytes) -> frames.Dictionary:
        """A dictionary by its digest. Raises DictionaryMissing."""
        if name not in self._dictionaries:
            try:
                plain = self.store.get("dictionaries", name.hex())
            except ValueNotFound:
                raise DictionaryMissing(f"dictionary {name.hex()} is gone") from None
            self._dictionaries[name] = frames.load_dictionary(name, plain)
        return self._dictionaries[name]

    # -- trees

    def page(self, name: bytes) -> Page:
        """A decoded, checked tree page, from memory where it was read before."""
        if (page := self.peek_page(name)) is not None:
            return page
        page = Page(bytes(self.read_chunk(name)))
        with self._pages_lock:
            if name not in self._pages:
                self._pages[name] = page
                self._pages_held += page.bytes * _DECODED_FACTOR
                while self._pages_held > _PAGE_CACHE_BYTES and len(self._pages) > 1:
                    self._pages_held -= self._pages.popitem(last=False)[1].bytes * _DECODED_FACTOR
        return page

    def peek_page(self, name: bytes) -> Page | None:
        """A page that is in memory; None if it is not. Never blocks."""
        page = self._pages.get(name)
        if page is not None:
            try:
                self._pages.move_to_end(name)
            except KeyError:
                pass
        return page

    def tree(self, subtree: Subtree) -> Tree:
        """A directory, for reading."""
        return Tree(subtree, self.page)

    def links(self, name: bytes | None) -> Links:
        """A version's links list, for reading."""
        return Links(name, lambda digest: bytes(self.read_chunk(digest)))


def frame_info(name: bytes, head: frames.Header, stored_bytes: int) -> FrameInfo:
    """What the index keeps of a frame."""
    return FrameInfo(name, head.frame_class, head.codec, head.level, head.dictionary, head.plain_bytes, stored_bytes)


def _catalog(opened: Opened) -> Catalog:
    """The catalog in the file of the store that owns the log where that is SQLite, else one in the cache directory of
    this machine."""
    if isinstance(opened.owner, SqliteStore):
        catalog = Catalog(opened.owner.database)
        if catalog.usable:
            return catalog
    if not opened.store.lasting:
        folder = tempfile.mkdtemp(prefix="spraydry-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    else:
        folder = cache_folder(opened.config.repository)
    return Catalog(Database(os.path.join(folder, "catalog.sqlite"), "", create=True))


def _list(silent: Mapping[str, str]) -> str:
    return ", ".join(silent)


def cache_folder(repository: bytes) -> str:
    """The folder of this machine for what can be made again about a repository (under $XDG_CACHE_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "spraydry", repository.hex())
