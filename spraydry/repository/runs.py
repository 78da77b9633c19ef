"""Keeping the number of index runs in a store small: many small ones are merged into one."""

from __future__ import annotations

from collections.abc import Collection

from spraydry.errors import CorruptData, StoreError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, decode_run, encode_run
from spraydry.repository.repository import Repository

# A run is decoded to merge it, at about 250 bytes a row: so much is held at a time, whatever the store holds.
_SMALL_BYTES = 4 << 20
_MANY = 8


def merge_runs(repository: Repository, many: int = _MANY) -> int:
    """Merge the small runs of a store when there are `many`, the smallest first, into such that are not small; the
    number of runs that were merged.

    Only those the catalog has taken in: the merged run counts as taken. What cannot be merged now, because another
    process is doing it, a run is damaged or there is no room, is left to the next time.
    """
    if repository.store.traits.merges_runs:
        return 0
    taken = repository.catalog.runs()
    small = sorted(
        (stored.size, stored.name)
        for stored in repository.store.list("index")
        if stored.size < _SMALL_BYTES and stored.name in taken
    )
    spread = repository.opened.spread  # each of its stores has runs of its own: what is merged falls apart again
    if len(small) < many * (len(spread.members) if spread else 1):
        return 0
    merged, group, held = 0, [], 0
    for size, name in small:
        group.append(name)
        held += size
        if held >= _SMALL_BYTES or name == small[-1][1]:
            if len(group) > 1:
                try:
                    replace_runs(repository, group, frozenset())
                except (StoreError, CorruptData):
                    return merged
                merged += len(group)
            group, held = [], 0
    return merged


def replace_runs(repository: Repository, names: Collection[str], without: Collection[bytes]) -> None:
    """Put one run in the place of several, without the rows of the frames named in `without`.

    The new run is stored before the old ones are removed, so at every moment each row is in some run. Raises
    ValueNotFound when one of them is gone: another process was faster.
    """
    frames: list[FrameInfo] = []
    rows: list[Row] = []
    for name, value in repository.store.get_many("index", names):
        if value is None:
            raise ValueNotFound(f"index run {name} was replaced meanwhile")
        if digest(value).hex() != name:
            raise CorruptData(f"index run {name} is damaged: `spraydry verify --rebuild` makes it anew")
        infos, run_rows = decode_run(value)
        places = {}
        for place, info in enumerate(infos):
            if info.name not in without:
                places[place] = len(frames)
                frames.append(info)
        rows += [row._replace(frame=places[row.frame]) for row in run_rows if row.frame in places]
    with repository.batch():
        if not set(names) <= {stored.name for stored in repository.store.list("index")}:
            raise ValueNotFound("an index run was replaced meanwhile")
        merged = ""
        if rows:
            run = encode_run(frames, rows)
            merged = digest(run).hex()
            repository.store.put("index", merged, run)
        repository.catalog.replace_runs(names, merged)
        repository.store.delete("index", [name for name in names if name != merged])
