"""The file `layout` of a dir store: how deeply each namespace is nested."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from spraydry.errors import FormatTooNew, NotARepository, StoreError
from spraydry.stores.base import is_key
from spraydry.stores.shared.files import open_file, read_part
from spraydry.stores.shared.nesting import LEVELS, nested

NAME = "layout"
FIRST = """spraydry dir 1
# How deeply values lie in folders made of the front of their names, two letters a level: at most 3 levels, none for
# a namespace that is not named here. This may be changed while the store is used: what was written before is found.
frames 1
"""
_HEAD = re.compile(r"spraydry dir ([1-9][0-9]{0,5})")
_BYTES = 1 << 16

Nest = tuple[str, ...]  # the folders from the store's to a value's


@dataclass(frozen=True)
class Layout:
    """What `layout` says: depths of nesting; and by its permissions, those of what is made."""

    depths: dict[str, int] = field(default_factory=dict)
    file_mode: int = 0o600
    folder_mode: int = 0o700
    seen: tuple[int, ...] = ()

    def depths_of(self, namespace: str) -> list[int]:
        """Where to look for values, first of all where they are written."""
        wanted = self.depths.get(namespace.rstrip("~"), 0)
        return [wanted, *(depth for depth in range(LEVELS + 1) if depth != wanted)]

    def nests(self, namespace: str, name: str) -> list[Nest]:
        """The folders a value may lie in, first of all that in which it is written."""
        return list(dict.fromkeys((namespace, *nested(name, depth)) for depth in self.depths_of(namespace)))


def read_layout(folder: int, path: str, known: Layout | None) -> Layout:
    """What the layout in the open folder says now; `known` again where that is what it said before, or half of one, as
    an editor may leave for a moment. Raises OSError, and StoreErrors that name `path`."""
    found = os.stat(NAME, dir_fd=folder, follow_symlinks=False)
    seen = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
    if known is not None and known.seen == seen:
        return known
    file = open_file(folder, NAME)
    try:
        text = read_part(file, 0, _BYTES)
    finally:
        os.close(file)
    for_others = found.st_mode & 0o044
    try:
        return Layout(decode_depths(text, path), 0o600 | for_others, 0o700 | for_others | for_others >> 2, seen)
    except StoreError:
        if known is None:
            raise
        return known


def decode_depths(text: bytes, path: str) -> dict[str, int]:
    """The depth of each namespace that is named. Raises NotARepository, FormatTooNew, StoreError."""
    head, *lines = text.decode("utf-8", "replace").splitlines() or [""]
    first = _HEAD.fullmatch(head.strip())
    if first is None:
        raise NotARepository(f"{path} is not a spraydry repository: its file layout is something else")
    if first[1] != "1":
        raise FormatTooNew(f"{path} was written by a newer spraydry: install a current one")
    depths = {}
    for number, line in enumerate(lines, 2):
        words = line.partition("#")[0].split()
        if words:
            if len(words) != 2 or not is_key(words[0], "_") or words[1] not in [str(n) for n in range(LEVELS + 1)]:
                raise StoreError(f"{path}/layout, line {number}: not a namespace and its depth (0 to {LEVELS})")
            depths[words[0]] = int(words[1])
    return depths
