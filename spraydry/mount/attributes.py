"""What `stat` and `getxattr` show of an entry."""

from __future__ import annotations

import os
import stat

import pyfuse3

from spraydry.format.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SOCKET,
    SYMLINK,
    Entry,
    Runs,
)
from spraydry.mount.inodes import Node
from spraydry.mount.roots import Shown

# Versions never change, so the kernel may keep what it was told. It takes this for "as long as it likes".
FOREVER_S = 1e9
LIVE_S = 1.0  # the levels where new roots and versions appear

DIGEST_XATTR = b"user.spraydry.digest"
VERSION_XATTR = b"user.spraydry.version"

_TYPES = {
    FILE: stat.S_IFREG,
    DIRECTORY: stat.S_IFDIR,
    SYMLINK: stat.S_IFLNK,
    FIFO: stat.S_IFIFO,
    SOCKET: stat.S_IFSOCK,
    CHARACTER: stat.S_IFCHR,
    BLOCK: stat.S_IFBLK,
}
_PREFERRED_READ_BYTES = 128 << 10
# A directory's size and blocks are those of a small one on ext4, so that `du` says about what it says of the source.
_DIRECTORY_BYTES = 4096

Owner = tuple[int, int]


class Attributes:
    """Fills in EntryAttributes. `owner` (uid, gid) is shown instead of the one stored, if given."""

    def __init__(self, owner: Owner | None = None) -> None:
        self._owner = owner
        self._own = (os.getuid(), os.getgid())

    def of(self, node: Node) -> pyfuse3.EntryAttributes:
        """Those of an entry."""
        attributes = self.blank()
        self.fill(attributes, node.entry, node.ino, node.of.nlink(node.entry))
        return attributes

    @staticmethod
    def blank() -> pyfuse3.EntryAttributes:
        """An object for `fill`."""
        attributes = pyfuse3.EntryAttributes()
        attributes.entry_timeout = FOREVER_S
        attributes.attr_timeout = FOREVER_S
        attributes.st_blksize = _PREFERRED_READ_BYTES
        return attributes

    def fill(self, attributes: pyfuse3.EntryAttributes, entry: Entry, ino: int, nlink: int) -> None:
        """Set everything that differs between entries. Access and change time are the modification time."""
        kind, content, size = entry.kind, entry.content, entry.size
        if kind == FILE:
            attributes.st_blocks = ((content.filled if isinstance(content, Runs) else size) + 511) >> 9
            attributes.st_rdev = 0
        elif kind == DIRECTORY:
            size = _DIRECTORY_BYTES
            attributes.st_blocks = _DIRECTORY_BYTES >> 9
            attributes.st_rdev = 0
        else:
            attributes.st_blocks = 0
            attributes.st_rdev = os.makedev(content >> 32, content & 0xFFFFFFFF) if isinstance(content, int) else 0
        attributes.st_ino = ino
        attributes.st_mode = _TYPES[kind] | entry.mode
        attributes.st_nlink = nlink
        attributes.st_uid, attributes.st_gid = self._owner or (entry.uid, entry.gid)
        attributes.st_size = size
        mtime_ns = entry.mtime_s * 1_000_000_000 + entry.mtime_ns
        attributes.st_mtime_ns = mtime_ns
        attributes.st_atime_ns = mtime_ns
        attributes.st_ctime_ns = mtime_ns

    def of_shown(self, shown: Shown) -> pyfuse3.EntryAttributes:
        """Those of a folder or symlink above the versions; they are asked for again after a second."""
        attributes = pyfuse3.EntryAttributes()
        attributes.entry_timeout = LIVE_S
        attributes.attr_timeout = LIVE_S
        attributes.st_ino = shown.ino
        attributes.st_mode = (stat.S_IFDIR | 0o555) if shown.target is None else (stat.S_IFLNK | 0o777)
        attributes.st_size = _DIRECTORY_BYTES if shown.target is None else len(shown.target)
        attributes.st_blocks = 0
        attributes.st_uid, attributes.st_gid = self._owner or self._own
        attributes.st_mtime_ns = attributes.st_atime_ns = attributes.st_ctime_ns = shown.mtime_ns
        return attributes


def own_xattr(node: Node, name: bytes) -> bytes | None:
    """The attributes that spraydry adds, which answer when asked for by name and are never listed, so that copies stay
    faithful: the digest of a file, as `b3sum` prints it, and the version."""
    if name == DIGEST_XATTR:
        digest = node.entry.file_digest
        return digest.hex().encode() if digest is not None else None
    if name == VERSION_XATTR:
        return node.of.label.encode()
    return None
