"""Which frames are worth a try, and encoding those anew: neighbours of a class that fit into one frame together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from spraydry.errors import SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import Buffer
from spraydry.format.run import FrameInfo, Row
from spraydry.repository.frames import frame_info
from spraydry.repository.repository import Repository
from spraydry.repository.writer import FRAME_TARGET_BYTES, PART_TARGET_BYTES

# What saves less than one part in WORTH stays as it is: it would be written, fsynced and copied for nothing.
_WORTH = 50


class Examined(msgspec.Struct, frozen=True):
    """How far a line of frames was examined for a goal (`3 4f0c...`: level and dictionary): up to catalog id `id`."""

    goal: str
    id: int


@dataclass(frozen=True)
class Goal:
    """What frames of a class shall be encoded with."""

    level: int
    dictionary: frames.Dictionary | None

    @property
    def wanted(self) -> bytes | None:
        """The dictionary's digest."""
        return self.dictionary.digest if self.dictionary else None

    def __str__(self) -> str:
        return f"{self.level} {self.wanted.hex() if self.wanted else '-'}"

    def met_by(self, info: FrameInfo) -> bool:
        """Whether encoding this frame anew would change nothing. Raw bytes stay raw: trying cost as much as reading all
        photos and archives again."""
        return info.codec == frames.RAW or (info.level >= self.level and info.dictionary == self.wanted)


@dataclass(frozen=True)
class Group:
    """Neighbouring frames of one line (a class, compressed or raw) which fit into one together, by rising id."""

    line: str
    ids: tuple[int, ...]
    infos: tuple[FrameInfo, ...]
    goal: Goal

    @property
    def plain_bytes(self) -> int:
        """The plain bytes of all of them."""
        return sum(info.plain for info in self.infos)


def groups(
    repository: Repository,
    goals: Mapping[str, Goal],
    examined: Mapping[str, Examined],
    last: int,
    without: Collection[bytes],
) -> Iterator[Group]:
    """The groups that are worth a try among all frames up to catalog id `last`, those of a line in order.

    A group is tried once for a goal: again only when a frame came to it, or the goal changed. So what does not get
    smaller is not tried forever.
    """
    filling: dict[str, tuple[list[int], list[FrameInfo]]] = {}

    def closed(line: str) -> Iterator[Group]:
        ids, infos = filling.pop(line)
        group = Group(line, tuple(ids), tuple(infos), goals[infos[0].frame_class])
        before = examined.get(line)
        seen = before.id if before is not None and before.goal == str(group.goal) else 0
        half = PART_TARGET_BYTES // 2
        if len(ids) == 1:
            due = ids[0] > seen and not group.goal.met_by(infos[0])
        else:
            due = any(
                id > seen and (info.plain < half or not group.goal.met_by(info))
                for id, info in zip(ids, infos, strict=True)
            )
        if due:
            yield group

    for id, info in repository.catalog.frames():
        if id > last:
            break
        if info.name in without or info.frame_class not in goals:
            continue
        line = f"{info.frame_class} {info.codec}"
        if line in filling and sum(one.plain for one in filling[line][1]) + info.plain > FRAME_TARGET_BYTES:
            yield from closed(line)
        ids, infos = filling.setdefault(line, ([], []))
        ids.append(id)
        infos.append(info)
    for line in list(filling):
        yield from closed(line)


@dataclass(frozen=True)
class Outcome:
    """What came of a group: `old` frames are to be replaced by `new` ones (each with the names of its chunks); both are
    empty where that would not be worth it. `damaged` frames, with the reason, are left alone."""

    group: Group
    old: tuple[FrameInfo, ...]
    new: tuple[tuple[tuple[bytes, ...], frames.Encoded], ...]
    damaged: tuple[tuple[bytes, str], ...]


def encode_anew(repository: Repository, group: Group) -> Outcome:
    """Decode and verify the frames of a group, and encode what is in them towards its goal. For any thread."""
    old: list[FrameInfo] = []
    damaged: list[tuple[bytes, str]] = []
    chunks: dict[bytes, Buffer] = {}
    for info in group.infos:
        try:
            _, rows, plain = repository.decode_frame(info.name)
        except SprayDryError as error:
            if repository.catalog.has_frame(info.name):  # else another run was faster
                damaged.append((info.name, str(error)))
            continue
        if strange := _strange(repository, info.name, rows):
            damaged.append((info.name, f"it holds chunk {strange.hex()}, of which the index does not know"))
            continue
        old.append(info)
        chunks.update((row.digest, plain[row.offset : row.offset + row.length]) for row in rows)
    if not old or (len(old) == 1 and group.goal.met_by(old[0])):
        return Outcome(group, (), (), tuple(damaged))
    level = max(group.goal.level, *(info.level for info in old))
    new = tuple(
        (names, frames.encode([chunks[name] for name in names], old[0].frame_class, level, group.goal.dictionary))
        for names in _packed(chunks)
    )
    before = sum(info.stored for info in old)
    if sum(len(encoded.stored) for _, encoded in new) > before - before // _WORTH:
        return Outcome(group, (), (), tuple(damaged))
    return Outcome(group, tuple(old), new, tuple(damaged))


def _strange(repository: Repository, frame: bytes, rows: list[Row]) -> bytes | None:
    """A chunk in a frame which the index does not list there: these are not the bytes that were stored."""
    for row in rows:
        if all(place.frame != frame for place in repository.catalog.chunks.locate(row.digest)):
            return row.digest
    return None


def _packed(chunks: Mapping[bytes, Buffer]) -> Iterator[tuple[bytes, ...]]:
    """The chunks, in their order, as one frame, or as more where it would hold too many."""
    names = tuple(chunks)
    for at in range(0, len(names), frames.MAX_CHUNKS):
        yield names[at : at + frames.MAX_CHUNKS]


def rows_of(new: list[tuple[tuple[bytes, ...], frames.Encoded]]) -> tuple[list[FrameInfo], list[Row]]:
    """The frame table and the rows of the index run of new frames."""
    infos = [frame_info(encoded.name, encoded.header, len(encoded.stored)) for _, encoded in new]
    rows = [
        Row(name, place, at, length)
        for place, (names, encoded) in enumerate(new)
        for name, at, length in zip(
            names, accumulate(encoded.header.lengths, initial=0), encoded.header.lengths, strict=False
        )
    ]
    return infos, rows
