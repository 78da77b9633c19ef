"""A repository: opens a store with its catalog and log, and reads verified chunks, pages and versions from it."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

from spraydry.errors import UsageError
from spraydry.format.entry import FILE, Subtree
from spraydry.format.links import Links
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page
from spraydry.repository import address as addresses
from spraydry.repository.address import Found
from spraydry.repository.ahead import read_ahead
from spraydry.repository.catalog import Catalog
from spraydry.repository.chunks import Chunks
from spraydry.repository.local import open_catalog
from spraydry.repository.opening import Opened, open_at
from spraydry.repository.stream import open_entry, parts
from spraydry.repository.versions import Version
from spraydry.stores.base import Store

DEFAULT_CACHE_BYTES = 64 << 20
_PAGE_CACHE_BYTES = 16 << 20
_DECODED_FACTOR = 8  # a decoded page takes about so many times its encoded bytes, measured


class Repository(Chunks):
    """What one works with: frames, chunks and their index are in the classes it is built on, files and versions here.

    Everything is blocking; threads may share a repository, processes must not carry it over a fork.
    """

    def __init__(
        self,
        opened: Opened,
        catalog: Catalog,
        url: str,
        cache_bytes: int,
    ) -> None:
        super().__init__(opened, catalog, url, cache_bytes)
        self._pages: OrderedDict[bytes, Page] = OrderedDict()
        self._pages_held = 0
        self._pages_lock = threading.Lock()
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
        over: Callable[[Store], Store] | None = None,
    ) -> Repository:
        """Open the repository at a path or URL; with `create`, make one where there is nothing. `over` puts
        something over its store, such as a Throttle.

        Raises StoreNotFound, NotARepository, FormatTooNew, StoreUnavailable and other StoreErrors.
        """
        opened = open_at(url, create=create, read_only=read_only, metered=metered, over=over)
        try:
            return cls(opened, open_catalog(opened), url, cache_bytes)
        except BaseException:
            opened.store.close()
            raise

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

    def open_file(self, what: str | Found, *, ahead: bool = False) -> io.BufferedReader:
        """A seekable binary stream over a regular file; what it gives was verified. Raises UsageError for others.

        With `ahead` what follows is read in threads: for those who read from front to back.
        """
        found = self.resolve(what) if isinstance(what, str) else what
        if found.entry.kind != FILE:
            raise UsageError(f"{what if isinstance(what, str) else os.fsdecode(found.path)} is not a regular file")
        entry = found.entry
        return open_entry(entry, partial(read_ahead, self, entry) if ahead else partial(parts, entry, self.read_chunk))

    # -- trees

    def page(self, name: bytes) -> Page:
        """A decoded, checked tree page, from memory where it was read before."""
        if (page := self.peek_page(name)) is not None:
            return page
        page = Page(bytes(self.read_single(name)))
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
