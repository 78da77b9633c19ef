"""What a repository should hold, in plain dicts: the measure of the long life."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spraydry.format.entry import DIRECTORY, FILE, SYMLINK
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Leaf:
    """A regular file, or (`link`) a symlink with its target; `tie` is the same for hard links of one file."""

    held: bytes
    link: bool = False
    tie: object = None


Tree = dict[bytes, Leaf | None]  # by path; None is a directory, and each is there but the topmost


def parents(path: bytes) -> Iterator[bytes]:
    """The directories above a path, the topmost first."""
    parts = path.split(b"/")[:-1]
    for depth in range(1, len(parts) + 1):
        yield b"/".join(parts[:depth])


def below(path: bytes, top: bytes) -> bool:
    """Whether a path is `top` or below it; all is below b""."""
    return not top or path == top or path.startswith(top + b"/")


def cut(tree: Tree, top: bytes) -> Tree:
    """The tree without a path."""
    return {path: leaf for path, leaf in tree.items() if not below(path, top)}


def taken(tree: Tree, top: bytes) -> Tree:
    """The tree below a directory."""
    return {path[len(top) + 1 :]: leaf for path, leaf in tree.items() if path.startswith(top + b"/")}


def moved(tree: Tree, to: bytes) -> Tree:
    """The tree below a new directory."""
    return dict.fromkeys([*parents(to), to]) | {to + b"/" + path: leaf for path, leaf in tree.items()}


def untied(tree: Tree) -> Tree:
    """The tree with ties of its own: the same root twice in one tree is no hard link."""
    fresh: dict[object, object] = {None: None}
    return {
        path: leaf and Leaf(leaf.held, leaf.link, fresh.setdefault(leaf.tie, object())) for path, leaf in tree.items()
    }


def union(first: Tree, later: Tree) -> Tree:
    """Directories merge; otherwise the later wins."""
    result = dict(first)
    for path, leaf in untied(later).items():
        if leaf is not None or result.get(path) is not None:
            result = cut(result, path)
        result.setdefault(path, leaf)
    return result


def ties(tree: Tree) -> set[frozenset[bytes]]:
    """The groups of paths that are one file."""
    groups: dict[object, set[bytes]] = {}
    for path, leaf in tree.items():
        if leaf is not None and leaf.tie is not None:
            groups.setdefault(leaf.tie, set()).add(path)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def same(one: Tree, other: Tree) -> bool:
    """Whether two trees hold the same under the same names, tied alike."""

    def plain(tree: Tree) -> Mapping[bytes, tuple[bytes, bool] | None]:
        return {path: leaf and (leaf.held, leaf.link) for path, leaf in tree.items()}

    return plain(one) == plain(other) and ties(one) == ties(other)


def of_folder(folder: Path) -> Tree:
    """What a folder, or a mount, holds."""
    tree: Tree = {}
    top = os.fsencode(folder)
    for above, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(above, name)
            status = os.lstat(path)
            inside = path[len(top) + 1 :]
            if stat.S_ISDIR(status.st_mode):
                tree[inside] = None
            elif stat.S_ISLNK(status.st_mode):
                tree[inside] = Leaf(os.readlink(path), True)
            else:
                with open(path, "rb") as file:
                    tree[inside] = Leaf(file.read(), tie=status.st_ino if status.st_nlink > 1 else None)
    return tree


def of_version(repository: Repository, version: str) -> Tree:
    """What a version holds. Raises SprayDryError where something cannot be read."""
    tree: Tree = {}
    for found in repository.walk(version):
        entry = found.entry
        if not found.path:
            continue
        if entry.kind == DIRECTORY:
            tree[found.path] = None
        elif entry.kind == SYMLINK:
            assert isinstance(entry.content, bytes)
            tree[found.path] = Leaf(entry.content, True)
        else:
            assert entry.kind == FILE
            with repository.open_file(found) as stream:
                tree[found.path] = Leaf(stream.read(), tie=entry.group)
    return tree


@dataclass
class Side:
    """A repository: its URL, the versions it should hold, `ROOT@VERSION` in the order they were made, and what the keys
    of its hoard should name."""

    url: str
    versions: dict[str, Tree] = field(default_factory=dict)
    removed: dict[str, Tree] = field(default_factory=dict)  # since the last collection
    used: set[str] = field(default_factory=set)
    keys: dict[str, bytes] = field(default_factory=dict)

    def of(self, root: str) -> list[str]:
        """The versions of a root."""
        return [version for version in self.versions if version.startswith(root + "@")]

    def newest(self, root: str) -> Tree:
        """What the newest version of a root holds."""
        with Repository.open(self.url, read_only=True) as repository:
            return self.versions[str(repository.log.find(root))]

    def add(self, version: str, tree: Tree) -> None:
        """A version was made."""
        assert version not in self.used
        self.used.add(version)
        self.versions[version] = tree

    def remove(self, version: str) -> None:
        """A version was removed."""
        self.removed[version] = self.versions.pop(version)
