"""A folder of whole plain files by digest, of bounded size: what was not used for longest goes first."""

from __future__ import annotations

import errno
import fcntl
import heapq
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from spraydry.errors import CorruptData, StoreError, StoreUnavailable, UsageError
from spraydry.format.digest import hasher
from spraydry.format.entry import Entry
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.web.plain.handoff import Ended

_TEMPORARY = ".new-"
_LOCK = ".size"
_NAME = re.compile(r"[0-9a-f]{64}")
_JUST_USED_S = 30.0  # that long nothing goes that was used: whoever was told of it is about to open it
_TOUCH_AFTER_S = 5.0
_FULL = 0.9  # so full it is left when room was made, so that not every new file looks at all
_ZEROS = bytes(1 << 20)


class PlainFolder:
    """Files lie at `ab/abcd...`, named by the digest of their bytes, which was compared before they got that name.

    Blocks; threads and processes may share it. When a file was used last is its time of change, so it is known after a
    restart and to other processes. What all of them hold is counted in a file, under a lock; a crash makes that count
    too high at most, until the next start, or until room is made. What a crash left half written goes then, too:
    whoever writes holds a lock on it. A file that goes while it is being sent is there for whoever has it open.
    """

    def __init__(self, path: str, limit_bytes: int) -> None:
        """Makes the folder unless it is there. Raises UsageError where others may write into it, StoreError."""
        self.path = os.path.abspath(path)
        self.limit_bytes = limit_bytes
        try:
            os.makedirs(self.path, 0o700, exist_ok=True)
            found = os.stat(self.path)
            self._lock = os.open(os.path.join(self.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be used for plain files: {error.strerror}") from None
        if found.st_mode & 0o002:
            raise UsageError(f"{path} can be written by everybody: whoever likes could change what is sent")
        # As readable as the folder: the web server is somebody else.
        self._file_mode = 0o600 | found.st_mode & 0o044
        self._folder_mode = 0o700 | found.st_mode & 0o055
        self._group = found.st_gid
        self._mutex = threading.Lock()  # the lock on the file is the process's
        with self._locked():
            self._tell(self._make_room(0))

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._lock)

    def place(self, name: str) -> str:
        """Where a file lies below the folder."""
        return f"{name[:2]}/{name}"

    def use(self, name: str, size: int) -> bool:
        """Whether the file of that digest is there; it counts as used now. Quick."""
        path = os.path.join(self.path, self.place(name))
        try:
            found = os.stat(path)
            if found.st_size != size:  # somebody else has been here
                os.unlink(path)
                return False
            if time.time() - found.st_mtime > _TOUCH_AFTER_S:
                os.utime(path)
        except OSError:
            return False
        return True

    def bring(self, repository: Repository, name: str, entry: Entry, ended: threading.Event) -> bool:
        """Write the file of that digest; False where there is no room. Raises Ended, CorruptData, and what reading
        raises."""
        if not self._reserve(entry.size):
            return False
        try:
            self._write(repository, name, entry, ended)
        except BaseException as error:
            self._give_back(entry.size)
            if isinstance(error, OSError):
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return False
                raise StoreError(f"{self.path} cannot be written: {error.strerror}") from None
            raise
        return True

    def _write(self, repository: Repository, name: str, entry: Entry, ended: threading.Event) -> None:
        temporary = os.path.join(self.path, _TEMPORARY + secrets.token_hex(8))
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, entry.size)
            whole, at = hasher(), 0
            for span, chunk in read_ahead(repository, entry):
                if ended.is_set():
                    raise Ended
                if chunk is None:
                    for done in range(0, span.length, len(_ZEROS)):
                        whole.update(memoryview(_ZEROS)[: span.length - done])
                else:
                    whole.update(chunk)
                    _write_all(descriptor, chunk, at)
                at += span.length
            if at != entry.size or whole.digest().hex() != name:
                raise CorruptData(f"a file's chunks do not make up what its digest says: {name}")
            with suppress(OSError):  # not ours to give, where we are not root or in that group
                os.fchown(descriptor, -1, self._group)
            os.fchmod(descriptor, self._file_mode)
            os.fsync(descriptor)
            folder = os.path.join(self.path, name[:2])
            if not os.path.isdir(folder):
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
                with suppress(OSError):
                    os.chown(folder, -1, self._group)
                os.chmod(folder, self._folder_mode)
            os.rename(temporary, os.path.join(folder, name))
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)

    # -- room

    def _reserve(self, size: int) -> bool:
        with self._locked():
            held = self._told()
            if held is None or held + size > self.limit_bytes:
                held = self._make_room(size)
            if held + size > self.limit_bytes:
                self._tell(held)
                return False
            self._tell(held + size)
            return True

    def _give_back(self, size: int) -> None:
        with self._locked():
            held = self._told()
            if held is not None:
                self._tell(max(held - size, 0))

    def _make_room(self, size: int) -> int:
        """Count what is there, take away what has to go; how much is left."""
        held, oldest = 0, []
        now = time.time()
        for path, found in self._files():
            if os.path.basename(path).startswith(_TEMPORARY):
                if _is_left_over(path):
                    continue
                held += found.st_size
                continue
            held += found.st_size
            if now - found.st_mtime > _JUST_USED_S:
                oldest.append((found.st_mtime_ns, found.st_size, path))
        if held + size <= self.limit_bytes:
            return held
        heapq.heapify(oldest)
        while oldest and held + size > self.limit_bytes * _FULL:
            _, freed, path = heapq.heappop(oldest)
            with suppress(FileNotFoundError):
                os.unlink(path)
            held -= freed
        return held

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self.path) as top:
            folders = [one for one in top if not one.name.startswith(".") or one.name.startswith(_TEMPORARY)]
        for one in folders:
            inside = [one]
            if one.is_dir(follow_symlinks=False):
                with os.scandir(one.path) as below:
                    inside = [file for file in below if _NAME.fullmatch(file.name)]
            for file in inside:
                with suppress(FileNotFoundError):
                    found = file.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield file.path, found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _told(self) -> int | None:
        text = os.pread(self._lock, 64, 0)
        return int(text) if text.isdigit() else None

    def _tell(self, held: int) -> None:
        os.pwrite(self._lock, b"%020d" % held, 0)


def _write_all(descriptor: int, plain: memoryview, at: int) -> None:
    while plain:
        done = os.pwrite(descriptor, plain, at)
        plain, at = plain[done:], at + done


def _is_left_over(path: str) -> bool:
    """Take away a temporary file that nobody writes any more; whether it was one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from None
    else:
        with suppress(OSError):
            os.unlink(path)
        return True
    finally:
        os.close(descriptor)
