"""Reads what handlers answer, by the layouts of linux/fuse.h, written down once more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

# struct fuse_attr, fuse_entry_out, fuse_attr_out, fuse_dirent, with the alignment of C
_ATTR = "QQQqqqIIIIIIIIII"
_ENTRY_OUT = struct.Struct("@QQQQII" + _ATTR)
_ATTR_OUT = struct.Struct("@QII" + _ATTR)
_DIRENT = struct.Struct("@QQII")


class Attr(NamedTuple):
    """struct fuse_attr"""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


class Entry(NamedTuple):
    """struct fuse_entry_out"""

    ino: int
    entry_valid_s: int
    attr: Attr


class Listed(NamedTuple):
    """struct fuse_direntplus, or fuse_dirent (then `entry` is of nothing)"""

    name: bytes
    ino: int
    offset: int
    kind: int
    entry: Entry


def entry(answer: bytes) -> Entry:
    """The answer to LOOKUP."""
    ino, generation, entry_valid_s, attr_valid_s, entry_ns, attr_ns, *rest = _ENTRY_OUT.unpack(answer)
    assert generation == entry_ns == attr_ns == 0 and attr_valid_s in (entry_valid_s, 0)
    return Entry(ino, entry_valid_s, Attr(*rest))


def attributes(answer: bytes) -> tuple[Attr, int]:
    """The answer to GETATTR, and how many seconds it is valid."""
    valid_s, ns, dummy, *rest = _ATTR_OUT.unpack(answer)
    assert ns == dummy == 0
    return Attr(*rest), valid_s


def entries(answer: bytes, plus: bool) -> Iterator[Listed]:
    """The answer to READDIRPLUS or READDIR."""
    while answer:
        found = entry(bytes(_ENTRY_OUT.size))
        if plus:
            found, answer = entry(answer[: _ENTRY_OUT.size]), answer[_ENTRY_OUT.size :]
        ino, offset, length, kind = _DIRENT.unpack_from(answer)
        padded = _DIRENT.size + -(-length // 8) * 8
        assert len(answer) >= padded
        yield Listed(answer[_DIRENT.size : _DIRENT.size + length], ino, offset, kind, found)
        answer = answer[padded:]
