"""Owners, modes, extended attributes and times of what is restored."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable

from spraydry.errors import RestoreError
from spraydry.format.entry import SYMLINK, Entry
from spraydry.repository.xattrs import xattrs_of

_KEPT = (b"user.", b"trusted.", b"system.posix_acl_", b"security.capability")
_UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
OWNERS = "owners were not kept: only root can set them"
SET_ID = "set-user-ID and set-group-ID bits were dropped, as their owners were not kept"
PRIVILEGED = "trusted and security attributes were not kept: only root can set them"


class Attributes:
    """Sets them on what was just made. Blocks; for one thread. `notes` counts what this user or system cannot keep."""

    def __init__(self, read_chunk: Callable[[bytes], memoryview]) -> None:
        self._read_chunk = read_chunk
        self._root = os.geteuid() == 0
        self._groups = {os.getegid(), *os.getgroups()}
        self.notes: Counter[str] = Counter()

    def apply(self, entry: Entry, fd: int) -> None:
        """Everything for an open file or directory, in the order in which nothing undoes another: owner (which clears
        capabilities and set-id bits), extended attributes (which need write permission), mode, times."""
        mode = self._own(entry, os.fstat(fd), lambda uid, gid: os.chown(fd, uid, gid))
        try:
            self._xattrs(entry, fd)
        finally:
            os.chmod(fd, mode)
            stamp = _stamp(entry)
            os.utime(fd, ns=(stamp, stamp))

    def apply_to_name(self, entry: Entry, name: bytes, dir_fd: int) -> None:
        """Everything for what cannot be opened: symlinks, fifos, sockets, devices, `name` in the directory `dir_fd`."""
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        mode = self._own(entry, status, lambda uid, gid: os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False))
        # The one way to the attributes of a symlink or device by descriptor: /proc shows the directory it is in, and
        # the last name is not followed.
        try:
            self._xattrs(entry, b"/proc/self/fd/%d/%s" % (dir_fd, name))
        finally:
            if entry.kind != SYMLINK:
                _chmod(name, mode, dir_fd)
            stamp = _stamp(entry)
            os.utime(name, ns=(stamp, stamp), dir_fd=dir_fd, follow_symlinks=False)

    def _own(self, entry: Entry, status: os.stat_result, chown: Callable[[int, int], None]) -> int:
        """Set the owner; the mode that may be set after that."""
        if (status.st_uid, status.st_gid) == (entry.uid, entry.gid):
            return entry.mode
        uid = entry.uid if self._root else -1
        kept = False
        if self._root or entry.gid in self._groups:
            try:
                chown(uid, entry.gid)
                kept = self._root or status.st_uid == entry.uid
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL):  # owners this user namespace does not have
                    raise
        if kept:
            return entry.mode
        self.notes[OWNERS] += 1
        if entry.mode & 0o6000:
            self.notes[SET_ID] += 1
        return entry.mode & ~0o6000

    def _xattrs(self, entry: Entry, target: int | bytes) -> None:
        if not hasattr(os, "setxattr"):
            if entry.xattrs:
                self.notes["extended attributes were not kept: this system has none"] += 1
            return
        follow = isinstance(target, int)
        wanted = xattrs_of(entry, self._read_chunk)
        try:
            there = [os.fsencode(name) for name in os.listxattr(target, follow_symlinks=follow)]
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            there = []
        names = {name for name, _ in wanted}
        for name in there:  # inherited from a default ACL, or of a directory that was there before
            if name not in names and name.startswith(_KEPT) and (self._root or not _privileged(name)):
                os.removexattr(target, name, follow_symlinks=follow)
        failed: list[str] = []
        for name, value in wanted:
            try:
                os.setxattr(target, name, value, follow_symlinks=follow)
            except OSError as error:
                if isinstance(error, PermissionError) and not self._root and _privileged(name):
                    self.notes[PRIVILEGED] += 1
                else:
                    failed.append(f"{os.fsdecode(name)} ({error.strerror})")
        if failed:
            raise RestoreError(f"extended attributes could not be set: {', '.join(failed)}")


def _privileged(name: bytes) -> bool:
    return name.startswith((b"trusted.", b"security."))


def _stamp(entry: Entry) -> int:
    return entry.mtime_s * 10**9 + entry.mtime_ns


def _chmod(name: bytes, mode: int, dir_fd: int) -> None:
    if hasattr(os, "O_PATH"):
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)
    else:
        os.chmod(name, mode, dir_fd=dir_fd, follow_symlinks=False)
