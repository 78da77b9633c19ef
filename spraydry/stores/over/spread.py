"""A store over several: each frame lies on some of them by weight; one, the owner, has the log. Layout: FORMAT.md."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from spraydry.errors import CorruptData, StoreError, StoreReadOnly, StoreUnavailable, UsageError, ValueNotFound
from spraydry.stores.base import NAMESPACES, Stat, Store, Stored, Traits, check_key, check_namespace, check_range
from spraydry.stores.over.batches import Batches
from spraydry.stores.over.copying import Delivered, deliver
from spraydry.stores.over.member import Member, Queue
from spraydry.stores.over.owned import Owned
from spraydry.stores.over.passing import batches
from spraydry.stores.over.placed import PLACED, Placed
from spraydry.stores.over.placement import Copies
from spraydry.stores.over.placer import Placer
from spraydry.stores.over.reader import Reader


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
        self._placed = Placed(self.members, copies, self._reader, self._placer, self._batches)
        self._owned = Owned(self.members, self.owner, self._reader, self._placer, self._batches)
        self._closed = False
        traits = [member.store.traits for member in self.members if member.store is not None]
        self.read_only = self.owner.store is not None and self.owner.store.read_only
        self.lasting = any(member.store is None or member.store.lasting for member in self.members)
        self.traits = Traits(
            max((each.concurrency for each in traits), default=1),
            max((each.round_trip_s for each in traits), default=0.0),
            self.owner.store is None or self.owner.store.traits.atomic_create,
            lists_all=self.owner.store is not None and self.owner.store.traits.lists_all,
        )

    def member(self, name: str) -> Member:
        """The member of that name. Raises UsageError."""
        for member in self.members:
            if member.name == name:
                return member
        raise UsageError(f"no store is called {name!r} (there are: {', '.join(one.name for one in self.members)})")

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

    # -- values

    def _of(self, namespace: str) -> Placed | Owned:
        return self._placed if namespace in PLACED else self._owned

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        self._usable()
        return self._of(namespace).get(namespace, name, start, length)

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        if not self._batches.inside:
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
        return self._of(namespace).info(namespace, name)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        self._usable()
        yield from self._of(namespace).list(namespace, after)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        if namespace in PLACED:
            self.deliver()
        self._of(namespace).put_many(namespace, (_checked(namespace, *each) for each in values))

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        """Exactly one of racing callers gets True: in the log and whatever else the owner has by its doing, elsewhere
        as long as all of them find the same members up."""
        check_key(namespace, name)
        self._writable()
        if namespace in PLACED:
            self.deliver()
        return self._of(namespace).create(namespace, name, value)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        self.deliver()
        for some in batches(names):
            for name in some:
                check_key(namespace, name)
            self._of(namespace).delete(namespace, some)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        """On each member as that does it, where the other place is on the same members."""
        check_key(namespace, name)
        check_key(to_namespace, to)
        self._writable()
        if namespace not in PLACED and to_namespace not in PLACED:
            self._owned.move(namespace, name, to_namespace, to)
        elif name == to and namespace.rstrip("~") == to_namespace.rstrip("~"):
            self._placed.move(namespace, to_namespace, name)
        else:
            super().move(namespace, name, to_namespace, to)

    # -- the whole

    @contextmanager
    def uncached(self) -> Iterator[object]:
        with ExitStack() as stack:
            for member in self.members:
                if member.store is not None:
                    stack.enter_context(member.store.uncached())
            yield None

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

    @contextmanager
    def batch(self) -> Iterator[object]:
        """Batches of all members that answer; that of the owner, with the log, ends last. One that fails to make
        durable what it was given is brought it later, unless it alone had some of it."""
        self._usable()
        with self._batches.turn:
            self.deliver()
            with self._batches.open():
                yield None

    def deliver(self) -> Delivered:
        """Bring the members that are back what they missed; what was done. Called by `flush`, and before each batch and
        each writing outside of one."""
        done = Delivered()
        if not self._batches.inside and not self.read_only and any(one.waiting and one.takes for one in self.members):
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
                if not self.read_only:
                    self._owned.copy_log(member)
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
        """The local paths where members and their caches lie, so that an ingest can leave them out."""
        return [path for member in self.members if member.store is not None for path in member.store.locations()]

    def _usable(self) -> None:
        if self._closed:
            raise StoreError("the stores of the repository were closed")

    def _writable(self) -> None:
        self._usable()
        if self.read_only:
            raise StoreReadOnly("the repository was opened for reading only")


def _checked(namespace: str, name: str, value: bytes) -> tuple[str, bytes]:
    check_key(namespace, name)
    return name, value
