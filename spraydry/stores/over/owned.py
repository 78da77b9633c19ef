"""What one member owns: the log, the leases, the hoards and the config; of the log the others have copies."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from spraydry.errors import CorruptData, StoreError, StoreUnavailable
from spraydry.stores.base import Store, Stored
from spraydry.stores.over.batches import Batches
from spraydry.stores.over.copying import copy_log
from spraydry.stores.over.member import Member, Missed
from spraydry.stores.over.placer import Placer
from spraydry.stores.over.reader import Reader

T = TypeVar("T")


class Owned:
    """All namespaces of a spread that are not placed; methods as of a Store. Blocks; threads may share it.

    The log is read from copies while the owner does not answer. Nothing can be written then.
    """

    def __init__(
        self, members: Sequence[Member], owner: Member, reader: Reader, placer: Placer, batches: Batches
    ) -> None:
        self._owner = owner
        self._others = [member for member in members if member is not owner]
        self._reader = reader
        self._placer = placer
        self._batches = batches
        self._copied: dict[Member, str] = {}  # the newest record that a member has, as far as is known

    def get(self, namespace: str, name: str, start: int, length: int | None) -> bytes:
        return self._ask(namespace, lambda store: store.get(namespace, name, start, length))

    def info(self, namespace: str, name: str) -> Stored | None:
        return self._ask(namespace, lambda store: store.info(namespace, name))

    def _ask(self, namespace: str, ask: Callable[[Store], T]) -> T:
        """The owner's answer; of the log, where the owner does not answer, that of a copy."""
        try:
            return self._owner.read(ask, self._batches.inside)
        except StoreUnavailable:
            if not _is_log(namespace):
                raise
            for member in self._others:
                try:
                    answer = member.read(ask)
                except (StoreError, CorruptData):
                    continue
                if answer is not None:
                    return answer
            raise

    def list(self, namespace: str, after: str) -> Iterator[Stored]:
        try:
            for stored in self._owner.list(namespace, after):
                yield stored
                after = stored.name
        except StoreUnavailable:
            if not _is_log(namespace) or not self._others:
                raise
            yield from self._reader.merged(namespace, after, self._others)

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._write(lambda store: store.put_many(namespace, values))

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        return self._write(lambda store: store.create(namespace, name, value))

    def delete(self, namespace: str, names: builtins.list[str]) -> None:
        self._write(lambda store: store.delete(namespace, names))
        self._delete_copies(namespace, names)

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._write(lambda store: store.move(namespace, name, to_namespace, to))
        self._delete_copies(namespace, [name])

    def _write(self, do: Callable[[Store], T]) -> T:
        try:
            return self._owner.write(do)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"the store that owns the log does not answer, nothing can be committed without it: {error}"
            ) from None

    def _delete_copies(self, namespace: str, names: builtins.list[str]) -> None:
        if not _is_log(namespace):
            return
        self._copied.clear()
        for member in self._others:
            try:
                member.write_in_order(lambda store: store.delete(namespace, names))
            except (StoreError, CorruptData):
                self._placer.miss(member, [Missed("delete", namespace, name) for name in names])

    def copy_log(self, member: Member) -> None:
        """Copy to a member what it lacks of the log, if the owner answers: so it can be opened alone, and can own the
        log when the owner is lost. Raises StoreError."""
        if member is not self._owner and self._owner.up:
            self._copied[member] = copy_log(self._owner, member, self._copied.get(member, ""))


def _is_log(namespace: str) -> bool:
    return namespace in ("log", "log~")
