"""A hoard behind servers, for those who put and get single files: without a catalog of the repository."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from spraydry.actions.hoard.files import Following, Source, opened
from spraydry.actions.hoard.history import Event
from spraydry.actions.hoard.hoard import Hoard
from spraydry.actions.hoard.remote.single import caused, entry_of, find_remote, kept_of, listed, put_remote
from spraydry.actions.hoard.remote.stream import open_remote
from spraydry.actions.hoard.remote.talk import SMALL_BYTES, Talk
from spraydry.actions.hoard.remote.transaction import RemoteTransaction
from spraydry.actions.hoard.url import on_server
from spraydry.errors import HoardNotFound, UsageError
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.keys import Kept
from spraydry.stores.http import addresses
from spraydry.stores.remote.patience import wanted_s
from spraydry.stores.remote.servers import Servers

_BATCH_KEYS = 1000
_BATCH_BYTES = 8 << 20


def servers_at(url: str) -> Servers | None:
    """The servers at a URL, asked; None where that is something else. Raises UsageError, StoreErrors."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        return None
    servers = Servers(addresses(scheme.lower(), rest))
    try:
        if servers.open() is not None:
            servers.patience.away_s = wanted_s()
            return servers
    except BaseException:
        servers.close()
        raise
    servers.close()
    return None


def hoard_at(name: str, url: str) -> RemoteHoard | None:
    """A hoard in the repository that servers at a URL serve; None where that is something else. Raises as `servers_at`,
    and UsageError for a name that cannot be."""
    servers = servers_at(url)
    return None if servers is None else RemoteHoard.over(servers, name)


class RemoteHoard(Hoard):
    """As Hoard, of the hoard with that name in the repository which servers serve. There is no `repository`.

    Files of up to 4 MiB are compared with the digest that the server tells of them as a whole, before anything of them
    is given, whichever part is read. Of longer ones each chunk is compared with the digest in the list of chunks that
    the server gives, and all of it with that of the file, when it was read from front to end. Which file a key names,
    and of which chunks it is made, is as the server says; `spraydry.open` of the same address verifies that, too."""

    _servers: Servers
    _talk: Talk

    @classmethod
    def over(cls, servers: Servers, name: str) -> RemoteHoard:
        """One over servers that answered; `close` closes them. Raises UsageError for a name that cannot be."""
        try:
            check_new_name(name, "hoard")
        except UsageError:
            servers.close()
            raise
        made = object.__new__(cls)
        made.name, made._servers, made._talk = name, servers, Talk(servers, name)
        return made

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing: all was done by `over`."""

    # -- reading

    def __getitem__(self, key: str) -> io.BufferedReader:
        name_of(key)
        return open_remote(self._talk, key)

    def open(self, kept: Kept, *, ahead: bool = False) -> io.BufferedReader:
        """The bytes of what `find` or `list` gave, as long as the key names that."""
        return open_remote(self._talk, kept.key, kept)

    def find(self, key: str) -> Kept | None:
        """As Hoard.find."""
        name_of(key)
        return find_remote(self._talk, key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """As Hoard.list, but that what is put meanwhile may be seen: it is asked for a page at a time."""
        return listed(self._talk, prefix, after)

    def __len__(self) -> int:
        try:
            return self._talk.count()
        except HoardNotFound:
            return 0

    def check_there(self) -> None:
        """As Hoard.check_there."""
        self._talk.count()

    def history(self, key: str) -> Iterator[Event]:
        """As Hoard.history."""
        name_of(key)
        for one in self._talk.history(key):
            entry = None if one.size is None else entry_of(one.size, one.digest, one.made_ns)
            yield Event(one.slot, one.made_ns, one.made_by, entry)

    def ping(self) -> None:
        """Raises StoreUnavailable, or another StoreError, where no server answers."""
        self._talk.ping()

    def url(self, key: str, *, expires_s: float | None = None, server: str | None = None) -> str:
        """As Hoard.url; by itself the server's address is that of the one asked."""
        name_of(key)
        link = self._talk.link(key, expires_s)
        return link if server is None else on_server(server, urlsplit(link)._replace(scheme="", netloc="").geturl())

    # -- changing

    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        """As Hoard.put. A stream of more than a MiB that cannot go back is sent once, to one server."""
        name_of(key)
        with opened(source) as stream:
            return put_remote(self._talk, stream, key, new)

    def put_unnamed(self, source: Source) -> Kept:
        """As Hoard.put_unnamed: in the hoard for those, whatever this one is."""
        with opened(source) as stream:
            return caused(lambda: self._talk.put_unnamed(stream))

    def put_many(self, sources: Iterable[tuple[str, Source]]) -> int:
        """As Hoard.put_many, up to 1,000 files or 8 MiB together; longer ones by themselves."""
        count, held = 0, 0
        batch: list[tuple[str, bytes]] = []
        for key, source in sources:
            name_of(key)
            count += 1
            with opened(source) as stream:
                front = stream.read(SMALL_BYTES)
                if len(front) == SMALL_BYTES:
                    if batch:
                        self._talk.put_batch(batch)
                        batch, held = [], 0
                    put_remote(self._talk, Following(front, stream), key, False)
                    continue
            batch.append((key, front))
            held += len(front)
            if len(batch) >= _BATCH_KEYS or held >= _BATCH_BYTES:
                self._talk.put_batch(batch)
                batch, held = [], 0
        if batch:
            self._talk.put_batch(batch)
        return count

    def delete(self, key: str) -> None:
        """As Hoard.delete."""
        name_of(key)
        self._talk.delete(key)

    def undelete(self, key: str, *, dry_run: bool = False) -> Kept:
        """As Hoard.undelete."""
        name_of(key)
        return kept_of(self._talk.undelete(key, dry_run))

    def clear(self) -> None:
        """Delete all keys, in transactions of a thousand."""
        while keys := [file.key for file in self._talk.page("", "").files]:
            with self.transaction() as change:
                for key in keys:
                    change.delete(key)

    def transaction(self) -> Any:
        """As Hoard.transaction: it lives in one server, as long as a connection to it."""
        return RemoteTransaction(self._talk)

    # --

    def close(self) -> None:
        """Close the connections."""
        self._servers.close()

    def __repr__(self) -> str:
        return f"<hoard {self.name!r} of servers>"
