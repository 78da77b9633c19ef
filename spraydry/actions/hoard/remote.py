"""A hoard behind servers, for those who put and get single files: without a catalog of the repository."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from spraydry.actions.hoard.files import Source, opened
from spraydry.actions.hoard.history import Event
from spraydry.actions.hoard.hoard import Hoard
from spraydry.actions.hoard.talk import SMALL_BYTES, Held, SourceFailed, Talk
from spraydry.actions.hoard.transaction import ABORTED, COMMITTED, OPEN, PREPARED
from spraydry.actions.hoard.url import on_server
from spraydry.errors import CorruptData, HoardNotFound, KeyNotFound, UsageError
from spraydry.format.digest import hasher
from spraydry.format.entry import FILE, Entry
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name
from spraydry.repository.keys import Kept
from spraydry.stores.http import addresses
from spraydry.stores.remote import hoards as wire
from spraydry.stores.remote.servers import Servers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_DIGEST = re.compile('"[0-9a-f]{64}"')
_READ_BYTES = 4 << 20
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

    What is compared with the digest that the server tells of a file: files of up to 4 MiB as a whole, before anything
    of them is given, whichever part is read; longer ones when they were read from front to end. Other parts of these
    are what the server verified when it read them, and nothing is verified here but that the file is still that one;
    `spraydry.open` of the same address verifies every chunk."""

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
        return _opened(self._talk, key)

    def open(self, kept: Kept, *, ahead: bool = False) -> io.BufferedReader:
        """The bytes of what `find` or `list` gave, as long as the key names that."""
        return _opened(self._talk, kept.key, kept)

    def find(self, key: str) -> Kept | None:
        """As Hoard.find."""
        name_of(key)
        found = self._talk.find(key)
        return None if found is None else _kept(found)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """As Hoard.list, but that what is put meanwhile may be seen: it is asked for a page at a time."""
        return _listed(self._talk, prefix, after)

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
            entry = None if one.size is None else _entry(one.size, one.digest, one.made_ns)
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
            return _put(self._talk, stream, key, new)

    def put_unnamed(self, source: Source) -> Kept:
        """As Hoard.put_unnamed: in the hoard for those, whatever this one is."""
        with opened(source) as stream:
            return _cause(lambda: self._talk.put_unnamed(stream))

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
                    _put(self._talk, _Behind(front, stream), key, False)
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
        return _kept(self._talk.undelete(key, dry_run))

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


class RemoteTransaction:
    """As Transaction, in one server. It is aborted when its connection ends, this process, or that server."""

    def __init__(self, talk: Talk) -> None:
        """Raises StoreErrors."""
        self.hoard = talk.hoard
        self.state = OPEN
        self._held: Held
        self._talk, self._held = talk.begin()

    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        """As Transaction.put."""
        self._check(key)
        with opened(source) as stream:
            return _put(self._talk, stream, key, new)

    def delete(self, key: str) -> None:
        """As Transaction.delete."""
        self._check(key)
        self._talk.delete(key)

    def find(self, key: str) -> Kept | None:
        """As Transaction.find."""
        self._check(key)
        try:
            return _kept_of(self._talk, key)
        except KeyNotFound:
            return None

    def has(self, key: str) -> bool:
        """As Transaction.has."""
        return self.find(key) is not None

    def get(self, key: str) -> io.BufferedReader:
        """As Transaction.get."""
        self._check(key)
        return _opened(self._talk, key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """As Transaction.list."""
        self._check()
        return _listed(self._talk, prefix, after)

    def prepare(self) -> None:
        """As Transaction.prepare."""
        self._check()
        self._talk.end("prepare")
        self.state = PREPARED

    def commit(self) -> int | None:
        """As Transaction.commit. Where the connection fails in the middle of it, nobody knows whether it was made:
        StoreUnavailable."""
        if self.state != PREPARED:
            self._check()
        try:
            slot = self._talk.end("commit").slot
        except BaseException:
            self._end(ABORTED)
            raise
        self._end(COMMITTED)
        return slot

    def abort(self) -> None:
        """As Transaction.abort."""
        if self.state in (OPEN, PREPARED):
            self._end(ABORTED)

    def __enter__(self) -> RemoteTransaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
        elif self.state in (OPEN, PREPARED):
            self.commit()

    def _check(self, key: str | None = None) -> None:
        if key is not None:
            name_of(key)
        if self.state != OPEN:
            raise UsageError(f"the transaction on {self.hoard!r} is {self.state}: begin another one")

    def _end(self, state: str) -> None:
        self.state = state
        self._held.drop()


class _Stream(io.RawIOBase):
    """The file under a key, a part at a time, or all of it where it is not longer than a part; `kept` is what it must
    be."""

    def __init__(self, talk: Talk, key: str, kept: Kept | None) -> None:
        super().__init__()
        self._talk = talk
        self._key = key
        self._tag = None if kept is None or kept.digest is None else f'"{kept.digest.hex()}"'
        self._position = 0
        self._hashed, self._whole = 0, hasher()
        self._part, self._at = b"", 0
        self._size = 0
        self._wrong = False
        if kept is None:
            self._fetch(0, _READ_BYTES)
        else:
            self._size = kept.size

    def _check(self) -> None:
        if self._wrong:
            raise CorruptData(f"{self._talk.hoard}/{self._key}: the server gives other bytes than it should")

    def _fetch(self, start: int, length: int) -> None:
        self._check()
        part, self._size, self._tag = self._talk.read(self._key, start, length, self._tag)
        if len(part) < min(length, self._size - start):
            raise CorruptData(f"{self._talk.hoard}/{self._key}: the server gives fewer bytes than there are")
        if start == 0:
            self._hashed, self._whole = 0, hasher()
        if start == self._hashed:
            self._whole.update(part)
            self._hashed += len(part)
            if self._hashed == self._size and _DIGEST.fullmatch(self._tag):
                self._wrong = self._tag != f'"{self._whole.digest().hex()}"'
                self._check()
        self._part, self._at = part, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError("no such position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        if self._position >= self._size or not len(into):
            return 0
        if not self._at <= self._position < self._at + len(self._part):
            if self._size <= _READ_BYTES:
                self._fetch(0, _READ_BYTES)
            else:
                self._fetch(self._position, max(len(into), _READ_BYTES if self._position == self._hashed else 0))
        here = self._position - self._at
        count = min(len(into), len(self._part) - here)
        into[:count] = self._part[here : here + count]
        self._position += count
        return count


class _Behind:
    """What was read of a stream, and the rest of it."""

    def __init__(self, front: bytes, rest: BinaryIO) -> None:
        self._front = front
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._front:
            front, self._front = self._front[:size], self._front[size:]
            return front
        return self._rest.read(size)

    def seekable(self) -> bool:
        return False


def _opened(talk: Talk, key: str, kept: Kept | None = None) -> io.BufferedReader:
    return io.BufferedReader(_Stream(talk, key, kept), 256 << 10)


def _put(talk: Talk, source: Any, key: str, new: bool) -> Kept:
    return _cause(lambda: talk.put(key, source, new))


def _cause(put: Callable[[], wire.File]) -> Kept:
    """What was put. Raises why its source could not be read as that was raised."""
    try:
        return _kept(put())
    except SourceFailed as failed:
        assert failed.__cause__ is not None
        raise failed.__cause__ from None


def _kept_of(talk: Talk, key: str) -> Kept | None:
    found = talk.find(key)
    return None if found is None else _kept(found)


def _listed(talk: Talk, prefix: str, after: str) -> Iterator[Kept]:
    while True:
        page = talk.page(prefix, after)
        yield from map(_kept, page.files)
        if not page.more or not page.files:
            return
        after = page.files[-1].key


def _kept(file: wire.File) -> Kept:
    return Kept(file.key, _entry(file.size, file.digest, file.put_ns))


def _entry(size: int, name: str | None, put_ns: int) -> Entry:
    """What is known here of a file: its content is only its digest."""
    content = bytes.fromhex(name) if name is not None and size else None
    return Entry(b"", FILE, 0o644, 0, 0, *divmod(put_ns, 10**9), size, content, (), None)
