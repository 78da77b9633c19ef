"""Files in folders: errors of the operating system as ours, and steps that no symbolic link leads elsewhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from spraydry.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNAVAILABLE = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ESHUTDOWN,
    errno.EREMOTEIO,
}
_NO_FOLDER = {errno.ENOTDIR, errno.ELOOP}

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a fifo must not keep us waiting
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def translated(path: str, *, writing: bool = False) -> Iterator[None]:
    """Errors of the operating system as StoreErrors that name `path`, in one line each."""
    try:
        yield
    except OSError as error:
        number, reason = error.errno or 0, error.strerror or str(error)
        if number in _FULL:
            raise StoreFull(f"no room is left for {path}: free some space and run the command again") from None
        if number in _FORBIDDEN and writing:
            raise StoreReadOnly(f"{path} cannot be written (permissions, or a read-only medium)") from None
        if number in _UNAVAILABLE:
            raise StoreUnavailable(f"{path} does not answer: {reason}; is its disk there?") from None
        if number in _NO_FOLDER:
            what = "a file or symbolic link lies where a folder belongs (links are not followed)"
            raise StoreError(f"{path}: {what}") from None
        if number == errno.ENOENT:
            raise StoreUnavailable(f"{path} is not there any more, or parts of it: is its disk mounted?") from None
        raise StoreError(f"{path} cannot be {'written' if writing else 'read'}: {reason}") from None


def open_folder(at: int, parts: Iterable[str]) -> int:
    """A descriptor of the folder `parts` below the open folder `at`. Raises OSError, also for links on the way."""
    folder = os.dup(at)
    for part in parts:
        try:
            deeper = os.open(part, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = deeper
    return folder


def open_file(at: int, name: str) -> int:
    """A descriptor of what is called `name` in the open folder `at`, for reading. Raises OSError, also for a link."""
    return os.open(name, _READ, dir_fd=at)


def write_new(at: int, name: str, value: bytes, mode: int) -> None:
    """Make the file `name` in the open folder `at`, whole and durable (its name is not yet). Raises OSError."""
    file = os.open(name, _NEW, 0o600, dir_fd=at)
    try:
        left = memoryview(value).cast("B")
        while left:
            left = left[os.write(file, left) :]
        if mode != 0o600:
            os.fchmod(file, mode)
        os.fsync(file)
    except BaseException:
        os.unlink(name, dir_fd=at)
        raise
    finally:
        os.close(file)


def read_part(file: int, start: int, length: int) -> bytes:
    """Up to `length` bytes from byte `start` of an open file, fewer where it ends. Raises OSError."""
    parts = []
    while length > 0 and (part := os.pread(file, length, start)):
        parts.append(part)
        start += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def sync_folder(folder: int) -> None:
    """Make durable which names are in an open folder. Raises OSError."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that does so by itself, or never
            raise
