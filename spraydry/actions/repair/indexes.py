"""The index runs of a store: frames that none names are named again, and then runs that are damaged are put away."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass

from spraydry.errors import CorruptData, NotListed, SprayDryError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, decode_run, encode_run
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository

_RUN_ROWS = 100_000


@dataclass(frozen=True)
class MendedIndex:
    """`named` frames were in no index run, and are in one now; `damaged` runs were put away (softly deleted), because
    others name all that lies in the store. `strange` ones are not what this program writes: they stay."""

    named: int = 0
    damaged: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


def mend_index(repository: Repository, write: bool) -> MendedIndex:
    """Let the catalog, and with `write` the store's index runs, name every frame that lies there and can be decoded."""
    named, damaged, strange = _named(repository)
    condemned = repository.condemned()
    try:
        listed = (bytes.fromhex(stored.name) for stored in repository.store.list("frames") if _is_digest(stored.name))
        unnamed = [name for name in listed if not _holds(named, name) and name not in condemned]
    except NotListed:
        return MendedIndex(0, (), tuple(strange))
    count = _name(repository, unnamed, write)
    if write and damaged:
        repository.store.soft_delete("index", damaged)
        for name in damaged:
            repository.damaged_runs.pop(name, None)
    return MendedIndex(count, tuple(damaged), tuple(strange))


def _named(repository: Repository) -> tuple[array[int], list[str], list[str]]:
    """The first eight bytes of each frame that some run names, sorted; the runs that are damaged, and those that are
    what they were written as but not understood."""
    fronts = array("Q")
    damaged: list[str] = []
    strange: list[str] = []
    names = [stored.name for stored in repository.store.list("index")]
    for name in names:
        try:
            value = repository.store.get("index", name)
        except ValueNotFound:
            continue  # merged into another meanwhile
        except CorruptData:
            damaged.append(name)
            continue
        if digest(value).hex() != name:
            (damaged if _is_digest(name) else strange).append(name)
            continue
        try:
            infos, _ = decode_run(value)
            fronts.extend(int.from_bytes(info.name[:8], "big") for info in infos)
        except CorruptData:
            strange.append(name)
    return array("Q", sorted(fronts)), damaged, strange


def _holds(fronts: array[int], name: bytes) -> bool:
    front = int.from_bytes(name[:8], "big")
    place = bisect_left(fronts, front)
    return place < len(fronts) and fronts[place] == front


def _is_digest(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == 32 and name == name.lower()
    except ValueError:
        return False


def _name(repository: Repository, names: list[bytes], write: bool) -> int:
    """Take these frames into the catalog, and with `write` into runs; how many could be decoded."""
    count = 0
    infos: list[FrameInfo] = []
    rows: list[Row] = []

    def publish() -> None:
        run = encode_run(infos, rows)
        name = digest(run).hex() if write else None
        with repository.batch():
            if name is not None:
                repository.store.put("index", name, run)
            repository.catalog.add_run(name, infos, rows, verified=True)
        infos.clear()
        rows.clear()

    for found in ordered_map(lambda name: _decoded(repository, name), names, threads_of(repository)):
        if found is None:
            continue
        info, frame_rows = found
        rows += [row._replace(frame=len(infos)) for row in frame_rows]
        infos.append(info)
        count += 1
        if len(rows) >= _RUN_ROWS:
            publish()
    if infos:
        publish()
    return count


def _decoded(repository: Repository, name: bytes) -> tuple[FrameInfo, list[Row]] | None:
    """What a frame holds; None where it is damaged: then others are looked for that have what is in it."""
    try:
        return repository.decode_frame(name)[:2]
    except SprayDryError as error:
        if error.retryable:
            raise
        return None
