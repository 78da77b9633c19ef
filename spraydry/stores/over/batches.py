"""Batches over several stores: each member's own, entered and ended together, the owner's last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from spraydry.errors import CorruptData, StoreError
from spraydry.stores.over.member import Member, Missed
from spraydry.stores.over.placer import Batch, Placer


class Batches:
    """Opens batches; threads take turns (`turn`), one inside another is part of it. Blocks."""

    def __init__(self, members: Sequence[Member], owner: Member, placer: Placer) -> None:
        self.turn = threading.RLock()
        self._members = members
        self._owner = owner
        self._placer = placer

    @property
    def inside(self) -> bool:
        """Whether this thread is inside one."""
        return (batch := self._placer.batch) is not None and batch.thread == threading.get_ident()

    @contextmanager
    def open(self) -> Iterator[None]:
        """A batch; what was written in it is durable when it ends, or waits for the members that failed to make it so.
        Raises what the body raises, and StoreError where a value would be on no member."""
        with self.turn:
            if self._placer.batch is not None:
                yield
                return
            with ExitStack() as stack:
                stack.callback(self._end)
                for member in (self._owner, *(one for one in self._members if one is not self._owner)):
                    if member.up:
                        try:
                            stack.enter_context(self._of(member))
                        except StoreError as error:
                            member.failed(error)
                self._placer.batch = Batch(threading.get_ident())
                try:
                    yield
                except BaseException:
                    self._placer.where.forget()
                    raise

    def _end(self) -> None:
        self._placer.batch = None
        self._placer.kept_runs.clear()

    @contextmanager
    def _of(self, member: Member) -> Iterator[None]:
        assert member.store is not None
        inner = member.store.batch()
        inner.__enter__()
        try:
            yield
        except BaseException as error:
            try:
                inner.__exit__(type(error), error, error.__traceback__)
            except (StoreError, CorruptData):
                pass  # it is not what ended the batch
            raise
        try:
            inner.__exit__(None, None, None)
        except (StoreError, CorruptData) as error:
            member.failed(error)
            self._not_durable(member, error)

    def _not_durable(self, member: Member, error: Exception) -> None:
        """What a member was given in a batch is not there: raises unless each value has another copy."""
        assert self._placer.batch is not None
        written = self._placer.batch.written
        lost = written.pop(member, [])
        there = {key for keys in written.values() for key in keys}
        if member is self._owner or any(key not in there for key in lost if key[0] != "index"):
            self._placer.where.forget()
            raise error
        self._placer.miss(member, [Missed("put", *key) for key in lost if key[0] != "index"])
