"""The files of a database: made for their owner only, removed together, and where they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from spraydry.stores.database.errors import of_os

# WAL needs shared memory between its users, which network file systems do not give, nor most of what FUSE serves.
_NETWORK = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "gpfs", "beegfs", "virtiofs"}

_OCTAL = re.compile(r"\\([0-7]{3})")  # how blanks and backslashes in mount points are written


def make_private_file(path: str) -> None:
    """An empty file, and its folders, unless they are there. Raises StoreError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise of_os(error, path) from None


def remove_files(path: str) -> None:
    """The database and what SQLite keeps beside it."""
    for ending in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(path + ending)


def is_cut_short(path: str, page_bytes: int) -> bool:
    """Whether a part of the last page is missing, for which SQLite gives zeros: of whole pages it notices that."""
    waiting = _size(path + "-wal") + _size(path + "-journal")
    return not waiting and _size(path) % page_bytes != 0


def journal_mode(path: str) -> str:
    """The journal that works where the database lies, as SQLite calls it."""
    kind = _file_system(path)
    return "truncate" if kind in _NETWORK or kind.startswith("fuse.") else "wal"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _file_system(path: str) -> str:
    """The type of the file system `path` lies on, as /proc/self/mounts names it; empty where that is unknown."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            return _type_in(mounts, path)
    except (OSError, ValueError):
        return ""


def _type_in(mounts: Iterable[str], path: str) -> str:
    best, kind = "", ""
    for line in mounts:
        _, point, found = line.split(" ", 3)[:3]
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), point)
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind
