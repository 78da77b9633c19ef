"""Trees as plain mappings for property tests of what works on trees: kept in memory, made by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from spraydry.actions.compose.surgery import Surgery
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, Entry
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page

# A tree: names to the bytes of a file, or to a tree.
Plain = Mapping[bytes, Any]
NAMES = st.sampled_from([b"a", b"a-b", b"a.b", b"b", b"c"])
TREES = st.recursive(
    st.dictionaries(NAMES, st.binary(min_size=1, max_size=2), max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(st.binary(min_size=1, max_size=2), inner), max_size=4),
    max_leaves=12,
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)


class Pages(dict[bytes, bytes]):
    """Tree pages in memory, and surgery on them."""

    def surgery(self) -> Surgery:
        return Surgery(lambda name: Page(self[name]), self.__setitem__)

    def entry(self, tree: Any, name: bytes = b"", mode: int = 0o755) -> Entry:
        """The entry of a plain tree."""
        if isinstance(tree, bytes):
            return Entry(name, FILE, 0o644, 1, 1, 7, 0, len(tree), digest(tree) if tree else None, (), None)
        builder = TreeBuilder(self.__setitem__)
        for child in sorted(tree):
            builder.add(self.entry(tree[child], child, mode))
        return Entry(name, DIRECTORY, mode, 1, 1, 7, 0, 0, builder.finish(), (), None)


def modes(surgery: Surgery, root: Entry) -> dict[bytes, int]:
    """The mode of each directory, by path."""
    return {path: entry.mode for path, entry in surgery.walk(root) if entry.kind == DIRECTORY}


def with_mode(entry: Entry, mode: int) -> Entry:
    changed: Entry = msgspec.structs.replace(entry, mode=mode)
    return changed


# -- what surgery does, to mappings


def united(lower: Plain, upper: Plain) -> dict[bytes, Any]:
    """One tree laid over another."""
    both = dict(lower)
    for name, value in upper.items():
        other = both.get(name)
        merge = isinstance(other, Mapping) and isinstance(value, Mapping)
        both[name] = united(other, value) if merge and other is not None else value
    return both


def put_at(tree: Plain, path: bytes, what: Any, merge: bool = False) -> dict[bytes, Any]:
    """Something at a path, in the place of what is there, or laid over it."""
    name, _, rest = path.partition(b"/")
    changed = dict(tree)
    old = changed.get(name)
    if rest:
        changed[name] = put_at(old if isinstance(old, Mapping) else {}, rest, what, merge)
    elif merge and isinstance(old, Mapping) and isinstance(what, Mapping):
        changed[name] = united(old, what)
    else:
        changed[name] = what
    return changed


def cut_from(tree: Plain, path: bytes) -> dict[bytes, Any]:
    """Without what is at a path, if anything is."""
    name, _, rest = path.partition(b"/")
    changed = dict(tree)
    if name in changed:
        if not rest:
            del changed[name]
        elif isinstance(changed[name], Mapping):
            changed[name] = cut_from(changed[name], rest)
    return changed


def at_path(tree: Any, path: bytes) -> Any:
    """What is at a path; None for nothing."""
    for name in path.split(b"/") if path else []:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
