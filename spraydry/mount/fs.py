"""The handlers: what the kernel asks, answered from versions."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from pyfuse3 import ENOATTR, FUSEError

from spraydry.errors import CorruptData, SprayDryError
from spraydry.format.entry import FILE, SYMLINK, Entry, Runs
from spraydry.format.links import Links
from spraydry.mount import wire
from spraydry.mount.attributes import FOREVER_S, LIVE_S, Attributes, Owner, own_xattr
from spraydry.mount.channel import Answer
from spraydry.mount.contents import Contents
from spraydry.mount.fetch import ChunkFetcher, Later, Missing
from spraydry.mount.inodes import FUSE_ROOT, SLOT_SHIFT, Node, Numbering
from spraydry.mount.listings import Listings
from spraydry.mount.readahead import ReadAhead
from spraydry.mount.roots import Place, Roots, Shown
from spraydry.mount.wire import Attr
from spraydry.repository.address import Found
from spraydry.repository.xattrs import as_listed, xattrs_of

log = logging.getLogger(__name__)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND
_KEPT_FILES = 256
_LOOK_AHEAD_INODES, _LOOK_AHEAD = 64, 64  # at least, and for each load that may be under way
_BEGINNING_BYTES = 1 << 20  # of a large file, which is read ahead by itself once it is being read
_BLOCK_BYTES, _NAME_BYTES = 4096, 255


class VersionFs:
    """Serves one entry of a version (`found`), or every root and version (None): the Handlers of a channel.

    Nothing is kept for an inode the kernel knows: numbers lead back to entries. Where the kernel can do without, it
    opens files and directories without asking, and keeps listings: of a version always, above versions never, for
    there new ones appear. Every attempt to write is answered EROFS.
    """

    def __init__(self, fetch: ChunkFetcher, found: Found | None, owner: Owner | None = None) -> None:
        self._fetch = fetch
        self._attributes = Attributes(owner)
        self._contents = Contents(fetch.chunk)
        self._listings = Listings(self._directory, lambda node: self._parent(node).ino, self._attributes)
        self._ahead = ReadAhead(fetch, self._contents)
        self._files: OrderedDict[int, tuple[Runs, int]] = OrderedDict()
        self._offered = 0
        self._was_read = self._read_before = self._looked_to = 0  # inode numbers
        self._refreshing = threading.Lock()
        self._refreshed_s = time.monotonic()
        self._roots: Roots | None = None
        self._numbering: Numbering | None = None
        if found is None:
            self._roots = Roots(fetch.repository, fetch.page, self._plain)
        else:
            links = Links(found.version.record.links, self._plain)
            self._numbering = Numbering(
                str(found.version), found.version.record.entry, links, fetch.page, FUSE_ROOT, found.number
            )

    def offered(self, flags: int) -> None:
        self._offered = flags

    def _plain(self, digest: bytes) -> bytes:
        return bytes(self._fetch.chunk(digest))

    # -- finding

    def _place(self, ino: int) -> Place:
        """What has that inode number. Raises Missing."""
        if self._numbering is not None:
            return self._numbering.by_ino(ino)
        assert self._roots is not None
        return self._roots.by_ino(ino)

    def _directory(self, ino: int) -> Node:
        place = self._place(ino)
        assert isinstance(place, Node)
        return place

    def _entry(self, ino: int) -> Entry | None:
        place = self._place(ino)
        return place.entry if isinstance(place, Node) else None

    def _parent(self, place: Place) -> Place:
        if isinstance(place, Node):
            if place.ino != FUSE_ROOT and place.parent is not None:
                return place.parent
            return place if self._roots is None else self._roots.parent(place)
        assert self._roots is not None
        return self._roots.top()

    def _show(self, place: Place) -> Attr:
        return self._attributes.of(place) if isinstance(place, Node) else self._attributes.of_shown(place)

    def _refresh(self, ino: int) -> None:
        """Take in new roots and versions, at most once a second, for a request above the versions. Raises Later."""
        if self._roots is not None and not ino >> SLOT_SHIFT and time.monotonic() - self._refreshed_s > LIVE_S:
            raise Later(self._look_for_new)

    def _look_for_new(self) -> None:
        with self._refreshing:
            if time.monotonic() - self._refreshed_s > LIVE_S:
                try:
                    self._fetch.repository.refresh()
                except SprayDryError as error:
                    log.warning("cannot look for new versions: %s", error)
                self._refreshed_s = time.monotonic()

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """What a request was about, for the log."""
        if not args:
            return "something unreadable"
        place: Place | None = None
        try:
            place = self._place(args[0])
        except Exception:
            place = None  # that is perhaps what went wrong
        name = args[1] if handler == "lookup" else b""
        if isinstance(place, Node):
            path = os.path.join(place.path, name) if name else place.path
            return f"{place.of.label}:{ascii(os.fsdecode(path))[1:-1]} (inode {place.number})"
        return f"inode {args[0]} {name!r}" if name else f"inode {args[0]}"

    # -- names and attributes

    def lookup(self, ino: int, name: bytes) -> bytes:
        self._refresh(ino)
        place = self._place(ino)
        if name == b".":
            return self._entry_out(place)
        if name == b"..":
            return self._entry_out(self._parent(place))
        if isinstance(place, Node):
            child = place.of.child(place, name)
            return wire.entry_out(None if child is None else self._attributes.of(child), FOREVER_S)
        assert self._roots is not None
        found = self._roots.child(place, name)
        return wire.entry_out(None if found is None else self._show(found), LIVE_S)

    def _entry_out(self, place: Place) -> bytes:
        return wire.entry_out(self._show(place), FOREVER_S if isinstance(place, Node) else LIVE_S)

    def getattr(self, ino: int) -> bytes:
        place = self._place(ino)
        return wire.attr_out(self._show(place), FOREVER_S if isinstance(place, Node) else LIVE_S)

    def readlink(self, ino: int) -> bytes:
        self._refresh(ino)
        place = self._place(ino)
        if isinstance(place, Shown):
            if place.target is not None:
                return place.target
        elif place.entry.kind == SYMLINK and isinstance(place.entry.content, bytes):
            return place.entry.content
        raise FUSEError(errno.EINVAL)

    def statfs(self, ino: int) -> bytes:
        if self._roots is not None:
            blocks, inodes = self._roots.totals()
        else:
            root = self._entry(FUSE_ROOT)
            assert root is not None
            blocks, inodes = root.totals.blocks, root.totals.inodes
        return wire.statfs_out(blocks, inodes, _BLOCK_BYTES, _NAME_BYTES)

    # -- directories

    def opendir(self, ino: int, flags: int) -> bytes:
        if self._roots is None and self._offered & wire.NO_OPENDIR_SUPPORT:
            raise FUSEError(errno.ENOSYS)  # the kernel does not ask again, and keeps what it lists
        return wire.open_out(wire.KEEP_CACHE | wire.CACHE_DIR if isinstance(self._place(ino), Node) else 0)

    def releasedir(self, ino: int) -> bytes:
        return b""

    def readdirplus(self, ino: int, offset: int, size: int) -> bytes:
        return self._list(ino, offset, size, True)

    def readdir(self, ino: int, offset: int, size: int) -> bytes:
        return self._list(ino, offset, size, False)

    def _list(self, ino: int, offset: int, size: int, plus: bool) -> bytes:
        if self._roots is None or ino >> SLOT_SHIFT:
            return self._listings.answer(ino, offset, size, plus)
        self._refresh(ino)
        place = self._place(ino)
        listing = wire.Listing(size, plus)
        if offset <= 0:
            listing.add_dot(b".", ino, 1)
        if offset <= 1:
            listing.add_dot(b"..", FUSE_ROOT, 2)
        if isinstance(place, Shown):
            for slot, name, child in self._roots.entries(place, offset - 3):
                if not listing.add(name, self._show(child), slot + 3, LIVE_S):
                    break
        return listing.packed()

    def idle(self) -> None:
        """Do what will be asked for next."""
        try:
            self._listings.prepare()
            if self._was_read:
                self._look_ahead(self._was_read)
        except Missing as missing:
            self._fetch.ahead([missing.digest])

    def _look_ahead(self, ino: int) -> None:
        """Programs that read files in preorder get those that follow loaded in a thread: a frame takes milliseconds."""
        self._was_read = 0
        steps = ino - self._read_before
        self._read_before = ino
        if not 0 < steps <= _LOOK_AHEAD_INODES:
            self._looked_to = ino
            return
        self._looked_to = max(self._looked_to, ino)
        at_once = self._fetch.in_flight
        for following in range(self._looked_to + 1, min(self._looked_to + 8 * at_once, ino + _LOOK_AHEAD * at_once)):
            entry = self._entry(following)
            if entry is not None and entry.kind == FILE and not self._load_ahead(entry):
                return
            self._looked_to = following

    def _load_ahead(self, entry: Entry) -> bool:
        """Have the beginning of a file loaded; False where that must be asked for again."""
        content, known = entry.content, True
        wanted = [content] if isinstance(content, bytes) else []
        if isinstance(content, Runs):
            try:
                spans = self._contents.spans(content, entry.size, 0, min(entry.size, _BEGINNING_BYTES))
                wanted = [span.chunk for span in spans if span.chunk is not None]
            except Missing as missing:
                wanted, known = [missing.digest], False
        wanted = [digest for digest in wanted if self._fetch.peek(digest) is None]
        return (not wanted or self._fetch.ahead(wanted)) and known

    # -- files

    def open(self, ino: int, flags: int) -> bytes:
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        if self._offered & wire.NO_OPEN_SUPPORT:
            raise FUSEError(errno.ENOSYS)  # the kernel does not ask again, and keeps what it reads
        return wire.open_out(wire.KEEP_CACHE)

    def release(self, ino: int) -> bytes:
        return b""

    def flush(self, ino: int) -> bytes:
        raise FUSEError(errno.ENOSYS)  # nothing to flush: the kernel does not ask again

    def read(self, ino: int, offset: int, size: int) -> Answer:
        file = self._files.get(ino)
        if file is None:
            entry = self._entry(ino)
            if entry is None or entry.kind != FILE:
                raise FUSEError(errno.EISDIR)
            content = entry.content
            if isinstance(content, bytes):
                chunk = self._fetch.chunk(content)
                if len(chunk) != entry.size:
                    raise CorruptData(f"chunk {content.hex()} has {len(chunk)} bytes, the entry says {entry.size}")
                self._was_read = ino
                return chunk[offset : offset + size]
            if not isinstance(content, Runs):
                return b""
            file = self._files[ino] = content, entry.size
            self._was_read = ino
            if len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        runs, length = file
        stop = min(offset + size, length)
        parts = self._contents.read(runs, length, offset, stop)
        self._ahead.follow(ino, runs, length, offset, stop)
        return parts

    # -- extended attributes

    def getxattr(self, ino: int, name: bytes, size: int) -> bytes:
        place = self._place(ino)
        if isinstance(place, Node):
            if place.entry.xattrs:
                for found, value in xattrs_of(place.entry, self._fetch.chunk):
                    if found == name:
                        return _fitting(value, size)
            if name.startswith(b"user.spraydry."):
                own = own_xattr(place, name)
                if own is not None:
                    return _fitting(own, size)
        raise FUSEError(ENOATTR)

    def listxattr(self, ino: int, size: int, uid: int) -> bytes:
        entry = self._entry(ino)
        names: list[bytes] = []
        if entry is not None and entry.xattrs:
            names = [name for name, _ in as_listed(xattrs_of(entry, self._fetch.chunk))]
        return _fitting(b"".join(name + b"\0" for name in names if uid == 0 or not name.startswith(b"trusted.")), size)


def _fitting(value: bytes, size: int) -> bytes:
    answer = wire.xattr_out(value, size)
    if answer is None:
        raise FUSEError(errno.ERANGE)
    return answer
