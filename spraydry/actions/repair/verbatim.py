"""Damaged frames had as they were, byte for byte, from another repository that has the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from spraydry.actions.repair.cures import Remotes
from spraydry.actions.repair.mending import Had
from spraydry.errors import SprayDryError
from spraydry.format.classes import TREE
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository


def replace_frames(
    repository: Repository,
    names: Iterable[bytes],
    remotes: Remotes,
    keep: Callable[[bytes, bytes], None],
    write: bool,
    had: dict[str, Had],
) -> set[bytes]:
    """Put sound frames of the same names in the place of damaged ones (only with `write`); the names of those that were
    had. `keep` takes the pages in them, `had` gets their number by where they came from."""
    replaced: set[bytes] = set()
    if not remotes.stores:
        return replaced
    fetched = ordered_map(lambda name: (name, remotes.value("frames", name)), names, threads_of(repository))
    for name, found in fetched:
        if found is None:
            continue
        value, origin = found
        try:
            info, rows, plain = repository.decoded(name, value)
        except SprayDryError:
            continue
        if write:
            with repository.batch():
                repository.store.put("frames", name.hex(), value)
                repository.catalog.add_run(None, [info], rows, verified=True)
        if info.frame_class == TREE:
            for row in rows:
                keep(row.digest, bytes(plain[row.offset : row.offset + row.length]))
        count = had.setdefault(origin, Had())
        count.chunks += len(rows)
        count.bytes += info.plain
        replaced.add(name)
    return replaced
