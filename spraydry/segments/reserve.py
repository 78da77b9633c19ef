"""Some room kept on a disk, so that marks of deletion can be written when it is full."""

from __future__ import annotations

import os

from spraydry.segments.files import File

_NAME = "reserve"
_BYTES = 256 << 10


def room(folder: str) -> int:
    """How many bytes the file system of `folder` still takes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def make_reserve(folder: str) -> None:
    """Keep some room if there is plenty."""
    path = os.path.join(folder, _NAME)
    if room(folder) > 4 * _BYTES and not os.path.exists(path):
        file = File(path, os.O_RDWR | os.O_CREAT)
        try:
            os.posix_fallocate(file.fd, 0, _BYTES)
        except OSError:
            os.unlink(path)


def release_reserve(folder: str) -> None:
    """Give it back where room is short."""
    if room(folder) < _BYTES:
        try:
            os.unlink(os.path.join(folder, _NAME))
        except FileNotFoundError:
            pass  # it was released before
