"""Addresses: `ROOT[@VERSION][:PATH]` names a version, or an entry in it, in every verb."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spraydry.errors import PathNotFound, UsageError
from spraydry.format.entry import Entry, Subtree
from spraydry.repository.versions import Version

if TYPE_CHECKING:
    from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Address:
    """A parsed address. `version` None is the newest; `path` has no empty, `.` or `..` parts, b"" is the root."""

    root: str
    version: str | None = None
    path: bytes = b""

    def __str__(self) -> str:
        return (
            self.root
            + (f"@{self.version}" if self.version else "")
            + (f":{os.fsdecode(self.path)}" if self.path else "")
        )


@dataclass(frozen=True)
class Found:
    """What an address names: an entry of a version, its path there, and the number of inodes before it in preorder."""

    version: Version
    path: bytes
    entry: Entry
    number: int


def parse(text: str) -> Address:
    """Read an address. Raises UsageError when it is none."""
    front, colon, path = text.partition(":")
    root, at, version = front.partition("@")
    if not root or (at and not version):
        raise UsageError(f"{text!r} names nothing: write ROOT, ROOT@VERSION or ROOT@VERSION:PATH")
    if "/" in front:
        before, _, after = front.partition("/")
        raise UsageError(f"{text!r} names nothing: a path follows a colon, such as {before}:{after}")
    parts = [part for part in os.fsencode(path).split(b"/") if part not in (b"", b".")] if colon else []
    if b".." in parts:
        raise UsageError(f"{text!r}: a path in a version has no '..'")
    return Address(root, version or None, b"/".join(parts))


def resolve(repository: Repository, address: Address | str) -> Found:
    """Find what an address names. Raises RootNotFound, VersionNotFound, PathNotFound, each with near names."""
    if isinstance(address, str):
        address = parse(address)
    version = repository.log.find(address.root, address.version)
    entry, number = version.record.entry, 0
    done: list[bytes] = []
    for part in address.path.split(b"/") if address.path else []:
        here = f"{version}:{os.fsdecode(b'/'.join(done))}" if done else str(version)
        if not isinstance(entry.content, Subtree):
            raise PathNotFound(f"{here} is not a directory")
        tree = repository.tree(entry.content)
        found = tree.lookup(part)
        if found is None:
            names = [os.fsdecode(child.name) for child, _ in tree.entries()] if entry.content.inodes < 50_000 else []
            near = difflib.get_close_matches(os.fsdecode(part), names, 3, 0.5)
            hint = f"; there is {', '.join(near)}" if near else ""
            raise PathNotFound(f"{here} holds no {os.fsdecode(part)!r}", hint)
        entry, before = found
        number += 1 + before
        done.append(part)
    return Found(version, address.path, entry, number)


def children(repository: Repository, found: Found) -> Iterator[Found]:
    """The entries of a directory, by name bytes; nothing for what is no directory."""
    if isinstance(found.entry.content, Subtree):
        prefix = found.path + b"/" if found.path else b""
        for entry, before in repository.tree(found.entry.content).entries():
            yield Found(found.version, prefix + entry.name, entry, found.number + 1 + before)


def walk(repository: Repository, found: Found) -> Iterator[Found]:
    """What is found and everything below it, in preorder: each directory before its entries, these by name bytes."""
    yield found
    stack = [children(repository, found)]
    while stack:  # not recursive: trees may be deeper than Python's stack
        child = next(stack[-1], None)
        if child is None:
            stack.pop()
            continue
        yield child
        if isinstance(child.entry.content, Subtree):
            stack.append(children(repository, child))
