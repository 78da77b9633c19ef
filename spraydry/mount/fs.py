"""The FUSE handlers: what the kernel asks, answered from versions."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import pyfuse3
from pyfuse3 import EntryAttributes, FileHandleT, FileInfo, FileNameT, FlagT, FUSEError, InodeT, RequestContext

from spraydry.errors import CorruptData, SprayDryError
from spraydry.format.links import Links
from spraydry.format.tree import DIRECTORY, FILE, SYMLINK, Runs
from spraydry.mount.attributes import FOREVER_S, LIVE_S, Attributes, Owner, own_xattr
from spraydry.mount.contents import Contents
from spraydry.mount.fetch import ChunkFetcher, Missing
from spraydry.mount.guard import guarded
from spraydry.mount.inodes import FUSE_ROOT, Node, Numbering
from spraydry.mount.roots import Place, Roots, Shown
from spraydry.repository.address import Found
from spraydry.repository.xattrs import as_listed, xattrs_of

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 2 << 20
_SEQUENTIAL_BYTES = 1 << 20  # the kernel's own read-ahead asks for several pieces at once, in any order
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND


class _File:
    """An open file."""

    __slots__ = ("ahead_to", "content", "next", "node", "size")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.content = node.entry.content
        self.size = node.entry.size
        self.next = 0
        self.ahead_to = 0


class VersionFs(pyfuse3.Operations):
    """Serves one entry of a version (`found`), or every root and version (None). All handlers run in one trio thread.

    Handlers await only what is not in memory. Nothing is kept for an inode the kernel knows: numbers lead back to
    entries. Every attempt to write is answered EROFS.
    """

    supports_dot_lookup = True  # `.` and `..` of any inode: for NFS, which knows files by number only
    enable_acl = True  # without it the group bits of a file with an ACL, which are its mask, would count for the group
    enable_writeback_cache = False

    def __init__(self, fetch: ChunkFetcher, found: Found | None, owner: Owner | None = None) -> None:
        super().__init__()
        self._fetch = fetch
        self._attributes = Attributes(owner)
        self._contents = Contents(fetch.chunk)
        self._files: dict[int, _File] = {}
        self._directories: dict[int, Place] = {}
        self._handles = itertools.count(1)
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

    def _plain(self, digest: bytes) -> bytes:
        return bytes(self._fetch.chunk(digest))

    # -- finding

    def _place(self, ino: int) -> Place:
        """What has that inode number. Raises Missing."""
        if self._numbering is not None:
            return self._numbering.by_ino(ino)
        assert self._roots is not None
        return self._roots.by_ino(ino)

    def _node(self, ino: int) -> Node | None:
        place = self._place(ino)
        return place if isinstance(place, Node) else None

    def _parent(self, place: Place) -> Place:
        if isinstance(place, Node):
            if place.ino != FUSE_ROOT and place.parent is not None:
                return place.parent
            return place if self._roots is None else self._roots.parent(place)
        assert self._roots is not None
        return self._roots.top()

    def _show(self, place: Place) -> EntryAttributes:
        return self._attributes.of(place) if isinstance(place, Node) else self._attributes.of_shown(place)

    async def _refresh(self) -> None:
        """Take in new roots and versions, at most once a second."""
        if self._roots is not None and time.monotonic() - self._refreshed_s > LIVE_S:
            self._refreshed_s = time.monotonic()
            try:
                await self._fetch.hop(self._fetch.repository.refresh)
            except SprayDryError as error:
                log.warning("cannot look for new versions: %s", error)

    def describe(self, handler: str, args: Sequence[Any]) -> str:
        """What a request was about, for the log."""
        first = args[0] if args else None
        place: Place | None = None
        try:
            if handler in ("read", "readdir"):
                place = self._files[first].node if handler == "read" else self._directories[first]  # type: ignore[index]
            elif isinstance(first, int):
                place = self._place(first)
        except Exception:
            place = None  # that is perhaps what went wrong
        name = args[1] if handler == "lookup" else b""
        if isinstance(place, Node):
            path = os.path.join(place.path, name) if name else place.path
            return f"{place.of.label}:{ascii(os.fsdecode(path))[1:-1]} (inode {place.number})"
        return f"inode {first} {name!r}" if name else f"inode {first}"

    # -- names and attributes

    def _lookup(self, parent: int, name: bytes) -> EntryAttributes:
        place = self._place(parent)
        if name == b".":
            return self._show(place)
        if name == b"..":
            return self._show(self._parent(place))
        if isinstance(place, Node):
            child = place.of.child(place, name)
            if child is not None:
                return self._attributes.of(child)
        else:
            assert self._roots is not None
            found = self._roots.child(place, name)
            if found is not None:
                shown = self._show(found)
                shown.entry_timeout = LIVE_S
                return shown
        absent = EntryAttributes()
        absent.st_ino = 0
        absent.entry_timeout = FOREVER_S if isinstance(place, Node) else LIVE_S
        return absent

    @guarded
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        if self._roots is not None and parent_inode >> 40 == 0:
            await self._refresh()
        return await self._fetch.run(self._lookup, parent_inode, name)

    @guarded
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return await self._fetch.run(lambda: self._show(self._place(inode)))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        pass

    @guarded
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        if self._roots is not None and inode >> 40 == 0:
            await self._refresh()
        place = await self._fetch.run(self._place, inode)
        if isinstance(place, Shown):
            if place.target is not None:
                return FileNameT(place.target)
        elif place.entry.kind == SYMLINK and isinstance(place.entry.content, bytes):
            return FileNameT(place.entry.content)
        raise FUSEError(errno.EINVAL)

    @guarded
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        if self._roots is not None:
            blocks, inodes = self._roots.totals()
        else:
            root = (await self._fetch.run(self._place, FUSE_ROOT)).entry  # type: ignore[union-attr]
            blocks, inodes = root.totals.blocks, root.totals.inodes
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks, data.f_bfree, data.f_bavail = blocks, 0, 0
        data.f_files, data.f_ffree, data.f_favail = inodes, 0, 0
        data.f_namemax = 255
        return data

    # -- directories

    @guarded
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        place = await self._fetch.run(self._place, inode)
        if isinstance(place, Node) and place.entry.kind != DIRECTORY:
            raise FUSEError(errno.ENOTDIR)
        handle = FileHandleT(next(self._handles))
        self._directories[handle] = place
        return handle

    @guarded
    async def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        place = self._directories[fh]
        for at in (0, 1):  # `.` and `..` come first
            if start_id <= at:
                shown = await self._fetch.run(self._show, self._parent(place) if at else place)
                if not pyfuse3.readdir_reply(token, b".." if at else b".", shown, at + 1):
                    return
        if isinstance(place, Node):
            await self._readdir(place, max(start_id - 2, 0), token)
            return
        await self._refresh()
        assert self._roots is not None
        for slot, name, child in self._roots.entries(place, start_id - 3):
            shown = self._show(child)
            shown.entry_timeout = LIVE_S
            if not pyfuse3.readdir_reply(token, FileNameT(name), shown, slot + 3):
                return

    async def _readdir(self, directory: Node, offset: int, token: pyfuse3.ReaddirToken) -> None:
        """Reply with the entries from inode `offset` of the directory on; an entry's position, to go on behind it, is
        the offset of the next one + 2."""
        assert directory.tree is not None
        attributes = self._attributes.blank()
        fill, reply = self._attributes.fill, pyfuse3.readdir_reply
        numbering, first = directory.of, directory.number + 1
        first_ino = numbering.first_ino + first
        total = directory.end - first
        while offset < total:
            page, base, begin = await self._fetch.run(directory.tree.leaf, offset)
            offsets = page.offsets
            for place in range(begin, len(page.items)):
                entry: Any = page.items[place]
                if entry.group is None:
                    fill(attributes, entry, first_ino + base + offsets[place], 1)
                else:
                    linked = await self._fetch.run(numbering.linked, entry.group)
                    fill(attributes, entry, numbering.first_ino + linked.number, linked.count)
                if not reply(token, entry.name, attributes, base + offsets[place + 1] + 2):
                    return
            offset = base + offsets[-1]

    async def releasedir(self, fh: FileHandleT) -> None:
        self._directories.pop(fh, None)

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        pass

    # -- files

    @guarded
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        node = await self._fetch.run(self._node, inode)
        if node is None or node.entry.kind != FILE:
            raise FUSEError(errno.EISDIR if node is None or node.entry.kind == DIRECTORY else errno.EINVAL)
        handle = FileHandleT(next(self._handles))
        self._files[handle] = _File(node)
        return FileInfo(fh=handle, keep_cache=True)

    @guarded
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        file = self._files[fh]
        content = file.content
        if isinstance(content, bytes):
            chunk = self._fetch.peek(content)
            if chunk is None:
                chunk = await self._fetch.get(content)
            if len(chunk) != file.size:
                raise CorruptData(f"chunk {content.hex()} has {len(chunk)} bytes, the entry says {file.size}")
            return chunk[off : off + size]
        if not isinstance(content, Runs):
            return b""
        stop = min(off + size, file.size)
        if abs(off - file.next) <= _SEQUENTIAL_BYTES:
            self._read_ahead(file, content, stop)
        file.next = stop
        return await self._fetch.run(self._contents.read, content, file.size, off, stop)

    def _read_ahead(self, file: _File, content: Runs, stop: int) -> None:
        """Begin to load what a sequential reader will ask for next, half of READ_AHEAD_BYTES at a time."""
        if stop + READ_AHEAD_BYTES // 2 <= file.ahead_to <= stop + 2 * READ_AHEAD_BYTES or stop >= file.size:
            return
        begin = file.ahead_to if stop <= file.ahead_to <= stop + READ_AHEAD_BYTES else stop
        file.ahead_to = stop + READ_AHEAD_BYTES
        try:
            spans = list(self._contents.spans(content, file.size, begin, min(file.ahead_to, file.size)))
        except Missing:
            file.ahead_to = 0  # the reader is about to load that part of the manifest; the next read may go ahead
            return
        self._fetch.ahead(span.chunk for span in spans if span.chunk is not None)

    async def flush(self, fh: FileHandleT) -> None:
        raise FUSEError(errno.ENOSYS)  # nothing to flush: the kernel does not ask again

    async def release(self, fh: FileHandleT) -> None:
        self._files.pop(fh, None)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        pass

    # -- extended attributes

    def _getxattr(self, ino: int, name: bytes) -> bytes:
        node = self._node(ino)
        if node is not None:
            if node.entry.xattrs:
                for found, value in xattrs_of(node.entry, self._fetch.chunk):
                    if found == name:
                        return value
            if name.startswith(b"user.spraydry."):
                own = own_xattr(node, name)
                if own is not None:
                    return own
        raise FUSEError(pyfuse3.ENOATTR)

    @guarded
    async def getxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> bytes:
        return await self._fetch.run(self._getxattr, inode, name)

    def _listxattr(self, ino: int, privileged: bool) -> list[pyfuse3.XAttrNameT]:
        node = self._node(ino)
        if node is None or not node.entry.xattrs:
            return []
        names = [name for name, _ in as_listed(xattrs_of(node.entry, self._fetch.chunk))]
        return [pyfuse3.XAttrNameT(name) for name in names if privileged or not name.startswith(b"trusted.")]

    @guarded
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        return await self._fetch.run(self._listxattr, inode, ctx.uid == 0)

    # -- writing, of any kind

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refuse
    write = create = setxattr = removexattr = _refuse
