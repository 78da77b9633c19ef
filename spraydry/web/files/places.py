"""What a path in a version leads to, through its symlinks but never out of it, and a cache of that."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from typing import Generic, TypeVar

from spraydry.errors import PathNotFound
from spraydry.format.entry import SYMLINK, Subtree
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version

T = TypeVar("T")

_MAX_SYMLINKS = 40


def find(repository: Repository, version: Version, parts: list[bytes]) -> Found:
    """What is at a path of a version, each symlink on the way and at its end followed. Blocks; reads pages of trees.

    Raises PathNotFound, also for symlinks that lead out of the version or in circles.
    """
    way = [Found(version, b"", version.record.entry, 0)]
    left = deque(parts)
    followed = 0
    while left:
        part = left.popleft()
        if part in (b"", b"."):
            continue
        here = way[-1]
        if part == b"..":
            if len(way) == 1:
                raise PathNotFound(f"a symlink leads out of {version}")
            way.pop()
            continue
        if not isinstance(here.entry.content, Subtree):
            raise PathNotFound(f"{_told(here)} is not a directory")
        found = repository.tree(here.entry.content).lookup(part)
        if found is None:
            raise PathNotFound(f"{_told(here)} holds no {os.fsdecode(part)!r}")
        entry, before = found
        if entry.kind == SYMLINK:
            assert isinstance(entry.content, bytes)
            followed += 1
            if followed > _MAX_SYMLINKS:
                raise PathNotFound(f"{_told(here)}: too many symlinks")
            if entry.content.startswith(b"/"):
                raise PathNotFound(f"{_told(here)}: {os.fsdecode(part)!r} is a symlink that leads out of {version}")
            left.extendleft(reversed(entry.content.split(b"/")))
            continue
        path = here.path + b"/" + part if here.path else part
        way.append(Found(version, path, entry, here.number + 1 + before))
    return way[-1]


def _told(found: Found) -> str:
    return f"{found.version}:{os.fsdecode(found.path)}" if found.path else str(found.version)


class Remembered(Generic[T]):
    """What was found under each of the paths asked for last, within a number of bytes. For one thread."""

    def __init__(self, limit_bytes: int, each_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._each_bytes = each_bytes
        self._kept: OrderedDict[tuple[int, bytes], T] = OrderedDict()
        self._held_bytes = 0

    def get(self, slot: int, path: bytes) -> T | None:
        """What the path leads to in the version made in that slot, if it is known."""
        found = self._kept.get((slot, path))
        if found is not None:
            self._kept.move_to_end((slot, path))
        return found

    def keep(self, slot: int, path: bytes, what: T) -> None:
        """Remember it; what was not asked for longest goes."""
        if (slot, path) not in self._kept:
            self._held_bytes += self._each_bytes + len(path)
        self._kept[slot, path] = what
        while self._held_bytes > self._limit_bytes:
            (_, gone), _ = self._kept.popitem(last=False)
            self._held_bytes -= self._each_bytes + len(gone)
