"""Files by descriptor: closed with their last user, whole reads and writes, locks between processes, errors as ours."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from spraydry.errors import StoreError, StoreFull, StoreNotFound, StoreReadOnly, StoreUnavailable
from spraydry.format.digest import Buffer

LOCK_TIMEOUT_S = 30.0
_MOST_PARTS = 1000  # one call takes 1024

_KINDS: dict[int, type[StoreError]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EFBIG: StoreFull,
    errno.EROFS: StoreReadOnly,
    errno.EACCES: StoreReadOnly,
    errno.EPERM: StoreReadOnly,
    errno.ENOENT: StoreNotFound,
    errno.EMFILE: StoreUnavailable,
    errno.ENFILE: StoreUnavailable,
}


@contextmanager
def translated(path: str) -> Iterator[None]:
    """The system's errors as ours, in one line each."""
    try:
        yield
    except OSError as error:
        raise as_ours(error, path) from None


def as_ours(error: OSError, path: str) -> StoreError:
    """An error of the system, in one line."""
    kind = _KINDS.get(error.errno or 0, StoreError)
    advice = ": free some space and run the command again" if kind is StoreFull else ""
    return kind(f"{error.filename or path}: {error.strerror or error}{advice}")


class File:
    """An open descriptor that is closed when nobody refers to it any more, so that no reader finds another file under
    its number. Blocks; threads may share it."""

    def __init__(self, path: str, flags: int = os.O_RDONLY) -> None:
        self.fd = -1
        self.fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.fd >= 0:
            close(self.fd)

    def size(self) -> int:
        return os.lseek(self.fd, 0, os.SEEK_END)  # a third of fstat's time; nobody uses the place that it sets

    def read(self, size: int, at: int) -> bytes:
        """`size` bytes from offset `at`, fewer where the file ends."""
        got = os.pread(self.fd, size, at)
        if len(got) == size or not got:
            return got
        parts = [got]  # the end of the file, or one call's limit
        while got and (size := size - len(got)):
            got = os.pread(self.fd, size, at := at + len(got))
            parts.append(got)
        return b"".join(parts)

    def write(self, parts: Sequence[Buffer], at: int) -> int:
        """Write `parts` one after another from offset `at`; how many bytes that were."""
        total = sum(map(len, parts))
        done = os.pwritev(self.fd, parts[:_MOST_PARTS], at)
        if done < total:  # a full disk, one call's limits
            rest = memoryview(b"".join(parts))
            while done < total:
                done += os.pwrite(self.fd, rest[done:], at + done)
        return total


def is_read_only(error: OSError) -> bool:
    """Whether it says that something cannot be written, but perhaps read."""
    return _KINDS.get(error.errno or 0) is StoreReadOnly


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    folder = File(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder.fd)


def lock(path: str, *, shared: bool) -> File:
    """The lock of all who use `path`, held until `unlock`; a process that dies leaves none.

    Raises StoreUnavailable when others hold it for longer than LOCK_TIMEOUT_S.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    file = File(path, os.O_RDONLY if shared else os.O_RDWR)
    try:
        fcntl.flock(file.fd, how | fcntl.LOCK_NB)
        return file
    except BlockingIOError:
        pass
    # Waiting in the kernel's queue is fair, which trying again is not, but has no time limit: so a thread waits.
    deciding, held, given_up = threading.Lock(), threading.Event(), threading.Event()

    def wait() -> None:
        fcntl.flock(file.fd, how)
        with deciding:
            if given_up.is_set():
                unlock(file)
            else:
                held.set()

    threading.Thread(target=wait, daemon=True, name="spraydry-lock").start()
    if not held.wait(LOCK_TIMEOUT_S):
        with deciding:
            if not held.is_set():
                given_up.set()
                raise StoreUnavailable(f"{path} is locked by another process; try again when it has finished")
    return file


def unlock(file: File) -> None:
    """Let go of a lock at once, even if something, such as an error's trace, still refers to the File."""
    fcntl.flock(file.fd, fcntl.LOCK_UN)
