"""What lies on some members, by its name: reading it from the nearest, writing it to those that are to have it."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Iterator, Sequence

from spraydry.errors import CorruptData, StoreError, ValueNotFound
from spraydry.stores.base import Store, Stored
from spraydry.stores.over.batches import Batches
from spraydry.stores.over.member import Member, Missed
from spraydry.stores.over.passing import value_batches
from spraydry.stores.over.placement import Copies, rank
from spraydry.stores.over.placer import Placer
from spraydry.stores.over.reader import Reader, named_by_digest

PLACED = {namespace + end for namespace in ("frames", "index", "dictionaries") for end in ("", "~")}


class Placed:
    """The namespaces PLACED of a spread; methods as of a Store. Blocks; threads may share it."""

    def __init__(
        self, members: Sequence[Member], copies: Copies, reader: Reader, placer: Placer, batches: Batches
    ) -> None:
        self._members = members
        self._copies = copies
        self._reader = reader
        self._placer = placer
        self._batches = batches

    def get(self, namespace: str, name: str, start: int, length: int | None) -> bytes:
        order, inline = self._reader.order(namespace, name), self._batches.inside
        if start != 0 or length is not None or not named_by_digest(namespace, name):
            return self._reader.find(
                namespace, name, lambda store: store.get(namespace, name, start, length), lambda _: True, order, inline
            )[0]
        read = self._reader.read(namespace, name, order, inline)
        if read.absent or read.damaged:
            self._reader.repair(namespace, name, read)
        if namespace == "index":
            self._placer.where.read_run(name, read.value)
        return read.value

    def info(self, namespace: str, name: str) -> Stored | None:
        def there(store: Store) -> Stored:
            stored = store.info(namespace, name)
            if stored is None:
                raise ValueNotFound(name)
            return stored

        try:
            order = self._reader.order(namespace, name)
            return self._reader.find(namespace, name, there, lambda _: True, order, self._batches.inside)[0]
        except ValueNotFound:
            return None

    def list(self, namespace: str, after: str) -> Iterator[Stored]:
        return self._reader.merged(namespace, after, self._members)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        for group in value_batches(values):
            if namespace == "index":
                group = [(name, value) for name, value in group if not self._placer.put_run(name, value)]
            self._placer.place(namespace, group)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        if self.info(namespace, name) is not None:
            return False
        for member in rank(name, self._members):
            if member.takes and not member.waiting:
                try:
                    if not member.write(lambda store: store.create(namespace, name, value)):
                        return False
                except (StoreError, CorruptData):
                    continue
                break
        self.put_many(namespace, [(name, value)])
        return True

    def delete(self, namespace: str, names: builtins.list[str]) -> None:
        if namespace == "index":
            kept = self._placer.kept_runs & set(names)
            self._placer.kept_runs -= kept
            names = [name for name in names if name not in kept]
        errors: builtins.list[Exception] = []
        for member in self._members:
            try:
                member.write_in_order(lambda store: store.delete(namespace, names))
            except (StoreError, CorruptData) as error:
                errors.append(error)
                # A run that stays there is taken in again, and merged, when the member is back; without it, and without
                # the one it was merged into, the member's frames would have no rows.
                if namespace != "index":
                    self._placer.miss(member, [Missed("delete", namespace, name) for name in names])
        if len(errors) == len(self._members) and not any(member.up for member in self._members):
            raise errors[0]

    def move(self, namespace: str, to_namespace: str, name: str) -> None:
        """Between a namespace and its trash: on each member as that does it."""
        moved = False
        errors: dict[Member, Exception] = {}
        for member in self._members:
            try:
                member.write_in_order(lambda store: store.move(namespace, name, to_namespace, name))
                moved = True
            except ValueNotFound:
                continue
            except (StoreError, CorruptData) as error:
                errors[member] = error
        if not moved:
            raise next(iter(errors.values()), ValueNotFound(f"{namespace}/{name} is on none of the stores"))
        ranked = rank(name, self._members)[: self._copies.most]
        for member in errors:
            entries = [Missed("delete", namespace, name)] if namespace != to_namespace else []
            if member in ranked:
                entries.append(Missed("put", to_namespace, name))
            self._placer.miss(member, entries)
