"""A place in the tree being filled, reached by names relative to descriptors only, so that nothing leads out of it."""

from __future__ import annotations

import os

from spraydry.errors import RestoreError, UsageError

# Nothing below is opened by a longer path than one name, and no symlink is followed: not even a hostile version can
# put anything outside, and the depth of a tree is not limited by PATH_MAX.
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD_OPEN = 64  # directories above the current one; those further up are found again through ".."


def open_target(directory: str, overwrite: bool) -> int:
    """A descriptor of the directory to fill, which the caller closes. Raises UsageError where it must not be filled."""
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise UsageError(f"{directory} is not a directory") from None
    if not overwrite and os.listdir(top):
        os.close(top)
        raise UsageError(f"{directory} is not empty: name a new directory, or add --overwrite")
    return top


class Place:
    """The current directory of a walk that goes down and up; blocks; for one thread. `fd` is open while it is current.

    Methods raise OSError as the calls they make do.
    """

    def __init__(self, top: int) -> None:
        """`top` is a descriptor of the directory to stay in; it stays the caller's."""
        self._top = top
        self.fd = os.dup(top)
        self._above: list[tuple[int, tuple[int, int]]] = []  # descriptor or -1, and identity

    def enter(self, name: bytes) -> None:
        """Go down into a directory."""
        child = os.open(name, _DIRECTORY, dir_fd=self.fd)
        self._above.append((self.fd, _identity(self.fd)))
        self.fd = child
        if len(self._above) > _HELD_OPEN:
            held, identity = self._above[-_HELD_OPEN - 1]
            if held >= 0:
                os.close(held)
                self._above[-_HELD_OPEN - 1] = (-1, identity)

    def leave(self) -> int:
        """Go up; the descriptor of the directory left, which the caller closes. Raises RestoreError if it was moved."""
        fd, identity = self._above.pop()
        if fd < 0:
            fd = os.open(b"..", _DIRECTORY, dir_fd=self.fd)
            if _identity(fd) != identity:
                os.close(fd)
                raise RestoreError("a directory was moved while it was being restored; nothing more was written")
        left, self.fd = self.fd, fd
        return left

    def reach(self, path: bytes) -> int:
        """A descriptor of the directory at `path` from the top (b"" is the top), which the caller closes."""
        fd = os.dup(self._top)
        for name in path.split(b"/") if path else []:
            try:
                child = os.open(name, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = child
        return fd

    def close(self) -> None:
        """Close every descriptor it opened."""
        for fd in (self.fd, *(fd for fd, _ in self._above if fd >= 0)):
            os.close(fd)
        self._above.clear()


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
