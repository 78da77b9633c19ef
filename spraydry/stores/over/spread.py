"""A store over several: each frame lies on some of them by weight; one, the owner, has the log. Layout: FORMAT.md."""

from __future__ import annotations

import builtins
import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from spraydry.errors import (
    CorruptData,
    StoreError,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.stores.base import NAMESPACES, Stat, Store, Stored, Traits, check_key, check_namespace, check_range
from spraydry.stores.over.batches import Batches
from spraydry.stores.over.copying import Delivered, copy_log, deliver
from spraydry.stores.over.member import Member, Missed, Queue
from spraydry.stores.over.passing import batches, value_batches
from spraydry.stores.over.placement import Copies, rank
from spraydry.stores.over.placer import Placer
from spraydry.stores.over.reader import Reader, named_by_digest

T = TypeVar("T")

# What is placed by its name. The rest is in the owner.
_PLACED = {namespace + end for namespace in ("frames", "index", "dictionaries") for end in ("", "~")}


class Spread(Store):
    """Values on `copies` of `members`; the log, the leases, the hoards and the config on the member named `owner`.

    Blocks; threads may share it. Batches of several threads take turns; members are written to one after another, in
    the thread that writes, for a batch of SQLite belongs to a thread. A member that does not answer, is full or cannot
    be written stops nothing but what only it could do: others take its place, what it missed waits in its queue
    (`queues`, by member id; without one `heal` finds it). A value is acknowledged when one member has it.

    In `frames`, `index` and `dictionaries` a name that is a digest must be that of the value: any copy is as good as
    another then, and each that is read is checked. Other names there are for tests: a copy that a member missed is
    told from the newer one by nothing.
    """

    def __init__(
        self,
        members: Sequence[Member],
        owner: str,
        copies: Copies = Copies(),  # noqa: B008 (frozen)
        queues: Mapping[bytes, Queue] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = 30.0,
    ) -> None:
        if len({member.name for member in members}) < len(members) or len({one.id for one in members}) < len(members):
            raise UsageError("two stores of one repository have the same name, or lie at the same place")
        self.members = tuple(members)
        for member in self.members:
            member.queue = (queues or {}).get(member.id)
            member.clock, member.patience_s = clock, patience_s
        self.owner = self.member(owner)
        self.copies = copies
        self._placer = Placer(self.members, copies)
        self._batches = Batches(self.members, self.owner, self._placer)
        self._reader = Reader(self.members, copies, self._batches.turn)
        self._log_copied: dict[Member, str] = {}
        self._closed = False
        self._describe()

    def member(self, name: str) -> Member:
        """The member of that name. Raises UsageError."""
        for member in self.members:
            if member.name == name:
                return member
        raise UsageError(f"no store is called {name!r} (there are: {', '.join(one.name for one in self.members)})")

    def open_member(self, name: str, store: Store) -> None:
        """Give a member a store that could be opened after all."""
        self.member(name).open_with(store)
        self._describe()

    def _describe(self) -> None:
        traits = [member.store.traits for member in self.members if member.store is not None]
        self.read_only = self.owner.store is not None and self.owner.store.read_only
        self.lasting = any(member.store is None or member.store.lasting for member in self.members)
        self.traits = Traits(
            max((each.concurrency for each in traits), default=1),
            max((each.round_trip_s for each in traits), default=0.0),
            self.owner.store is None or self.owner.store.traits.atomic_create,
        )

    # -- how it is

    @property
    def complete(self) -> bool:
        """Whether all members answered when they were last asked: if not, listings lack what only the others have."""
        return not self.silent

    @property
    def silent(self) -> dict[str, str]:
        """The members that do not answer, and why."""
        return {
            member.name: member.error or "it was not opened"
            for member in self.members
            if member.store is None or not member.answers
        }

    @property
    def repaired(self) -> int:
        """The number of copies that were written back because a reader found them damaged or missing."""
        return self._reader.repaired

    @property
    def missed(self) -> int:
        """How much members missed that no queue keeps for them, so that only `heal` finds it."""
        return self._placer.missed

    @property
    def waiting(self) -> int:
        """How much waits for members that missed it."""
        return sum(member.waiting for member in self.members)

    @property
    def reader(self) -> Reader:
        """What finds values on the members."""
        return self._reader

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        self._usable()

        def part(store: Store) -> bytes:
            return store.get(namespace, name, start, length)

        if namespace not in _PLACED:
            return self._ask_owner(namespace, part)
        order = self._reader.order(namespace, name)
        if start != 0 or length is not None or not named_by_digest(namespace, name):
            return self._reader.find(namespace, name, part, lambda _: True, order, self._in_batch)[0]
        read = self._reader.read(namespace, name, order, self._in_batch)
        if (read.absent or read.damaged) and not self.read_only:
            self._reader.repair(namespace, name, read)
        if namespace == "index":
            self._placer.where.read_run(name, read.value)
        return read.value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        if not self._in_batch:
            return super().get_many(namespace, names)

        def one(name: str) -> tuple[str, bytes | None]:  # in this thread, which alone sees what its batch wrote
            try:
                return name, self.get(namespace, name)
            except ValueNotFound:
                return name, None

        return map(one, names)

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        self._usable()
        if namespace not in _PLACED:
            return self._ask_owner(namespace, lambda store: store.info(namespace, name))

        def there(store: Store) -> Stored:
            stored = store.info(namespace, name)
            if stored is None:
                raise ValueNotFound(name)
            return stored

        try:
            order = self._reader.order(namespace, name)
            return self._reader.find(namespace, name, there, lambda _: True, order, self._in_batch)[0]
        except ValueNotFound:
            return None

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        self._usable()
        if namespace in _PLACED:
            yield from self._merged(namespace, after, self.members)
            return
        try:
            for stored in self.owner.list(namespace, after):
                yield stored
                after = stored.name
        except StoreUnavailable:
            others = [member for member in self.members if member is not self.owner]
            if not _is_log(namespace) or not others:
                raise
            yield from self._merged(namespace, after, others)  # from the copies that members have

    def _merged(self, namespace: str, after: str, members: Sequence[Member]) -> Iterator[Stored]:
        silent: builtins.list[str] = []
        parts = [self._listing(member, namespace, after, silent) for member in members]
        before = None
        for stored in heapq.merge(*parts, key=lambda stored: stored.name):
            if stored.name != before:
                yield stored
            before = stored.name
        if silent and len(silent) == len(members):
            raise StoreUnavailable(f"no store answers that could list {namespace}: {'; '.join(silent)}")

    def _listing(self, member: Member, namespace: str, after: str, silent: builtins.list[str]) -> Iterator[Stored]:
        """What one member lists; where it fails, the rest is left out."""
        try:
            for stored in member.list(namespace, after):
                if namespace == "index":
                    self._reader.note_run(stored.name, member)
                yield stored
        except (StoreError, CorruptData) as error:
            silent.append(str(error))

    def _ask_owner(self, namespace: str, ask: Callable[[Store], T]) -> T:
        """The owner's answer; of the log, where the owner does not answer, that of a copy."""
        try:
            return self.owner.read(ask, self._in_batch)
        except StoreUnavailable:
            if not _is_log(namespace):
                raise
            for member in self.members:
                if member is not self.owner:
                    try:
                        answer = member.read(ask)
                    except (StoreError, CorruptData):
                        continue
                    if answer is not None:
                        return answer
            raise

    def stat(self) -> Stat:
        """Each value counts once; the room is for values with the default number of copies. `stats` says how full each
        member is, without listing everything."""
        values = held = 0
        for namespace in NAMESPACES:
            for stored in self.list_all(namespace):
                values += 1
                held += stored.size
        rooms = [stat.free_bytes for stat in self.stats().values() if stat is not None and stat.free_bytes is not None]
        return Stat(values, held, sum(rooms) // self.copies.default if rooms else None)

    def stats(self) -> dict[str, Stat | None]:
        """What each member holds, copies and all; None where it does not answer."""
        found: dict[str, Stat | None] = {}
        for member in self.members:
            try:
                found[member.name] = member.read(lambda store: store.stat(), inline=True)
            except (StoreError, CorruptData):
                found[member.name] = None
        return found

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        if namespace not in _PLACED:
            self._write_owner(namespace, lambda store: store.put_many(namespace, values))
            return
        self.deliver()
        for group in value_batches(values):
            for name, _ in group:
                check_key(namespace, name)
            if namespace == "index":
                group = [(name, value) for name, value in group if not self._placer.put_run(name, value)]
            self._placer.place(namespace, group)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """Exactly one of racing callers gets True: in the log and whatever else the owner has by its doing, elsewhere
        as long as all of them find the same members up."""
        check_key(namespace, name)
        self._writable()
        if namespace not in _PLACED:
            return self._write_owner(namespace, lambda store: store.create(namespace, name, value))
        if self.info(namespace, name) is not None:
            return False
        for member in rank(name, self.members):
            if member.takes and not member.waiting:
                try:
                    if not member.write(lambda store: store.create(namespace, name, value)):
                        return False
                except (StoreError, CorruptData):
                    continue
                break
        self.put(namespace, name, value)
        return True

    def _write_owner(self, namespace: str, do: Callable[[Store], T]) -> T:
        try:
            return self.owner.write(do)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"the store that owns the log does not answer, nothing can be committed without it: {error}"
            ) from None

    # -- deleting and moving

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        self.deliver()
        for some in batches(names):
            for name in some:
                check_key(namespace, name)
            if namespace == "index":
                kept = self._placer.kept_runs & set(some)
                self._placer.kept_runs -= kept
                some = [name for name in some if name not in kept]
            self._delete(namespace, some)

    def _delete(self, namespace: str, names: builtins.list[str]) -> None:
        if namespace not in _PLACED:
            self._write_owner(namespace, lambda store: store.delete(namespace, names))
            if not _is_log(namespace):
                return
            self._log_copied.clear()
        errors: builtins.list[Exception] = []
        for member in self.members:
            if namespace not in _PLACED and member is self.owner:
                continue
            try:
                if not member.up or member.waiting:
                    raise StoreUnavailable(f"{member.name}: {member.error or 'older values wait for it'}")
                member.write(lambda store: store.delete(namespace, names))
            except (StoreError, CorruptData) as error:
                errors.append(error)
                # A run that stays there is taken in again, and merged, when the member is back; without it, and without
                # the one it was merged into, the member's frames would have no rows.
                if namespace != "index":
                    self._placer.miss(member, [Missed("delete", namespace, name) for name in names])
        if len(errors) == len(self.members) and not any(member.up for member in self.members):
            raise errors[0]

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        """On each member as that does it, where the other place is on the same members."""
        check_key(namespace, name)
        check_key(to_namespace, to)
        self._writable()
        if namespace not in _PLACED and to_namespace not in _PLACED:
            self._write_owner(namespace, lambda store: store.move(namespace, name, to_namespace, to))
            if _is_log(namespace):
                self._delete_copies(namespace, name)
        elif name == to and namespace.rstrip("~") == to_namespace.rstrip("~"):
            self._move(namespace, to_namespace, name)
        else:
            super().move(namespace, name, to_namespace, to)

    def _move(self, namespace: str, to_namespace: str, name: str) -> None:
        moved = False
        errors: dict[Member, Exception] = {}
        for member in self.members:
            try:
                if not member.up or member.waiting:
                    raise StoreUnavailable(f"{member.name}: {member.error or 'older values wait for it'}")
                member.write(lambda store: store.move(namespace, name, to_namespace, name))
                moved = True
            except ValueNotFound:
                continue
            except (StoreError, CorruptData) as error:
                errors[member] = error
        if not moved:
            raise next(iter(errors.values()), ValueNotFound(f"{namespace}/{name} is on none of the stores"))
        ranked = rank(name, self.members)[: self.copies.most]
        for member in errors:
            entries = [Missed("delete", namespace, name)] if namespace != to_namespace else []
            if member in ranked:
                entries.append(Missed("put", to_namespace, name))
            self._placer.miss(member, entries)

    def _delete_copies(self, namespace: str, name: str) -> None:
        self._log_copied.clear()
        for member in self.members:
            if member is not self.owner:
                try:
                    member.write(lambda store: store.delete(namespace, [name]))
                except (StoreError, CorruptData):
                    self._placer.miss(member, [Missed("delete", namespace, name)])

    # -- batches

    @property
    def _in_batch(self) -> bool:
        return self._batches.inside

    @contextmanager
    def batch(self) -> Iterator[object]:
        """Batches of all members that answer; that of the owner, with the log, ends last. One that fails to make
        durable what it was given is brought it later, unless it alone had some of it."""
        self._usable()
        with self._batches.turn:
            self.deliver()
            with self._batches.open():
                yield None

    # -- the whole

    def deliver(self) -> Delivered:
        """Bring the members that are back what they missed; what was done. Called by `flush`, and before each batch and
        each writing outside of one."""
        done = Delivered()
        if not self._in_batch and not self.read_only and any(one.waiting and one.takes for one in self.members):
            with self._batches.turn:
                for member in self.members:
                    if member.waiting and member.takes:
                        deliver(member, self._reader, done)
        return done

    def flush(self) -> None:
        """Deliver what waits, tidy up each member, and copy the log to those that lack some of it: so each can be
        opened alone, and can own the log when the owner is lost. A member that fails here fails nothing."""
        self._usable()
        self.deliver()
        for member in self.members:
            if not member.up:
                continue
            try:
                if member is not self.owner and not self.read_only and self.owner.up:
                    after = self._log_copied.get(member, "")
                    self._log_copied[member] = copy_log(self.owner, member, after)
                member.write(lambda store: store.flush())
            except (StoreError, CorruptData):
                continue

    def destroy(self) -> None:
        self._writable()
        for member in self.members:
            if member.store is None or not member.up:
                raise StoreUnavailable(f"{member.name} does not answer, so not all can be removed: {member.error}")
        for member in self.members:
            member.write(lambda store: store.destroy())
        self._closed = True

    def close(self) -> None:
        self._closed = True
        for member in self.members:
            if member.store is not None:
                member.store.close()
            if member.queue is not None:
                member.queue.close()

    def location(self) -> str | None:
        """That of the owner, if all members are on this machine. `locations` has all."""
        return self.owner.store.location() if self.owner.store and all(one.local for one in self.members) else None

    def locations(self) -> builtins.list[str]:
        """The local paths where members lie, so that an ingest can leave them out."""
        found = [member.store.location() for member in self.members if member.store is not None]
        return [path for path in found if path is not None]

    def _usable(self) -> None:
        if self._closed:
            raise StoreError("the stores of the repository were closed")

    def _writable(self) -> None:
        self._usable()
        if self.read_only:
            raise StoreReadOnly("the repository was opened for reading only")


def _is_log(namespace: str) -> bool:
    return namespace in ("log", "log~")
