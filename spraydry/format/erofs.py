"""EROFS images of a tree: all of its metadata, with the contents of files where the caller says they lie.

Layout: include/uapi of Linux, fs/erofs/erofs_fs.h, and Documentation/filesystems/erofs.rst. Of what that offers, this
writes: extended inodes; directories and symlinks with their last part behind the inode; files as one range of blocks,
or by chunk indexes where they have holes or lie far away; extended attributes, shared where they repeat.

    block 0          superblock at 1024, device table behind it
    block 1 ...      contents, if they lie in the image itself
    `metadata_at`    root inode, then every other inode before the directory that names it; blocks of large directories
    ... the end      shared extended attributes

Children come before their parent, so that a directory knows the places of all it names when it is written: one pass,
whose memory is the names of the directories that are open, and a table of what may be met again.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from spraydry.errors import ImageImpossible
from spraydry.format.hashtable import Table
from spraydry.format.links import Links
from spraydry.format.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SOCKET,
    SYMLINK,
    Entry,
    Page,
    Runs,
    Subtree,
    Tree,
    Xattrs,
)

BLOCK_BYTES = 4096
# Contents may lie on other devices: one is addressed in blocks of 32 bits, and slot n holds what begins within its
# SLOT_BLOCKS, so what is not longer than these never crosses into another one. The first slot is also mapped to where
# these numbers leave room, at SLOT_BLOCKS: then a file needs no index.
SLOT_BLOCKS = 1 << 31
MAX_SLOTS = 23

_MAGIC = 0xE0F5E1E2
_SUPERBLOCK_AT = 1024
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBI32x")
_SLOT = struct.Struct("<64sII56x")
_HAS_MTIME, _HAS_CHUNKS, _HAS_DEVICES = 2, 4, 8  # one compatible feature, two that a reader must know
_UNIT = 32  # inodes are numbered by where they begin, in units
_ROOT_NID = 2  # number 0 would be no inode number

_INODE = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBB")
_NID = struct.Struct("<Q")
_INDEX = struct.Struct("<HHI")
_PLAIN, _INLINE, _CHUNKED = 1 | 0 << 1, 1 | 2 << 1, 1 | 4 << 1
_INDEXED, _NOWHERE = 0x20, 0xFFFFFFFF
_MAX_CHUNK_BITS = 31 + 12
_HOLE_BITS = 16
# A file with holes gets at most so many indexes (8 bytes each): those of a larger file are as coarse as that takes.
_MAX_INDEXES = 1 << 14

_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR_PREFIXES = {b"user.": 1, b"trusted.": 4, b"security.": 6}
_XATTR_WHOLE = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_MAX_SHARED_BYTES = 2 << 20
_KEPT_BODIES = 4096

_FORMATS = {FILE: 0o100000, DIRECTORY: 0o040000, SYMLINK: 0o120000, FIFO: 0o010000, SOCKET: 0o140000}
_FORMATS |= {CHARACTER: 0o020000, BLOCK: 0o060000}
_TYPES = {FILE: 1, DIRECTORY: 2, CHARACTER: 3, BLOCK: 4, FIFO: 5, SOCKET: 6, SYMLINK: 7}

_FLUSH_BYTES = 1 << 20


class Source(NamedTuple):
    """What an image is made from: `root` and, each of which may block, `page(digest)` for the trees below it, the
    `links` of its version, `xattrs(entry)`, and `filled(entry)`: the (start, stop) byte ranges of a file outside of its
    holes, in order."""

    root: Entry
    page: Callable[[bytes], Page]
    links: Links
    xattrs: Callable[[Entry], Xattrs]
    filled: Callable[[Entry], Iterator[tuple[int, int]]]


class Image(NamedTuple):
    """What was written: the image's length in bytes, its inodes."""

    size: int
    inodes: int


def device_slots(blocks: int) -> list[int]:
    """The blocks of each device that contents of so many blocks take: one reaches into the next, so that all of what
    begins in it is there."""
    return [min(blocks - first, 2 * SLOT_BLOCKS - 1) for first in range(0, max(blocks, 1), SLOT_BLOCKS)]


class Addresses:
    """Where contents lie if each file's follow those of the files before it, in preorder, from block 0 on; of files
    with the same content, where the first one lies. Call it once for each file; not thread-safe."""

    def __init__(self) -> None:
        self.blocks = 0
        self._known = Table()

    def __call__(self, entry: Entry) -> int:
        at = self.blocks
        self.blocks += -(-entry.size // BLOCK_BYTES)
        return self._known.setdefault(content_key(entry), at)


def content_key(entry: Entry) -> bytes:
    """What names a file's content, in 16 bytes; the same for files with the same bytes and holes."""
    content = entry.content
    if isinstance(content, Runs):
        return (content.digest or content.manifest)[:16]
    return content[:16] if isinstance(content, bytes) else bytes(16)


def write_image(
    source: Source,
    write: Callable[[int, bytes], object],
    address: Callable[[Entry], int],
    *,
    slots: Sequence[int] = (),
    metadata_at: int = 1,
    uuid: bytes = bytes(16),
    tick: Callable[[int], None] = lambda inodes: None,
) -> Image:
    """Write the image through `write(offset, bytes)`, not in the order of the offsets.

    `address(entry)` is asked once for each file of some bytes, in preorder, for the first block of its content: on
    the devices, whose sizes in blocks are `slots`, or in the image itself if there are none; then `metadata_at` is the
    first block behind them. `tick(inodes)` is called now and then. Raises ImageImpossible for what EROFS cannot hold,
    and what `source` raises.
    """
    return _Writer(source, write, address, slots, metadata_at, uuid, tick).run()


class _Directory:
    """A directory that is being read: its blocks so far, the names of the open one, what is to be patched in it."""

    __slots__ = (
        "below",
        "blocks",
        "dots",
        "entries",
        "entry",
        "names",
        "nids",
        "pending",
        "types",
        "used",
    )

    def __init__(self, entry: Entry, entries: Iterator[tuple[Entry, int]]) -> None:
        self.entry = entry
        self.entries = entries
        self.blocks = bytearray()
        self.names: list[bytes] = []
        self.nids: list[int] = []
        self.types = bytearray()
        self.used = 0
        self.pending = [b"..", b"."]  # they stand where they sort
        self.dots = [0, 0]  # where in the directory the numbers of `.` and `..` stand
        self.below = array("Q")  # where in the image the directories in it name it as their `..`

    def add(self, name: bytes, nid: int, kind: int) -> None:
        while self.pending and self.pending[-1] < name:
            self._dot()
        self._append(name, nid, _TYPES[kind])

    def _dot(self) -> None:
        name = self.pending.pop()
        at = self._append(name, 0, _TYPES[DIRECTORY])
        self.dots[len(name) - 1] = at

    def _append(self, name: bytes, nid: int, kind: int) -> int:
        room = _DIRENT.size + len(name)
        if self.used + room > BLOCK_BYTES:
            self._close_block(True)
        self.used += room
        self.names.append(name)
        self.nids.append(nid)
        self.types.append(kind)
        return len(self.blocks) + _DIRENT.size * (len(self.names) - 1)

    def _close_block(self, full: bool) -> None:
        at = _DIRENT.size * len(self.names)
        pack, parts = _DIRENT.pack, []
        for name, nid, kind in zip(self.names, self.nids, self.types, strict=True):
            parts.append(pack(nid, at, kind, 0))
            at += len(name)
        self.blocks += b"".join((*parts, *self.names))
        if full:
            self.blocks += bytes(-len(self.blocks) % BLOCK_BYTES)
            self.names, self.nids, self.types, self.used = [], [], bytearray(), 0

    def finish(self) -> bytearray:
        """All of its bytes; the last block ends with its last name."""
        while self.pending:
            self._dot()
        self._close_block(False)
        return self.blocks


class _Placed(NamedTuple):
    """Where an inode's bytes came to lie: the first `blocks` of them at `blocks_at`, the rest at `tail_at`."""

    nid: int
    blocks_at: int
    blocks: int
    tail_at: int

    def at(self, offset: int) -> int:
        return self.blocks_at + offset if offset < self.blocks else self.tail_at + offset - self.blocks


class _Writer:
    def __init__(
        self,
        source: Source,
        write: Callable[[int, bytes], object],
        address: Callable[[Entry], int],
        slots: Sequence[int],
        metadata_at: int,
        uuid: bytes,
        tick: Callable[[int], None],
    ) -> None:
        if len(slots) > MAX_SLOTS:
            raise ImageImpossible(f"its files take more than {MAX_SLOTS * SLOT_BLOCKS * BLOCK_BYTES >> 40} TiB")
        self._source, self._write, self._address = source, write, address
        self._slots, self._metadata_at, self._uuid, self._tick = slots, metadata_at, uuid, tick
        self._base = metadata_at * BLOCK_BYTES
        self._buffer = bytearray(_ROOT_NID * _UNIT)
        self._at = self._base  # where in the image the buffer begins
        self._inodes = 0
        self._members = Table()  # of a hardlink group: the number of its inode
        self._shared: dict[tuple[bytes, bytes], int] = {}
        self._shared_area = bytearray()
        self._bodies: dict[Xattrs, bytes] = {}

    def run(self) -> Image:
        root = self._source.root
        root_body = self._xattr_body(root)
        self._buffer += bytes(_round_up(_INODE.size + len(root_body), _UNIT))
        stack = [self._opened(root)]
        while True:
            here = stack[-1]
            found = self._step(here)
            if found is not None:
                stack.append(self._opened(found))
                continue
            stack.pop()
            if not stack:
                break
            nid, dots_at = self._directory(here)
            stack[-1].add(here.entry.name, nid, DIRECTORY)
            stack[-1].below.append(dots_at)
        self._root(here, root_body)
        return self._finish()

    def _opened(self, entry: Entry) -> _Directory:
        assert isinstance(entry.content, Subtree)
        return _Directory(entry, Tree(entry.content, self._source.page).entries())

    def _step(self, here: _Directory) -> Entry | None:
        """Write the inodes of what a directory names until there is a directory to enter; None at its end."""
        add, address, pack = here.add, self._address, _INODE.pack
        flat = SLOT_BLOCKS if self._slots else 0
        for entry, _ in here.entries:
            kind, group = entry.kind, entry.group
            if kind == DIRECTORY:
                return entry
            if kind == FILE and entry.size:
                block = address(entry)
            else:
                block = 0
            nlink = 1
            if group is not None:
                nid = self._members.get(group)
                if nid is not None:
                    add(entry.name, nid, kind)
                    continue
                nlink = self._nlink(entry)
            content = entry.content
            blocks = (entry.size + BLOCK_BYTES - 1) // BLOCK_BYTES
            if (
                kind == FILE
                and not entry.xattrs
                and block + blocks <= SLOT_BLOCKS
                and (type(content) is bytes or content is None or content.filled == entry.size)  # type: ignore[union-attr]
            ):
                buffer = self._buffer
                nid = (self._at + len(buffer) - self._base) // _UNIT
                self._inodes += 1
                buffer += pack(
                    _PLAIN,
                    0,
                    0o100000 | entry.mode,
                    0,
                    entry.size,
                    block + flat if entry.size else _NOWHERE,
                    self._inodes & 0xFFFFFFFF,
                    entry.uid,
                    entry.gid,
                    entry.mtime_s,
                    entry.mtime_ns,
                    nlink,
                )
            else:
                nid = self._other(entry, block, nlink)
            if group is not None:
                self._members.setdefault(group, nid)
            add(entry.name, nid, kind)
        return None

    @property
    def _end(self) -> int:
        return self._at + len(self._buffer)

    def _nlink(self, entry: Entry) -> int:
        return 1 if entry.group is None else self._source.links.find(entry.group).count

    # -- inodes

    def _inode(self, entry: Entry, layout: int, body: bytes, size: int, union: int, nlink: int) -> bytes:
        self._inodes += 1
        if not self._inodes & 4095:
            self._tick(self._inodes)
        return (
            _INODE.pack(
                layout,
                (len(body) - _XATTR_HEADER.size) // 4 + 1 if body else 0,
                _FORMATS[entry.kind] | entry.mode,
                0,
                size,
                union,
                self._inodes & 0xFFFFFFFF,
                entry.uid,
                entry.gid,
                entry.mtime_s,
                entry.mtime_ns,
                nlink,
            )
            + body
        )

    def _other(self, entry: Entry, block: int, nlink: int) -> int:
        """The inode of anything that is no directory."""
        body, kind = self._xattr_body(entry), entry.kind
        if kind == SYMLINK:
            assert isinstance(entry.content, bytes)
            return self._with_tail(entry, body, entry.content).nid
        if kind == FILE and entry.size:
            layout, union, indexes = self._content(entry, block)
            inode = self._inode(entry, layout, body, entry.size, union, nlink)
            return self._place(inode + bytes(-len(inode) % 8 if indexes else 0) + indexes)
        union = _NOWHERE if kind == FILE else 0
        if isinstance(entry.content, int):
            union = _device_number(entry)
        return self._place(self._inode(entry, _PLAIN, body, 0, union, nlink))

    def _content(self, entry: Entry, block: int) -> tuple[int, int, bytes]:
        """Layout, union and indexes of a file's inode."""
        size, content = entry.size, entry.content
        whole = not isinstance(content, Runs) or content.filled == size
        if whole and block + -(-size // BLOCK_BYTES) <= SLOT_BLOCKS:
            return _PLAIN, block + (SLOT_BLOCKS if self._slots else 0), b""
        filled = [(0, size)] if whole else list(self._source.filled(entry))
        bits = _chunk_bits(size, filled)
        places = array("Q")
        for start, stop in filled:
            first = start >> bits
            if places and places[-1] == first:
                first += 1
            places.extend(range(first, (stop - 1 >> bits) + 1))
        indexes = bytearray(b"\0\0\0\0\xff\xff\xff\xff") * ((size - 1 >> bits) + 1)
        for place in places:
            slot, at = divmod(block + (place << bits - 12), SLOT_BLOCKS)
            if not self._slots and slot:
                raise ImageImpossible("its files take more than an image can hold")
            _INDEX.pack_into(indexes, place * _INDEX.size, 0, slot + 1 if self._slots else 0, at)
        return _CHUNKED, _INDEXED | bits - 12, bytes(indexes)

    def _with_tail(self, entry: Entry, body: bytes, plain: bytes | bytearray) -> _Placed:
        """The inode of a directory or symlink with these bytes: whole blocks first, the rest behind the inode."""
        blocks = len(plain) // BLOCK_BYTES * BLOCK_BYTES
        head = _INODE.size + len(body)
        inline = len(plain) > blocks and head + len(plain) - blocks <= BLOCK_BYTES
        if not inline:
            blocks = _round_up(len(plain), BLOCK_BYTES)
        block = self._blocks(plain, blocks) if blocks else _NOWHERE
        inode = self._inode(entry, _INLINE if inline else _PLAIN, body, len(plain), block, self._nlink(entry))
        if inline:
            self._room(head + len(plain) - blocks)
            inode += plain[blocks:]
        nid = self._place(inode)
        return _Placed(nid, block * BLOCK_BYTES, blocks, self._base + nid * _UNIT + head)

    def _blocks(self, plain: bytes | bytearray, length: int) -> int:
        """Put `length` bytes, of `plain` or zeros behind it, at the start of a block; the number of that block."""
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        block = self._end // BLOCK_BYTES
        self._buffer += plain[:length]
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        return block

    def _room(self, length: int) -> None:
        """Go on in the next block unless so many bytes fit into what is left of this one."""
        left = -self._end % BLOCK_BYTES
        if left and length > left:
            self._buffer += bytes(left)

    def _place(self, inode: bytes) -> int:
        """Put an inode and what follows it in the image; its number."""
        nid = (self._end - self._base) // _UNIT
        self._buffer += inode
        self._buffer += bytes(-len(inode) % _UNIT)
        if len(self._buffer) > _FLUSH_BYTES:
            whole = len(self._buffer) // BLOCK_BYTES * BLOCK_BYTES
            self._write(self._at, bytes(self._buffer[:whole]))
            self._at += whole
            del self._buffer[:whole]
        return nid

    def _overwrite(self, at: int, plain: bytes) -> None:
        """Change bytes that were put in the image before."""
        if at < self._at:
            self._write(at, plain)
        else:
            self._buffer[at - self._at : at - self._at + len(plain)] = plain

    # -- directories

    def _directory(self, here: _Directory) -> tuple[int, int]:
        """Write a directory; its number, and where in the image it names the directory above."""
        plain = here.finish()
        placed = self._with_tail(here.entry, self._xattr_body(here.entry), plain)
        self._overwrite(placed.at(here.dots[0]), _NID.pack(placed.nid))
        self._name_above(here, placed.nid)
        return placed.nid, placed.at(here.dots[1])

    def _name_above(self, here: _Directory, nid: int) -> None:
        name = _NID.pack(nid)
        for at in here.below:
            self._overwrite(at, name)

    def _root(self, here: _Directory, body: bytes) -> None:
        """The root's inode stands at the front, where a number of 16 bits reaches it; its bytes are blocks of their
        own."""
        plain = here.finish()
        for at in here.dots:
            _NID.pack_into(plain, at, _ROOT_NID)
        self._name_above(here, _ROOT_NID)
        block = self._blocks(plain, _round_up(len(plain), BLOCK_BYTES))
        inode = self._inode(here.entry, _PLAIN, body, len(plain), block, 1)
        self._overwrite(self._base + _ROOT_NID * _UNIT, inode)

    def _finish(self) -> Image:
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        shared_at = self._end // BLOCK_BYTES
        self._buffer += self._shared_area
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        end = self._end
        if end > BLOCK_BYTES << 32:
            raise ImageImpossible("it would have more than 16 TiB")
        self._write(self._at, bytes(self._buffer))
        front = bytearray(BLOCK_BYTES)
        _SUPERBLOCK.pack_into(
            front,
            _SUPERBLOCK_AT,
            _MAGIC,
            0,
            _HAS_MTIME,
            12,
            0,
            _ROOT_NID,
            self._inodes,
            0,
            0,
            end // BLOCK_BYTES,
            self._metadata_at,
            shared_at,
            self._uuid,
            b"spraydry",
            _HAS_CHUNKS | (_HAS_DEVICES if self._slots else 0),
            0,
            len(self._slots),
            (_SUPERBLOCK_AT + _SUPERBLOCK.size) // _SLOT.size,
            0,
            0,
            0,
        )
        for number, blocks in enumerate(self._slots):
            at = _SUPERBLOCK_AT + _SUPERBLOCK.size + number * _SLOT.size
            _SLOT.pack_into(front, at, b"contents-%d" % number, blocks, 0 if number else SLOT_BLOCKS)
        self._write(0, bytes(front))
        return Image(end, self._inodes)

    # -- extended attributes

    def _xattr_body(self, entry: Entry) -> bytes:
        """What stands between an inode and what follows it: those that repeat by number, others as they are."""
        if not entry.xattrs:
            return b""
        xattrs = self._source.xattrs(entry)
        body = self._bodies.get(xattrs)
        if body is None:
            shared: list[int] = []
            own = bytearray()
            for name, value in xattrs:
                number = self._share(name, value) if len(shared) < 255 else None
                if number is None:
                    own += _xattr(name, value)
                else:
                    shared.append(number)
            body = _XATTR_HEADER.pack(0, len(shared)) + struct.pack(f"<{len(shared)}I", *shared) + own
            if (len(body) - _XATTR_HEADER.size) // 4 + 1 > 0xFFFF:
                raise ImageImpossible(f"the extended attributes of {entry.name!r} have {len(body)} bytes")
            if len(self._bodies) >= _KEPT_BODIES:
                self._bodies.clear()
            self._bodies[xattrs] = body
        return body

    def _share(self, name: bytes, value: bytes) -> int | None:
        """The number of an attribute in the area that all inodes share, while there is room in it."""
        number = self._shared.get((name, value))
        if number is None:
            packed = _xattr(name, value)
            if len(self._shared_area) + len(packed) > _MAX_SHARED_BYTES:
                return None
            number = self._shared[name, value] = len(self._shared_area) // 4
            self._shared_area += packed
        return number


def _xattr(name: bytes, value: bytes) -> bytes:
    """One extended attribute, in multiples of 4 bytes."""
    found = [(prefix, index) for prefix, index in _XATTR_PREFIXES.items() if name.startswith(prefix)]
    if name in _XATTR_WHOLE:
        found = [(name, _XATTR_WHOLE[name])]
    if not found:
        raise ImageImpossible(f"an extended attribute is called {name!r}")
    prefix, index = found[0]
    rest = name[len(prefix) :]
    if len(value) > 0xFFFF:
        raise ImageImpossible(f"the extended attribute {name!r} has {len(value)} bytes")
    packed = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
    return packed + bytes(-len(packed) % 4)


def _chunk_bits(size: int, filled: Sequence[tuple[int, int]]) -> int:
    """log2 of the largest chunks at whose ends all holes of a file end, or of smaller ones that are not too many."""
    bits = _MAX_CHUNK_BITS
    for start, stop in filled:
        for edge in (start, stop if stop < size else 0):
            if edge:
                bits = min(bits, (edge & -edge).bit_length() - 1)
    bits = max(bits, _HOLE_BITS)
    while size - 1 >> bits >= _MAX_INDEXES and bits < _MAX_CHUNK_BITS:
        bits += 1
    return bits


def _device_number(entry: Entry) -> int:
    assert isinstance(entry.content, int)
    major, minor = entry.content >> 32, entry.content & 0xFFFFFFFF
    if major >= 1 << 12 or minor >= 1 << 20:
        raise ImageImpossible(f"a device node has the number {major}:{minor}")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _round_up(length: int, unit: int) -> int:
    return -(-length // unit) * unit
