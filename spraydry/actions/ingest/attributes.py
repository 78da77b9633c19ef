"""What the file system says of one inode, as an Entry."""

from __future__ import annotations

import errno
import os
import stat

from spraydry.format.chunker import MAX_CHUNK_BYTES
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    MAX_INLINE_XATTR_BYTES,
    SOCKET,
    SYMLINK,
    Content,
    Entry,
    Xattrs,
    encode_xattrs,
)

KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
}

# Not carried over: what another file system's own machinery keeps there, and what spraydry says of a version.
_NOT_KEPT = (
    "system.nfs4_acl",
    "system.cifs_acl",
    "user.spraydry.digest",
    "user.spraydry.version",
    "user.spraydry.lacks",
)
_NO_XATTRS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES}

if hasattr(os, "listxattr"):

    def read_xattrs(target: int | bytes) -> Xattrs:
        """The extended attributes of an open file or of a path (not following a symlink), sorted by name."""
        follow = isinstance(target, int)
        try:
            names = os.listxattr(target, follow_symlinks=follow)
            if not names:
                return ()
            return tuple(
                sorted(
                    (os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow))
                    for name in names
                    if name not in _NOT_KEPT
                )
            )
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return ()
            raise

else:  # not on Linux

    def read_xattrs(target: int | bytes) -> Xattrs:
        """This platform's Python has no extended attributes."""
        return ()


def entry_of(name: bytes, status: os.stat_result, size: int, content: Content, xattrs: Xattrs | bytes) -> Entry:
    """The entry an inode becomes; `xattrs` are the attributes or the digest of the chunk they are in."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    return Entry(
        name,
        KINDS[stat.S_IFMT(status.st_mode)],
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        seconds,
        nanoseconds,
        size,
        content,
        xattrs,
        None,
    )


def device_number(status: os.stat_result) -> int:
    """The number of a device node as entries hold it."""
    return os.major(status.st_rdev) << 32 | os.minor(status.st_rdev)


def outsized(xattrs: Xattrs) -> bytes | None:
    """The encoded attributes, if they are too many to stay in the entry. Raises OSError for more than a chunk holds."""
    if not xattrs or sum(len(name) + len(value) + 8 for name, value in xattrs) <= MAX_INLINE_XATTR_BYTES:
        return None
    plain = encode_xattrs(xattrs)
    if len(plain) > MAX_CHUNK_BYTES:
        raise OSError(errno.E2BIG, f"its extended attributes take more than {MAX_CHUNK_BYTES >> 20} MiB")
    return plain
