"""What the kernel and a FUSE server write to each other: layouts of linux/fuse.h, protocol 7.21 and later. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

# Requests begin with: length, opcode, unique, nodeid, uid, gid, pid, length of extensions, padding.
IN_HEADER = struct.Struct("=IIQQIIIHH")
# Answers begin with: length, minus the errno, unique.
OUT_HEADER = struct.Struct("=IiQ")

FORGET, OPENDIR, RELEASEDIR, INIT, INTERRUPT, BATCH_FORGET = 2, 27, 29, 26, 36, 42
UNANSWERED = frozenset((FORGET, BATCH_FORGET))

# Bits of the flags of INIT: what the kernel makes of ENOSYS to OPEN and OPENDIR.
NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT = 1 << 17, 1 << 24
# Bits of the answers to OPEN and OPENDIR.
KEEP_CACHE, CACHE_DIR = 1 << 1, 1 << 3

# As struct fuse_attr: ino, size, blocks of 512 bytes, the seconds of atime, mtime and ctime, their nanoseconds, mode,
# nlink, uid, gid, rdev, blksize, flags. Not a NamedTuple: one is made for each entry of a listing, and that takes four
# times as long.
Attr = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
_ATTRIBUTES = "QQQqqqIIIIIIIIII"
_ATTR_OUT = struct.Struct("=QII" + _ATTRIBUTES)
_ENTRY = "QQQQII" + _ATTRIBUTES
_ENTRY_OUT = struct.Struct("=" + _ENTRY)
_DIRENT = struct.Struct("=QQII")
_DIRENTPLUS = struct.Struct("=" + _ENTRY + "QQII")
_OPEN_OUT = struct.Struct("=QII")
_XATTR_SIZE = struct.Struct("=II")
_STATFS_OUT = struct.Struct("=QQQQQIII28x")

_UINT32 = struct.Struct("=I")
_UINT32_AT_24 = struct.Struct("=24xI")
_OFFSET_SIZE = struct.Struct("=8xQI")
_BODY = IN_HEADER.size

# A mode's type bits are the type of a directory entry, shifted.
_TYPE_SHIFT, _TYPE_MASK = 12, 0o17


def entry_out(attr: Attr | None, valid_s: int) -> bytes:
    """The answer to LOOKUP: the kernel keeps name and attributes for so long; without attributes, that there is no
    such name."""
    if attr is None:
        return _ENTRY_OUT.pack(0, 0, valid_s, 0, 0, 0, *(0,) * 16)
    return _ENTRY_OUT.pack(attr[0], 0, valid_s, valid_s, 0, 0, *attr)


def attr_out(attr: Attr, valid_s: int) -> bytes:
    """The answer to GETATTR."""
    return _ATTR_OUT.pack(valid_s, 0, 0, *attr)


def open_out(flags: int) -> bytes:
    """The answer to OPEN and OPENDIR. There are no file handles: requests name the inode too."""
    return _OPEN_OUT.pack(0, flags, 0)


def xattr_out(value: bytes, size: int) -> bytes | None:
    """The answer to GETXATTR and LISTXATTR for a reader with room for `size` bytes, 0 to ask how much it takes; None
    where that is too little."""
    if size == 0:
        return _XATTR_SIZE.pack(len(value), 0)
    return value if len(value) <= size else None


def statfs_out(blocks: int, inodes: int, block_bytes: int, name_bytes: int) -> bytes:
    """The answer to STATFS for a file system with nothing free."""
    return _STATFS_OUT.pack(blocks, 0, 0, inodes, 0, block_bytes, name_bytes, block_bytes)


class Listing:
    """The answer to READDIR or READDIRPLUS, as many entries as `room` bytes take."""

    def __init__(self, room: int, plus: bool) -> None:
        self._parts: list[bytes] = []
        self._room = room
        self._plus = plus

    def add(self, name: bytes, attr: Attr, next_offset: int, valid_s: int) -> bool:
        """The next entry, behind which a reader goes on at `next_offset`; False where there is no room for it."""
        length = len(name)
        padding = -length & 7
        mode, ino = attr[9], attr[0]
        kind = mode >> _TYPE_SHIFT & _TYPE_MASK
        if self._plus:
            self._room -= 152 + length + padding
            if self._room < 0:
                return False
            head = _DIRENTPLUS.pack(ino, 0, valid_s, valid_s, 0, 0, *attr, ino, next_offset, length, kind)
        else:
            self._room -= 24 + length + padding
            if self._room < 0:
                return False
            head = _DIRENT.pack(ino, next_offset, length, kind)
        self._parts += (head, name, _PADDING[padding])
        return True

    def add_dot(self, name: bytes, ino: int, next_offset: int) -> bool:
        """`.` or `..`, of which the kernel takes only the number."""
        attr = (ino, 0, 0, 0, 0, 0, 0, 0, 0, 0o40000, 0, 0, 0, 0, 0, 0)
        return self.add(name, attr, next_offset, 0)

    def packed(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


_PADDING = [bytes(count) for count in range(8)]


# -- requests: from the bytes to the arguments of a handler

Parse = Callable[[bytearray, int, int, int], tuple[Any, ...]]  # buffer, length, nodeid, uid


def _nothing(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int]:
    return (ino,)


def _name(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int, bytes]:
    return ino, bytes(buffer[_BODY : buffer.index(0, _BODY, length)])


def _flags(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int, int]:
    return ino, _UINT32.unpack_from(buffer, _BODY)[0]


def _range(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int, int, int]:
    offset, size = _OFFSET_SIZE.unpack_from(buffer, _BODY)
    return ino, offset, size


def _getxattr(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int, bytes, int]:
    (size,) = _UINT32.unpack_from(buffer, _BODY)
    return ino, bytes(buffer[_BODY + 8 : buffer.index(0, _BODY + 8, length)]), size


def _listxattr(buffer: bytearray, length: int, ino: int, uid: int) -> tuple[int, int, int]:
    (size,) = _UINT32.unpack_from(buffer, _BODY)
    return ino, size, uid


# The requests that handlers answer, by opcode: the handler's name, and how to read its arguments.
REQUESTS: dict[int, tuple[str, Parse]] = {
    1: ("lookup", _name),
    3: ("getattr", _nothing),
    5: ("readlink", _nothing),
    14: ("open", _flags),
    15: ("read", _range),
    17: ("statfs", _nothing),
    18: ("release", _nothing),
    22: ("getxattr", _getxattr),
    23: ("listxattr", _listxattr),
    25: ("flush", _nothing),
    27: ("opendir", _flags),
    28: ("readdir", _range),
    29: ("releasedir", _nothing),
    44: ("readdirplus", _range),
}


def init_flags(buffer: bytearray) -> int:
    """What the kernel offers, of the flags of an INIT."""
    return int(_UINT32.unpack_from(buffer, _BODY + 12)[0])
