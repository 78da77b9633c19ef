"""Reading from several stores: the nearest that answers, verified; what was damaged or missing is written back."""

from __future__ import annotations

import heapq
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from spraydry.errors import CorruptData, DictionaryMissing, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row
from spraydry.stores.base import Store, Stored
from spraydry.stores.over.member import Member
from spraydry.stores.over.placement import Copies, rank

T = TypeVar("T")

# In these a value's name is the digest of its bytes, so a copy can be checked and any sound one is as good as another.
_NAMED_BY_DIGEST = {namespace + end for namespace in ("frames", "index", "dictionaries") for end in ("", "~")}
_DIGEST_NAME = re.compile(r"[0-9a-f]{64}")
_MOST_REPAIRS = 10_000  # of one process: where that many are needed, it is `heal` that is
_DICTIONARIES_KEPT = 32


def named_by_digest(namespace: str, name: str) -> bool:
    """Whether that name says which bytes the value must have."""
    return namespace in _NAMED_BY_DIGEST and _DIGEST_NAME.fullmatch(name) is not None


def is_sound(namespace: str, name: str, value: bytes) -> bool:
    """Whether that can be the value of that name."""
    return not named_by_digest(namespace, name) or digest(value).hex() == name


@dataclass(frozen=True)
class Read:
    """A sound value, and which of the members that were asked before had it `damaged` or not at all (`absent`)."""

    value: bytes
    absent: Sequence[Member]
    damaged: Sequence[Member]


class Reader:
    """Finds values on members. Blocks; threads may share it. `turn` is held by who is inside a batch: repairs never
    wait for it, because that one may be waiting for the reader."""

    def __init__(self, members: Sequence[Member], copies: Copies, turn: threading.RLock) -> None:
        self.members = members
        self.repaired = 0
        self._copies = copies
        self._turn = turn
        self._tried: set[tuple[bytes, str, str]] = set()
        self._listed: dict[str, Member] = {}  # runs: no hash says where they are
        self._dictionaries: OrderedDict[bytes, frames.Dictionary] = OrderedDict()

    def order(self, namespace: str, name: str) -> list[Member]:
        """All members, in the order in which to ask for a value: those that should have it, the nearest first; then
        those that would be next; then those that get nothing new."""
        ranked = rank(name, self.members)
        place = {id(member): number for number, member in enumerate(ranked)}
        most = self._copies.most
        listed = self._listed.get(name) if namespace == "index" else None

        def key(member: Member) -> tuple[object, ...]:
            number = place.get(id(member), len(ranked))
            if number < most:
                return member is not listed, False, member.distance, number
            return member is not listed, True, number, member.distance

        return sorted(self.members, key=key)

    def note_run(self, name: str, member: Member) -> None:
        """Remember that a member listed that run."""
        if len(self._listed) > 10_000:
            self._listed.clear()
        self._listed[name] = member

    def find(
        self,
        namespace: str,
        name: str,
        ask: Callable[[Store], T],
        sound: Callable[[T], bool],
        members: Iterable[Member],
        inline: bool,
    ) -> tuple[T, list[Member], list[Member]]:
        """The first sound answer, and the members that answered "not there", and something damaged, before.

        Raises ValueNotFound when all members said so, StoreUnavailable when one did not answer, and CorruptData.
        """
        absent: list[Member] = []
        damaged: list[Member] = []
        silent: list[str] = []
        for member in members:
            try:
                answer = member.read(ask, inline)
            except ValueNotFound:
                absent.append(member)
            except CorruptData:
                damaged.append(member)
            except StoreError as error:
                silent.append(str(error))
            else:
                if sound(answer):
                    return answer, absent, damaged
                damaged.append(member)
        bad = f"damaged on {', '.join(member.name for member in damaged)}" if damaged else ""
        if silent:
            raise StoreUnavailable(
                f"{namespace}/{name} {f'is {bad}, and' if bad else 'is on no store that answers:'} {'; '.join(silent)}"
            )
        if damaged:
            raise CorruptData(f"{namespace}/{name} is {bad}, and no other store has it")
        raise ValueNotFound(f"{namespace}/{name} is on none of the stores")

    def read(self, namespace: str, name: str, members: Iterable[Member], inline: bool = False) -> Read:
        """A whole value, checked against its name where that says what it must be. Errors as of `find`."""
        value, absent, damaged = self.find(
            namespace,
            name,
            lambda store: store.get(namespace, name),
            lambda value: is_sound(namespace, name, value),
            members,
            inline,
        )
        return Read(value, absent, damaged)

    def merged(self, namespace: str, after: str, members: Sequence[Member]) -> Iterator[Stored]:
        """What members list, each name once; where one fails, the rest of it is left out. Raises StoreUnavailable when
        all do."""
        silent: list[str] = []

        def listing(member: Member) -> Iterator[Stored]:
            try:
                for stored in member.list(namespace, after):
                    if namespace == "index":
                        self.note_run(stored.name, member)
                    yield stored
            except (StoreError, CorruptData) as error:
                silent.append(str(error))

        before = None
        for stored in heapq.merge(*map(listing, members), key=lambda stored: stored.name):
            if stored.name != before:
                yield stored
            before = stored.name
        if silent and len(silent) == len(members):
            raise StoreUnavailable(f"no store answers that could list {namespace}: {'; '.join(silent)}")

    def repair(self, namespace: str, name: str, read: Read) -> None:
        """Write a value back where it was damaged, or missing though it should be there: once, and only if that can be
        done at once. The rest is left to `heal`."""
        if not named_by_digest(namespace, name) or not self._turn.acquire(blocking=False):
            return
        try:
            for member in (*read.damaged, *self._lacking(namespace, name, read)):
                key = (member.id, namespace, name)
                if key in self._tried or len(self._tried) >= _MOST_REPAIRS or not member.takes:
                    continue
                self._tried.add(key)
                try:
                    member.write(lambda store: store.put(namespace, name, read.value))
                except (StoreError, CorruptData):
                    continue
                self.repaired += 1
        finally:
            self._turn.release()

    def _lacking(self, namespace: str, name: str, read: Read) -> list[Member]:
        """Of those that do not have it, those that should: not where there are enough copies, wherever they are (adding
        a store moves nothing), nor while something waits for a member, which may be that this was deleted."""
        if not read.absent or namespace.startswith("index") or any(member.waiting for member in self.members):
            return []
        wanted = min(self._copies.of(namespace, read.value), sum(member.weight > 0 for member in self.members))
        held = 0
        for member in self.members:
            if member not in read.absent:
                try:
                    held += member.read(lambda store: store.info(namespace, name)) is not None
                except (StoreError, CorruptData):
                    held += 1  # nobody knows; it may well have it
        should = [member for member in rank(name, self.members)[:wanted] if member in read.absent]
        return should[: max(wanted - held, 0)]

    # -- frames

    def dictionary(self, name: bytes) -> frames.Dictionary:
        """A dictionary, to decode frames with. Raises DictionaryMissing."""
        if name not in self._dictionaries:
            text = name.hex()
            try:
                plain = self.read("dictionaries", text, self.order("dictionaries", text)).value
            except (StoreError, CorruptData) as error:
                raise DictionaryMissing(f"dictionary {text} cannot be had: {error}") from None
            self._dictionaries[name] = frames.load_dictionary(name, plain)
            if len(self._dictionaries) > _DICTIONARIES_KEPT:
                self._dictionaries.popitem(last=False)
        return self._dictionaries[name]

    def rows(self, value: bytes, place: int) -> tuple[FrameInfo, list[Row]]:
        """What an index says of a frame, from the frame's bytes; `place` is its place in the run's table.

        Raises CorruptData where it cannot be decoded.
        """
        head, plain = frames.decode(value, self.dictionary)
        view, rows, at = memoryview(plain), [], 0
        for length in head.lengths:
            rows.append(Row(digest(view[at : at + length]), place, at, length))
            at += length
        info = FrameInfo(
            digest(value), head.frame_class, head.codec, head.level, head.dictionary, head.plain_bytes, len(value)
        )
        return info, rows
