"""What an EROFS image consists of: directory blocks, extended attributes, indexes, numbers of devices and features.

Layout: include/uapi of Linux, fs/erofs/erofs_fs.h, and Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from spraydry.errors import ImageImpossible
from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Xattrs

BLOCK_BYTES = 4096
MAGIC = 0xE0F5E1E2
SUPERBLOCK_AT = 1024
SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBI32x")
SLOT = struct.Struct("<64sII56x")
HAS_MTIME, HAS_CHUNKS, HAS_DEVICES = 2, 4, 8  # one compatible feature, two that a reader must know
UNIT = 32  # inodes are numbered by where they begin, in units

INODE = struct.Struct("<HHHHQIIIIqII16x")
NID = struct.Struct("<Q")
PLAIN, INLINE, CHUNKED = 1 | 0 << 1, 1 | 2 << 1, 1 | 4 << 1
FORMATS = {FILE: 0o100000, DIRECTORY: 0o040000, SYMLINK: 0o120000, FIFO: 0o010000, SOCKET: 0o140000}
FORMATS |= {CHARACTER: 0o020000, BLOCK: 0o060000}
INDEX = struct.Struct("<HHI")
INDEXED, NOWHERE = 0x20, 0xFFFFFFFF

_DIRENT = struct.Struct("<QHBB")
_TYPES = {FILE: 1, DIRECTORY: 2, CHARACTER: 3, BLOCK: 4, FIFO: 5, SOCKET: 6, SYMLINK: 7}

_MAX_CHUNK_BITS = 31 + 12
_HOLE_BITS = 16
# A file with holes gets at most so many indexes (8 bytes each): those of a larger file are as coarse as that takes.
_MAX_INDEXES = 1 << 14

XATTR_HEADER = struct.Struct("<IB7x")
_XATTR_PREFIXES = {b"user.": 1, b"trusted.": 4, b"security.": 6}
_XATTR_WHOLE = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_MAX_SHARED_BYTES = 2 << 20
_KEPT_BODIES = 4096


class DirectoryBlocks:
    """The bytes of a directory, from names added in their order. `.` and `..` come in by themselves, where they sort;
    `dots` says where their numbers, still 0, stand."""

    def __init__(self) -> None:
        self.dots = [0, 0]
        self._blocks = bytearray()
        self._names: list[bytes] = []
        self._nids: list[int] = []
        self._types = bytearray()
        self._used = 0
        self._pending = [b"..", b"."]

    def add(self, name: bytes, nid: int, kind: int) -> None:
        """The next name, of the inode with that number."""
        while self._pending and self._pending[-1] < name:
            self._dot()
        self._append(name, nid, _TYPES[kind])

    def _dot(self) -> None:
        name = self._pending.pop()
        self.dots[len(name) - 1] = self._append(name, 0, _TYPES[DIRECTORY])

    def _append(self, name: bytes, nid: int, kind: int) -> int:
        room = _DIRENT.size + len(name)
        if self._used + room > BLOCK_BYTES:
            self._close_block(True)
        self._used += room
        self._names.append(name)
        self._nids.append(nid)
        self._types.append(kind)
        return len(self._blocks) + _DIRENT.size * (len(self._names) - 1)

    def _close_block(self, full: bool) -> None:
        at = _DIRENT.size * len(self._names)
        pack, parts = _DIRENT.pack, []
        for name, nid, kind in zip(self._names, self._nids, self._types, strict=True):
            parts.append(pack(nid, at, kind, 0))
            at += len(name)
        self._blocks += b"".join((*parts, *self._names))
        if full:
            self._blocks += bytes(-len(self._blocks) % BLOCK_BYTES)
            self._names, self._nids, self._types, self._used = [], [], bytearray(), 0

    def finish(self) -> bytearray:
        """All of them; the last block ends with its last name."""
        while self._pending:
            self._dot()
        self._close_block(False)
        return self._blocks


class XattrBodies:
    """What stands between an inode and what follows it: attributes that repeat by their number in `shared`, an area of
    the image that all inodes share while there is room in it, others as they are."""

    def __init__(self) -> None:
        self.shared = bytearray()
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        self._bodies: dict[Xattrs, bytes] = {(): b""}

    def of(self, xattrs: Xattrs) -> bytes:
        """In multiples of 4 bytes; nothing for no attributes. Raises ImageImpossible."""
        body = self._bodies.get(xattrs)
        if body is None:
            numbers: list[int] = []
            own = bytearray()
            for name, value in xattrs:
                number = self._share(name, value) if len(numbers) < 255 else None
                if number is None:
                    own += _packed_xattr(name, value)
                else:
                    numbers.append(number)
            body = XATTR_HEADER.pack(0, len(numbers)) + struct.pack(f"<{len(numbers)}I", *numbers) + own
            if (len(body) - XATTR_HEADER.size) // 4 + 1 > 0xFFFF:
                raise ImageImpossible(f"a file has {len(body)} bytes of extended attributes")
            if len(self._bodies) >= _KEPT_BODIES:
                self._bodies = {(): b""}
            self._bodies[xattrs] = body
        return body

    def _share(self, name: bytes, value: bytes) -> int | None:
        number = self._numbers.get((name, value))
        if number is None:
            packed = _packed_xattr(name, value)
            if len(self.shared) + len(packed) > _MAX_SHARED_BYTES:
                return None
            number = self._numbers[name, value] = len(self.shared) // 4
            self.shared += packed
        return number


def _packed_xattr(name: bytes, value: bytes) -> bytes:
    found = [(prefix, index) for prefix, index in _XATTR_PREFIXES.items() if name.startswith(prefix)]
    if name in _XATTR_WHOLE:
        found = [(name, _XATTR_WHOLE[name])]
    if not found:
        raise ImageImpossible(f"an extended attribute is called {name!r}")
    if len(value) > 0xFFFF:
        raise ImageImpossible(f"the extended attribute {name!r} has {len(value)} bytes")
    prefix, index = found[0]
    rest = name[len(prefix) :]
    packed = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
    return packed + bytes(-len(packed) % 4)


def chunk_bits(size: int, filled: Sequence[tuple[int, int]]) -> int:
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


def device_number(content: int) -> int:
    """A device number of an entry as EROFS has it. Raises ImageImpossible for one that Linux does not have."""
    major, minor = content >> 32, content & 0xFFFFFFFF
    if major >= 1 << 12 or minor >= 1 << 20:
        raise ImageImpossible(f"a device node has the number {major}:{minor}")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def front_block(
    root: int,
    inodes: int,
    blocks: int,
    metadata_at: int,
    shared_at: int,
    uuid: bytes,
    slots: Sequence[tuple[int, int]],
) -> bytes:
    """The first block of an image of so many blocks: its superblock, and the devices behind it, each as (blocks, the
    first block where it is also mapped)."""
    front = bytearray(BLOCK_BYTES)
    SUPERBLOCK.pack_into(
        front,
        SUPERBLOCK_AT,
        MAGIC,
        0,
        HAS_MTIME,
        12,
        0,
        root,
        inodes,
        0,
        0,
        blocks,
        metadata_at,
        shared_at,
        uuid,
        b"spraydry",
        HAS_CHUNKS | (HAS_DEVICES if slots else 0),
        0,
        len(slots),
        (SUPERBLOCK_AT + SUPERBLOCK.size) // SLOT.size,
        0,
        0,
        0,
    )
    for number, (held, mapped_at) in enumerate(slots):
        at = SUPERBLOCK_AT + SUPERBLOCK.size + number * SLOT.size
        SLOT.pack_into(front, at, b"contents-%d" % number, held, mapped_at)
    return bytes(front)
