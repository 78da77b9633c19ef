"""What is in a tree, and one tree that changes from v1 to v2 in place, as it does where people work."""

from __future__ import annotations

import os
import random
import shutil
import stat
from typing import NamedTuple

from benchmark import corpora

SMALL_FILE = 1 << 20
LARGE_FILE = 1 << 20  # the least that is read from start to end


class Listing:
    """A tree in numbers: what a reader of all of it must see."""

    def __init__(self, tree: str) -> None:
        self.entries = 1  # with the root, as find counts
        self.bytes = 0
        self.stream_bytes = 0  # about what tar makes of it
        self.sizes: dict[bytes, int] = {}
        seen: set[tuple[int, int]] = set()
        top = os.fsencode(tree)
        for folder, folders, names in os.walk(top):
            self.entries += len(folders) + len(names)
            self.stream_bytes += 512 * (len(folders) + len(names))
            for name in names:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                if not stat.S_ISREG(status.st_mode):
                    continue
                self.sizes[os.path.relpath(path, top)] = status.st_size
                if (status.st_dev, status.st_ino) in seen:
                    continue
                if status.st_nlink > 1:
                    seen.add((status.st_dev, status.st_ino))
                self.bytes += status.st_size
                self.stream_bytes += -(-status.st_size // 512) * 512

    def largest(self) -> tuple[bytes, int]:
        return max(self.sizes.items(), key=lambda item: (item[1], item[0]), default=(b"", 0))

    def some_small(self, count: int) -> list[bytes]:
        """Random ones, the same in every run."""
        small = sorted(name for name, size in self.sizes.items() if size <= SMALL_FILE)
        return random.Random(7).sample(small, min(count, len(small)))


class Entry(NamedTuple):
    mode: int
    size: int
    mtime: int
    target: str


def entries_of(tree: str) -> dict[str, Entry]:
    """What tells two versions apart, of every entry below the root."""
    found = {}
    for folder, folders, names in os.walk(tree):
        for name in folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            if stat.S_ISDIR(status.st_mode):
                entry = Entry(status.st_mode, 0, 0, "")
            else:
                entry = Entry(status.st_mode, status.st_size, status.st_mtime_ns, target)
            found[os.path.relpath(path, tree)] = entry
    return found


class LiveTree:
    """A copy of v1 at a path that stays; what is the same in v2 keeps its inode and times."""

    def __init__(self, path: str, v1: str, v2: str) -> None:
        self.path = path
        self.trees = {"v1": v1, "v2": v2}
        self.shows = "v1"
        corpora.copy(v1, path)
        one, two = entries_of(v1), entries_of(v2)
        differing = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
        self.changes = {"v1": sorted(differing & one.keys()), "v2": sorted(differing & two.keys())}

    def show(self, version: str) -> None:
        """Make the tree be v1 or v2, by touching only what differs."""
        if version == self.shows:
            return
        touched = set()
        for name in reversed(self.changes[self.shows]):
            path = os.path.join(self.path, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)
            touched.add(os.path.dirname(name))
        wanted = self.trees[version]
        for name in self.changes[version]:
            source, path = os.path.join(wanted, name), os.path.join(self.path, name)
            touched.add(os.path.dirname(name))
            if os.path.lexists(path):  # came with its folder
                continue
            if os.path.isfile(source) and not os.path.islink(source):
                shutil.copy2(source, path)
            else:
                corpora.command(["cp", "-a", "--", source, path])
        for name in sorted(touched, reverse=True):
            if os.path.isdir(os.path.join(self.path, name)):
                shutil.copystat(os.path.join(wanted, name), os.path.join(self.path, name))
        self.shows = version
