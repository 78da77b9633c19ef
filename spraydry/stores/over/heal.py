"""Bringing every frame and dictionary to as many copies as it should have: heal, and rebalance after stores changed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import NamedTuple

from spraydry.errors import CorruptData, StoreError, StoreReadOnly, ValueNotFound
from spraydry.parallel import ordered_map
from spraydry.stores.base import Store
from spraydry.stores.over.copying import Delivered, copy_log, copy_to
from spraydry.stores.over.indexes import Classes, Healed, complete_index, read_index, reason_of
from spraydry.stores.over.member import Member
from spraydry.stores.over.placement import rank
from spraydry.stores.over.reader import named_by_digest
from spraydry.stores.over.spread import Spread

_BATCH_BYTES = 8 << 20
_REPORT_EVERY = 1000


Report = Callable[[Healed], None]
Needs = Callable[[str], int]  # how many copies a frame needs for what lies in it, whatever its class


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


def _nothing(frame: str) -> int:
    return 0


def heal(
    spread: Spread,
    report: Report = lambda healed: None,
    every_copy: bool = False,
    needs: Needs = _nothing,
) -> Healed:
    """Deliver what waits, let each member's index name all its frames, then bring every frame and dictionary to its
    number of copies, and the log to all; copies on members with weight 0 are removed once the others have theirs.

    A damaged copy is found where its size is another than that of the others, or with `every_copy`, which reads all.

    Blocks; memory is bounded: 8 bytes for each frame and member, and some batches. A killed run does no harm, the next
    one goes on from what is there. Members that do not answer are left out, and counted as reasons.
    """
    return _bring(spread, keep_where_it_is, report, needs, every_copy)


def rebalance(spread: Spread, report: Report = lambda healed: None, needs: Needs = _nothing) -> Healed:
    """As `heal`, but every value ends on exactly the members that its name and the weights say: so a store that was
    added, or got a greater weight, gets its share of what is there, and the others lose that."""
    return _bring(spread, move_to_place, report, needs)


def _bring(spread: Spread, policy: Policy, report: Report, needs: Needs, every_copy: bool = False) -> Healed:
    if spread.read_only:
        raise StoreReadOnly("the repository was opened for reading only")
    with spread.uncached():
        return _bring_uncached(spread, policy, report, needs, every_copy)


def plan_heal(spread: Spread, report: Report = lambda healed: None, needs: Needs = _nothing) -> Healed:
    """What `heal` would do, from listings and the indexes; of copies that are damaged only those of another size than
    the others are counted."""
    return _plan(spread, keep_where_it_is, report, needs)


def plan_rebalance(spread: Spread, report: Report = lambda healed: None, needs: Needs = _nothing) -> Healed:
    """What `rebalance` would do, told as by `plan_heal`."""
    return _plan(spread, move_to_place, report, needs)


def _plan(spread: Spread, policy: Policy, report: Report, needs: Needs) -> Healed:
    healed = Healed(delivered=Delivered(values=spread.waiting))
    with spread.uncached():
        members = _answering(spread, healed)
        classes = Classes(spread, [index for member in members for index in read_index(spread, member, healed)])
        for namespace in ("dictionaries", "frames"):
            _Run(spread, namespace, members, policy, classes.copies, healed, report, needs).count()
    healed.fraction = 1.0
    report(healed)
    return healed


def _answering(spread: Spread, healed: Healed) -> list[Member]:
    for member in spread.members:
        if not member.up:
            healed.fail(f"{member.name} does not answer: {member.error}", "")
    return [member for member in spread.members if member.up]


def _bring_uncached(spread: Spread, policy: Policy, report: Report, needs: Needs, every_copy: bool) -> Healed:
    healed = Healed(delivered=spread.deliver())
    members = _answering(spread, healed)
    indexes = [index for member in members for index in complete_index(spread, member, healed)]
    members = [member for member in members if member.up]  # one of them may have failed only now
    report(healed)
    classes = Classes(spread, indexes)
    for namespace in ("dictionaries", "frames"):
        _Run(spread, namespace, members, policy, classes.copies, healed, report, needs, every_copy).run()
    for member in members:
        if member is not spread.owner:
            try:
                if not member.up:
                    raise member.refusal  # it was waited for already
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
        needs: Needs,
        every_copy: bool = False,
    ) -> None:
        self._spread = spread
        self._namespace = namespace
        self._members = members
        self._policy = policy
        self._copies = copies
        self._healed = healed
        self._report = report
        self._needs = needs
        self._every_copy = every_copy
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

    def count(self) -> None:
        """Only note what `run` would do."""
        healed = self._healed
        try:
            for number, plan in enumerate(self._plans()):
                size = max(plan.holders.values())
                healed.copied += len(plan.to)
                healed.copied_bytes += size * len(plan.to)
                healed.removed += len(plan.remove)
                healed.removed_bytes += sum(plan.holders[member] for member in plan.remove)
                healed.replaced += len(set(plan.holders.values())) > 1
                if number % _REPORT_EVERY == 0:
                    self._report(replace(healed))
        except (StoreError, CorruptData) as error:
            healed.fail(f"{self._namespace} could not be listed to the end: {error}", "")

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
                copies = self._enough(name, self._copies(self._namespace, name))
                plan = self._policy(name, holders, copies, self._spread.members)
                if plan.to or plan.remove or len(set(holders.values())) > 1 or self._every_copy:
                    yield plan

    def _enough(self, name: str, of_class: int) -> int:
        return max(of_class, self._needs(name)) if self._namespace == "frames" else of_class

    def _fetch(self, plan: Plan) -> _Fetched:
        """Read a sound copy; and each that is to be kept, where others are removed or the sizes differ."""
        spread, namespace = self._spread, self._namespace
        order = [member for member in spread.reader.order(namespace, plan.name) if member in plan.holders]
        bad: list[Member] = []
        try:
            read = spread.reader.read(namespace, plan.name, order)
            bad += read.damaged
            # Its header knows its class better than the index.
            copies = self._enough(plan.name, spread.copies.of(namespace, read.value))
            plan = self._policy(plan.name, plan.holders, copies, spread.members)
            suspects = plan.remove or len(set(plan.holders.values())) > 1 or self._every_copy
            for member in order if suspects else ():
                worth = member in plan.keep or plan.holders[member] != len(read.value)
                if member not in bad and worth:
                    try:
                        spread.reader.read(namespace, plan.name, [member])
                    except CorruptData:
                        bad.append(member)
            return _Fetched(plan, read.value, bad)
        except ValueNotFound:
            return _Fetched(plan)  # deleted meanwhile
        except (StoreError, CorruptData) as error:
            return _Fetched(plan, error=reason_of(error))

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
                    raise member.refusal
                copy_to(member, self._namespace, values, self._spread.reader)
            except (StoreError, CorruptData) as error:
                failed.update((member, name) for name, _ in values)
                self._healed.fail(f"could not be copied: {reason_of(error)}", values[0][0], len(values))
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
                if not member.up:
                    raise member.refusal
                member.write(delete)
            except (StoreError, CorruptData) as error:
                self._healed.fail(f"could not be removed: {reason_of(error)}", names[0][0], len(names))
                continue
            self._healed.removed += len(names)
            self._healed.removed_bytes += sum(size for _, size in names)
