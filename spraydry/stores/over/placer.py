"""Writing to several stores: which members get a value, who takes the place of one that cannot, and what it missed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spraydry.errors import CorruptData, StoreError, StoreFull, StoreUnavailable
from spraydry.format.digest import digest
from spraydry.stores.over.member import Member, Missed
from spraydry.stores.over.placement import Copies, rank
from spraydry.stores.over.reader import named_by_digest
from spraydry.stores.over.whereabouts import Whereabouts, decodes, split_run


@dataclass
class Batch:
    """What was written to each member in a batch, which belongs to a thread."""

    thread: int
    written: dict[Member, list[tuple[str, str]]] = field(default_factory=dict)


@dataclass
class _Placing:
    """A value on its way to some members: `ranked` are those it may go to, `tried` of them were seen so far."""

    name: str
    value: bytes
    copies: int
    ranked: list[Member]
    in_order: bool
    tried: int = 0
    holders: list[Member] = field(default_factory=list)

    def next(self) -> list[Member]:
        """Members to write it to now, as many as it still needs. With `in_order` not such that something waits for: it
        may be that this name was deleted."""
        found: list[Member] = []
        while len(self.holders) + len(found) < self.copies and self.tried < len(self.ranked):
            member = self.ranked[self.tried]
            self.tried += 1
            if member.takes and not (self.in_order and member.waiting):
                found.append(member)
        return found


class Placer:
    """Writes values to the members that are to have them. Blocks; threads may share it.

    `missed` counts what no queue could keep, `batch` is the batch that is open, `kept_runs` are those that the one who
    merges runs in it must not delete.
    """

    def __init__(self, members: Sequence[Member], copies: Copies) -> None:
        self._members = members
        self._copies = copies
        self.where = Whereabouts(members)
        self.missed = 0
        self.batch: Batch | None = None
        self.kept_runs: set[str] = set()

    def place(self, namespace: str, group: Sequence[tuple[str, bytes]]) -> None:
        """Write values to the members that are to have them, and others where these cannot take them."""
        placings = []
        for name, value in group:
            ranked = rank(name, self._members)
            copies = min(self._copies.of(namespace, value), len(ranked))
            # The name of a deleted frame never comes back (each has a salt), so what waits cannot be about this one.
            in_order = not named_by_digest("frames", name) or namespace != "frames"
            placings.append(_Placing(name, value, max(copies, 1), ranked, in_order))
        errors: dict[Member, Exception] = {}
        while True:
            parts: dict[Member, list[_Placing]] = {}
            for placing in placings:
                for member in placing.next():
                    parts.setdefault(member, []).append(placing)
            if not parts:
                break
            for member, some in parts.items():
                try:
                    self._put(member, namespace, [(placing.name, placing.value) for placing in some])
                except (StoreError, CorruptData) as error:
                    errors[member] = error
                else:
                    for placing in some:
                        placing.holders.append(member)
        for placing in placings:
            if not placing.holders:
                raise self._nowhere(placing.ranked, errors)
        self._note_missed(namespace, placings, errors)
        if namespace == "frames":
            for placing in placings:
                if named_by_digest(namespace, placing.name):
                    self.where.wrote(bytes.fromhex(placing.name), placing.holders)

    def _put(self, member: Member, namespace: str, values: Sequence[tuple[str, bytes]]) -> None:
        member.write(lambda store: store.put_many(namespace, values))
        if (batch := self.batch) is not None and batch.thread == threading.get_ident():
            batch.written.setdefault(member, []).extend((namespace, name) for name, _ in values)

    def _note_missed(self, namespace: str, placings: Iterable[_Placing], errors: Mapping[Member, Exception]) -> None:
        """Let what a member should have wait for it: not where it has no room and there are enough copies without it,
        for that is how a store among several fills up."""
        missed: dict[Member, list[Missed]] = {}
        for placing in placings:
            for member in placing.ranked[: placing.copies]:
                down = not member.up or member.waiting or isinstance(errors.get(member), StoreUnavailable)
                if member not in placing.holders and (down or len(placing.holders) < placing.copies):
                    missed.setdefault(member, []).append(Missed("put", namespace, placing.name))
        for member, entries in missed.items():
            self.miss(member, entries)

    def miss(self, member: Member, entries: Sequence[Missed]) -> None:
        if not member.miss(entries):
            self.missed += len(entries)

    def _nowhere(self, ranked: Sequence[Member], errors: Mapping[Member, Exception]) -> Exception:
        """Why a value could be written to no member, in one line."""
        if not ranked:
            return StoreFull("all stores are being drained (weight 0): give one a weight, or add one")
        found = [errors.get(member, member.refusal) for member in ranked]
        kinds = {type(error) for error in found}
        kind = kinds.pop() if len(kinds) == 1 else StoreUnavailable
        return kind(f"no store can take new frames: {'; '.join(map(str, found))}")

    # -- index runs: each member's names its own frames

    def put_run(self, name: str, run: bytes) -> bool:
        """Write to each member a run of the frames it has; False for what is no run."""
        infos = decodes(name, run)
        if infos is None:
            return False
        where, fresh = self.where.of(infos, self._has)
        failed: list[tuple[Member, frozenset[bytes], bytes]] = []
        indexed: set[bytes] = set()
        for member in self._members:
            names = frozenset(info.name for info in infos if member in where[info.name])
            if not names:
                continue
            part = split_run(run, names)
            if not fresh:
                self._keep_if_there(part)
            try:
                self._put(member, "index", [(_name_of(part), part)])
                indexed |= names
            except (StoreError, CorruptData):
                failed.append((member, names, part))
        for member, names, _ in failed:
            # With the frames it is brought the rows that name them.
            self.miss(member, [Missed("put", "frames", each.hex()) for each in sorted(names)])
        left = frozenset(info.name for info in infos) - indexed
        if left or not infos:
            self.place("index", [(_name_of(part := split_run(run, left)), part)])
        return True

    def _keep_if_there(self, part: bytes) -> None:
        """Who merges runs puts the merged one, then deletes the old ones by the names it knows, not by those of the
        parts: a part that was there before, unchanged, must survive that."""
        name = _name_of(part)
        if any(self._has(member, "index", name) for member in self._members):
            self.kept_runs.add(name)

    def _has(self, member: Member, namespace: str, name: str) -> bool:
        try:
            return member.read(lambda store: store.info(namespace, name), inline=True) is not None
        except (StoreError, CorruptData):
            return False


def _name_of(run: bytes) -> str:
    return digest(run).hex()
