"""The members' indexes, looked through by `heal`: each must name all frames its member has."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spraydry.errors import CorruptData, StoreError, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, decode_run
from spraydry.stores.over.copying import Delivered, put_run
from spraydry.stores.over.member import Member
from spraydry.stores.over.reader import named_by_digest
from spraydry.stores.over.spread import Spread

_BATCH_BYTES = 8 << 20


@dataclass
class Healed:
    """What was done so far. `fraction` (0 to 1) estimates how far it is, from the name it is at: names are digests.

    `failed` maps each reason why something has fewer copies than it should, or could not be removed, to the number of
    values it holds for and one of their names. `removed` were surplus; `indexed` frames are named by their member's
    index now and were not before.
    """

    checked: int = 0
    copied: int = 0
    copied_bytes: int = 0
    replaced: int = 0
    removed: int = 0
    removed_bytes: int = 0
    indexed: int = 0
    delivered: Delivered = field(default_factory=Delivered)
    failed: dict[str, tuple[int, str]] = field(default_factory=dict)
    fraction: float = 0.0

    def fail(self, reason: str, name: str, number: int = 1) -> None:
        """Note why something could not be done."""
        count, example = self.failed.get(reason, (0, name))
        self.failed[reason] = (count + number, example)


class Names:
    """A set of digests by their first eight bytes: one taken for another makes a copy too many, or a row too few."""

    def __init__(self) -> None:
        self._fronts = array("Q")

    def add(self, names: Iterator[bytes]) -> None:
        self._fronts.extend(int.from_bytes(name[:8], "big") for name in names)

    def seal(self) -> None:
        self._fronts = array("Q", sorted(self._fronts))

    def __contains__(self, name: bytes) -> bool:
        front = int.from_bytes(name[:8], "big")
        place = bisect_left(self._fronts, front)
        return place < len(self._fronts) and self._fronts[place] == front


class Index(NamedTuple):
    """What runs name: all frames, and those of classes that have their own number of copies, by that."""

    named: Names
    special: dict[int, Names]

    @classmethod
    def empty(cls, spread: Spread) -> Index:
        return cls(
            Names(), {number: Names() for number in {*spread.copies.by_class.values()} - {spread.copies.default}}
        )

    def add(self, spread: Spread, infos: Sequence[FrameInfo]) -> None:
        self.named.add(info.name for info in infos)
        for number, names in self.special.items():
            names.add(info.name for info in infos if spread.copies.of_class(info.frame_class) == number)

    def seal(self) -> None:
        for names in (self.named, *self.special.values()):
            names.seal()


class Classes:
    """How many copies a value should have, told without reading it."""

    def __init__(self, spread: Spread, indexes: Sequence[Index]) -> None:
        self._copies = spread.copies
        self._indexes = indexes

    def copies(self, namespace: str, name: str) -> int:
        if namespace == "dictionaries":
            return self._copies.of(namespace, b"")
        raw = bytes.fromhex(name)
        found = [number for index in self._indexes for number, names in index.special.items() if raw in names]
        return max(found, default=self._copies.default)


def read_index(spread: Spread, member: Member, healed: Healed) -> list[Index]:
    """What the member's sound runs name; those that are damaged are counted as to be replaced."""
    index = Index.empty(spread)
    try:
        healed.replaced += len(_read(spread, member, index))
    except (StoreError, CorruptData) as error:
        healed.fail(f"the index of {member.name} could not be read: {error}", "")
    index.seal()
    return [index]


def complete_index(spread: Spread, member: Member, healed: Healed) -> list[Index]:
    """Let the member's sound runs name every frame it has; runs that are damaged there are removed then. What they
    named before, and what had to be added."""
    index, more = Index.empty(spread), Index.empty(spread)
    try:
        damaged = _read(spread, member, index)
        index.seal()
        whole = _name_frames(spread, member, index, more, healed)
        if damaged and whole:
            member.write(lambda store: store.delete("index", damaged))
            healed.replaced += len(damaged)
    except (StoreError, CorruptData) as error:
        healed.fail(f"the index of {member.name} could not be completed: {error}", "")
    more.seal()
    return [index, more]


def _read(spread: Spread, member: Member, index: Index) -> list[str]:
    """Add what the member's sound runs name; the names of those that are damaged."""
    damaged = []
    for stored in member.list("index"):
        try:
            infos = _infos(member, stored.name)
        except ValueNotFound:
            continue  # merged meanwhile
        except CorruptData:
            damaged.append(stored.name)
            continue
        index.add(spread, infos)
    return damaged


def _infos(member: Member, name: str) -> Sequence[FrameInfo]:
    value = member.read(lambda store: store.get("index", name))
    if digest(value).hex() != name:
        raise CorruptData(f"index run {name} is damaged on {member.name}")
    infos, rows = decode_run(value)
    for _ in rows:
        pass
    return infos


def _name_frames(spread: Spread, member: Member, index: Index, more: Index, healed: Healed) -> bool:
    """Index the frames on a member that no run of its own names, and add them to `more`; whether all could be."""
    values: list[bytes] = []
    held, whole = 0, True

    def write() -> None:
        nonlocal values, held, whole
        number = put_run(member, values, spread.reader) if values else 0
        healed.indexed += number
        if number < len(values):
            whole = False
            healed.fail("a frame cannot be decoded, so no index names it", "", len(values) - number)
        values, held = [], 0

    for stored in member.list("frames"):
        if not named_by_digest("frames", stored.name) or bytes.fromhex(stored.name) in index.named:
            continue
        try:
            order = sorted(spread.reader.order("frames", stored.name), key=lambda one: one is not member)
            read = spread.reader.read("frames", stored.name, order)
            spread.reader.repair("frames", stored.name, read)
            info, _ = spread.reader.rows(read.value, 0)
        except ValueNotFound:
            continue
        except (StoreError, CorruptData) as error:
            whole = False
            healed.fail(f"a frame that no index names cannot be read: {reason_of(error)}", stored.name)
            continue
        more.add(spread, [info])
        values.append(read.value)
        held += len(read.value)
        if held >= _BATCH_BYTES:
            write()
    write()
    return whole


def reason_of(error: Exception) -> str:
    """An error without the name it begins with, so that equal reasons are counted together."""
    text = str(error)
    first, _, rest = text.partition(" ")
    return rest if "/" in first and rest else text
