"""What all transactions on a hoard share: their states, and that they end with the block they are for."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

from spraydry.actions.hoard.files import Source
from spraydry.errors import UsageError
from spraydry.repository.keys import Kept

OPEN, PREPARED, COMMITTED, ABORTED = "open", "prepared", "committed", "aborted"


class Transacting(ABC):
    """Changes to one hoard, made together or not at all. Blocks; for one thread at a time.

    What was put is stored at once and committed with `commit`; whoever reads through the transaction sees it before,
    nobody else does. As a context manager it commits at the end, and aborts when something is raised. A transaction
    that is dropped or killed leaves nothing but bytes that gc finds.
    """

    def __init__(self, hoard: str) -> None:
        self.hoard = hoard
        self.state = OPEN

    @abstractmethod
    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        """Store a file for `key` to name: what a binary stream gives until its end, bytes, or the file at a path. The
        content it had stays until gc.

        With `new`, a key that is there is refused (KeyExists), at the latest by `commit`. Raises UsageError for what
        can be no key, StoreError, OSError for a file that cannot be read.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Let `key` name nothing any more. Raises KeyNotFound, UsageError."""

    @abstractmethod
    def find(self, key: str) -> Kept | None:
        """What a key names, in this transaction; None where it names nothing."""

    @abstractmethod
    def get(self, key: str) -> io.BufferedReader:
        """The bytes of a key as a seekable stream, verified. Raises KeyNotFound, UsageError."""

    @abstractmethod
    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        """As Hoard.list, with the changes of this transaction. What was listed may change before `commit`."""

    @abstractmethod
    def prepare(self) -> None:
        """Make all that was put durable, and see that nobody changed what this transaction touched: `commit` then only
        has to append a record. Others may still be faster before it. Raises Conflict, StoreError."""

    @abstractmethod
    def commit(self) -> int | None:
        """Make the changes be; the slot of the record, None where nothing was changed.

        Raises Conflict where another transaction changed a key since this one first touched it, KeyExists for a `new`
        one that is there by now, StoreError; then nothing was changed, and the transaction is aborted.
        """

    def has(self, key: str) -> bool:
        """Whether a key names something, in this transaction."""
        return self.find(key) is not None

    def abort(self) -> None:
        """Give the changes up. What was stored for them is left to gc. Does nothing when it has ended."""
        if self.state in (OPEN, PREPARED):
            self._end(ABORTED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
        elif self.state in (OPEN, PREPARED):
            self.commit()

    def _check_open(self, *states: str) -> None:
        """Raises UsageError unless it is open, or in one of the states."""
        if self.state != OPEN and self.state not in states:
            raise UsageError(f"the transaction on {self.hoard!r} is {self.state}: begin another one")

    @abstractmethod
    def _end(self, state: str) -> None:
        """It is over."""
