"""Bringing every frame and dictionary to as many copies as it should have: heal, and rebalance after stores changed."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from spraydry.errors import CorruptData, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, decode_run
from spraydry.parallel import ordered_map
from spraydry.stores.base import Store
from spraydry.stores.over.copying import Delivered, copy_log, copy_to, put_run
from spraydry.stores.over.member import Member
from spraydry.stores.over.placement import rank
from spraydry.stores.over.reader import named_by_digest
from spraydry.stores.over.spread import Spread

_BATCH_BYTES = 8 << 20
_REPORT_EVERY = 1000


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


Report = Callable[[Healed], None]


class Plan(NamedTuple):
    """What to do with one value: `holders` have it now (with its size there), `to` are to get it, and `remove` to lose
    it when all of `keep` are known to have it sound."""

    name: str
    holders: dict[Member, int]
    to: list[Member]
    keep: list[Member]
    remove: list[Member]


Policy = Callable[[str, dict[Member, int], int, Sequence[Member]], Plan]


def keep_where_it_is(name: str, holders: dict[Member, int], copies: int, members: Sequence[Member]) -> Plan:
    """Enough copies, wherever they are, new ones where placement wants them; nothing on members that are drained."""
    ranked = rank(name, members)
    held = [member for member in ranked if member in holders]
    to = [member for member in ranked if member not in holders and not member.full][
        : max(min(copies, len(ranked)) - len(held), 0)
    ]
    return Plan(name, holders, to, held, [one for one in holders if one.weight == 0] if held or to else [])


def move_to_place(name: str, holders: dict[Member, int], copies: int, members: Sequence[Member]) -> Plan:
    """Copies exactly where placement wants them."""
    proper = rank(name, members)[:copies]
    keep = [member for member in proper if member in holders]
    to = [member for member in proper if member not in holders]
    return Plan(name, holders, to, keep, [one for one in holders if one not in proper] if proper else [])


def heal(spread: Spread, report: Report = lambda healed: None) -> Healed:
    """Deliver what waits, let each member's index name all its frames, then bring every frame and dictionary to its
    number of copies, and the log to all; copies on members with weight 0 are removed once the others have theirs.

    Blocks; memory is bounded: 8 bytes for each frame and member, and some batches. A killed run does no harm, the next
    one goes on from what is there. Members that do not answer are left out, and counted as reasons.
    """
    return _bring(spread, keep_where_it_is, report)


def rebalance(spread: Spread, report: Report = lambda healed: None) -> Healed:
    """As `heal`, but every value ends on exactly the members that its name and the weights say: so a store that was
    added, or got a greater weight, gets its share of what is there, and the others lose that."""
    return _bring(spread, move_to_place, report)


def _bring(spread: Spread, policy: Policy, report: Report) -> Healed:
    healed = Healed(delivered=spread.deliver())
    members = []
    for member in spread.members:
        if member.up:
            members.append(member)
        else:
            healed.fail(f"{member.name} does not answer: {member.error}", "")
    indexes = [index for member in members for index in _heal_index(spread, member, healed)]
    members = [member for member in members if member.up]  # one of them may have failed only now
    report(healed)
    classes = _Classes(spread, indexes)
    for namespace in ("dictionaries", "frames"):
        _Run(spread, namespace, members, policy, classes.copies, healed, report).run()
    for member in members:
        if member is not spread.owner:
            try:
                copy_log(spread.owner, member, "")
            except (StoreError, CorruptData) as error:
                healed.fail(f"the log could not be copied: {error}", "")
    if not healed.failed:
        for member in members:
            if member.weight == 0 and not any(True for _ in member.list("frames")):
                # All it named has rows on the members that have the frames now.
                names = [stored.name for stored in member.list("index")]
                member.write(lambda store, names=names: store.delete("index", names))  # type: ignore[misc]
    healed.fraction = 1.0
    report(healed)
    return healed


class _Names:
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


class _Index(NamedTuple):
    """What runs name: all frames, and those of classes that have their own number of copies, by that."""

    named: _Names
    special: dict[int, _Names]

    @classmethod
    def empty(cls, spread: Spread) -> _Index:
        return cls(
            _Names(), {number: _Names() for number in {*spread.copies.by_class.values()} - {spread.copies.default}}
        )

    def add(self, spread: Spread, infos: Sequence[FrameInfo]) -> None:
        self.named.add(info.name for info in infos)
        for number, names in self.special.items():
            names.add(info.name for info in infos if spread.copies.of_class(info.frame_class) == number)

    def seal(self) -> None:
        for names in (self.named, *self.special.values()):
            names.seal()


class _Classes:
    """How many copies a value should have, told without reading it."""

    def __init__(self, spread: Spread, indexes: Sequence[_Index]) -> None:
        self._copies = spread.copies
        self._indexes = indexes

    def copies(self, namespace: str, name: str) -> int:
        if namespace == "dictionaries":
            return self._copies.of(namespace, b"")
        raw = bytes.fromhex(name)
        found = [number for index in self._indexes for number, names in index.special.items() if raw in names]
        return max(found, default=self._copies.default)


def _heal_index(spread: Spread, member: Member, healed: Healed) -> list[_Index]:
    """Let the member's sound runs name every frame it has; runs that are damaged there are removed then. What they
    named before, and what had to be added."""
    index, more = _Index.empty(spread), _Index.empty(spread)
    damaged = []
    try:
        for stored in member.list("index"):
            try:
                infos = _infos(member, stored.name)
            except ValueNotFound:
                continue  # merged meanwhile
            except CorruptData:
                damaged.append(stored.name)
                continue
            index.add(spread, infos)
        index.seal()
        whole = _name_frames(spread, member, index, more, healed)
        if damaged and whole:
            member.write(lambda store: store.delete("index", damaged))
            healed.replaced += len(damaged)
    except (StoreError, CorruptData) as error:
        healed.fail(f"the index of {member.name} could not be completed: {error}", "")
    more.seal()
    return [index, more]


def _infos(member: Member, name: str) -> Sequence[FrameInfo]:
    value = member.read(lambda store: store.get("index", name))
    if digest(value).hex() != name:
        raise CorruptData(f"index run {name} is damaged on {member.name}")
    infos, rows = decode_run(value)
    for _ in rows:
        pass
    return infos


def _name_frames(spread: Spread, member: Member, index: _Index, more: _Index, healed: Healed) -> bool:
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
            healed.fail(f"a frame that no index names cannot be read: {_reason(error)}", stored.name)
            continue
        more.add(spread, [info])
        values.append(read.value)
        held += len(read.value)
        if held >= _BATCH_BYTES:
            write()
    write()
    return whole


@dataclass
class _Fetched:
    """A plan with the value, None where none is needed or to be had; `bad` holders have another one."""

    plan: Plan
    value: bytes | None = None
    bad: list[Member] = field(default_factory=list)
    error: str | None = None


class _Run:
    """One pass over a namespace: plans are made from merged listings, values read in threads and written in batches."""

    def __init__(
        self,
        spread: Spread,
        namespace: str,
        members: Sequence[Member],
        policy: Policy,
        copies: Callable[[str, str], int],
        healed: Healed,
        report: Report,
    ) -> None:
        self._spread = spread
        self._namespace = namespace
        self._members = members
        self._policy = policy
        self._copies = copies
        self._healed = healed
        self._report = report
        self._batch: list[_Fetched] = []
        self._held = 0

    def run(self) -> None:
        threads = max(1, min(self._spread.traits.concurrency, 16))
        try:
            for fetched in ordered_map(self._fetch, self._plans(), threads):
                if fetched.error is not None:
                    self._healed.fail(fetched.error, fetched.plan.name)
                    continue
                self._batch.append(fetched)
                self._held += len(fetched.value or b"")
                if self._held >= _BATCH_BYTES or len(self._batch) >= _REPORT_EVERY:
                    self._write()
                    self._report(replace(self._healed))
        except (StoreError, CorruptData) as error:
            self._healed.fail(f"{self._namespace} could not be listed to the end: {error}", "")
        self._write()

    def _plans(self) -> Iterator[Plan]:
        """What to do with each value that has to be done something with; reads nothing but listings."""

        def listing(member: Member) -> Iterator[tuple[str, int, Member]]:
            for stored in member.list(self._namespace):
                yield stored.name, stored.size, member

        merged = heapq.merge(*map(listing, self._members), key=lambda each: each[0])
        for name, found in groupby(merged, key=lambda each: each[0]):
            self._healed.checked += 1
            holders = {member: size for _, size, member in found}
            if named_by_digest(self._namespace, name):
                self._healed.fraction = int(name[:8], 16) / (1 << 32)
                plan = self._policy(name, holders, self._copies(self._namespace, name), self._spread.members)
                if plan.to or plan.remove or len(set(holders.values())) > 1:
                    yield plan

    def _fetch(self, plan: Plan) -> _Fetched:
        """Read a sound copy; and each that is to be kept, where others are removed or the sizes differ."""
        spread, namespace = self._spread, self._namespace
        order = [member for member in spread.reader.order(namespace, plan.name) if member in plan.holders]
        bad: list[Member] = []
        try:
            read = spread.reader.read(namespace, plan.name, order)
            bad += read.damaged
            copies = spread.copies.of(namespace, read.value)  # its header knows better than the index
            plan = self._policy(plan.name, plan.holders, copies, spread.members)
            suspects = plan.remove or len(set(plan.holders.values())) > 1
            for member in order if suspects else ():
                if member not in bad and (member in plan.keep or plan.holders[member] != len(read.value)):
                    try:
                        spread.reader.read(namespace, plan.name, [member])
                    except CorruptData:
                        bad.append(member)
            return _Fetched(plan, read.value, bad)
        except ValueNotFound:
            return _Fetched(plan)  # deleted meanwhile
        except (StoreError, CorruptData) as error:
            return _Fetched(plan, error=_reason(error))

    def _write(self) -> None:
        batch, self._batch, self._held = [one for one in self._batch if one.value is not None], [], 0
        failed: set[tuple[Member, str]] = set()
        for member in self._spread.members:
            values = []
            for one in batch:
                if member in one.plan.to or (member in one.bad and member not in one.plan.remove):
                    assert one.value is not None
                    values.append((one.plan.name, one.value))
            if not values:
                continue
            try:
                if not member.up:
                    raise StoreUnavailable(f"{member.name}: {member.error}")
                copy_to(member, self._namespace, values, self._spread.reader)
            except (StoreError, CorruptData) as error:
                failed.update((member, name) for name, _ in values)
                self._healed.fail(f"could not be copied: {_reason(error)}", values[0][0], len(values))
                continue
            replaced = sum(1 for one in batch if member in one.bad and member not in one.plan.remove)
            self._healed.replaced += replaced
            self._healed.copied += len(values) - replaced
            self._healed.copied_bytes += sum(len(value) for _, value in values)
        self._remove(batch, failed)

    def _remove(self, batch: Sequence[_Fetched], failed: set[tuple[Member, str]]) -> None:
        """Remove what is surplus now: where every copy that is to stay was read, or written, just now."""
        for member in self._members:
            names = []
            for one in batch:
                if member in one.plan.remove:
                    if any((other, one.plan.name) in failed for other in self._spread.members):
                        self._healed.fail("a surplus copy stays, because another could not be made", one.plan.name)
                        continue
                    names.append((one.plan.name, one.plan.holders[member]))
            if not names:
                continue

            def delete(store: Store, names: list[str] = [name for name, _ in names]) -> None:  # noqa: B006
                store.delete(self._namespace, names)

            try:
                member.write(delete)
            except (StoreError, CorruptData) as error:
                self._healed.fail(f"could not be removed: {_reason(error)}", names[0][0], len(names))
                continue
            self._healed.removed += len(names)
            self._healed.removed_bytes += sum(size for _, size in names)


def _reason(error: Exception) -> str:
    """An error without the name it begins with, so that equal reasons are counted together."""
    text = str(error)
    first, _, rest = text.partition(" ")
    return rest if "/" in first and rest else text
