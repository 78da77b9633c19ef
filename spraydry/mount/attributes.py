"""What `stat` and `getxattr` show of an entry."""

from __future__ import annotations

import os
import stat

from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry, Runs
from spraydry.mount.inodes import Node
from spraydry.mount.roots import Shown
from spraydry.mount.wire import Attr

# Versions never change, so the kernel may keep what it was told. It takes this for "as long as it likes".
FOREVER_S = 1 << 30
LIVE_S = 1  # the levels where new roots and versions appear

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
    """`owner` (uid, gid) is shown instead of the one stored, if given."""

    def __init__(self, owner: Owner | None = None) -> None:
        self._owner = owner
        self._own = (os.getuid(), os.getgid())

    def of(self, node: Node) -> Attr:
        """Those of an entry."""
        return self.of_entry(node.entry, node.ino, node.of.nlink(node.entry))

    def of_entry(self, entry: Entry, ino: int, nlink: int) -> Attr:
        """The same, where number and link count are known. Access and change time are the modification time."""
        kind, content, size, second, ns = entry.kind, entry.content, entry.size, entry.mtime_s, entry.mtime_ns
        blocks = rdev = 0
        if kind == FILE:
            blocks = ((content.filled if isinstance(content, Runs) else size) + 511) >> 9
        elif kind == DIRECTORY:
            size = _DIRECTORY_BYTES
            blocks = _DIRECTORY_BYTES >> 9
        elif isinstance(content, int):
            rdev = os.makedev(content >> 32, content & 0xFFFFFFFF) & 0xFFFFFFFF
        uid, gid = self._owner or (entry.uid, entry.gid)
        mode = _TYPES[kind] | entry.mode
        return (
            ino, size, blocks, second, second, second, ns, ns, ns, mode, nlink, uid, gid, rdev, _PREFERRED_READ_BYTES, 0
        )  # fmt: skip

    def of_shown(self, shown: Shown) -> Attr:
        """Those of a folder or symlink above the versions; they are asked for again after a second."""
        mode = (stat.S_IFDIR | 0o555) if shown.target is None else (stat.S_IFLNK | 0o777)
        size = _DIRECTORY_BYTES if shown.target is None else len(shown.target)
        uid, gid = self._owner or self._own
        second, ns = divmod(shown.mtime_ns, 10**9)
        return shown.ino, size, 0, second, second, second, ns, ns, ns, mode, 1, uid, gid, 0, 4096, 0


def own_xattr(node: Node, name: bytes) -> bytes | None:
    """The attributes that spraydry adds, which answer when asked for by name and are never listed, so that copies stay
    faithful: the digest of a file, as `b3sum` prints it, and the version."""
    if name == DIGEST_XATTR:
        digest = node.entry.file_digest
        return digest.hex().encode() if digest is not None else None
    if name == VERSION_XATTR:
        return os.fsencode(node.of.label)
    return None
