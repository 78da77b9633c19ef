"""Transactions on a hoard behind servers: each lives in one of them, as long as a connection to it."""

from __future__ import annotations

import io
from collections.abc import Iterator

from spraydry.actions.hoard.files import Source, opened
from spraydry.actions.hoard.remote.single import find_remote, listed, put_remote
from spraydry.actions.hoard.remote.stream import open_remote
from spraydry.actions.hoard.remote.talk import Held, Talk
from spraydry.actions.hoard.transacting import ABORTED, COMMITTED, PREPARED, Transacting
from spraydry.errors import KeyNotFound
from spraydry.format.keys import name_of
from spraydry.repository.keys import Kept


class RemoteTransaction(Transacting):
    """As Transaction, in one server. It is aborted when its connection ends, this process, or that server."""

    def __init__(self, talk: Talk) -> None:
        """Raises StoreErrors."""
        super().__init__(talk.hoard)
        self._held: Held
        self._talk, self._held = talk.begin()

    def put(self, source: Source, key: str, *, new: bool = False) -> Kept:
        self._check(key)
        with opened(source) as stream:
            return put_remote(self._talk, stream, key, new)

    def delete(self, key: str) -> None:
        self._check(key)
        self._talk.delete(key)

    def find(self, key: str) -> Kept | None:
        self._check(key)
        try:
            return find_remote(self._talk, key)
        except KeyNotFound:
            return None

    def get(self, key: str) -> io.BufferedReader:
        self._check(key)
        return open_remote(self._talk, key)

    def list(self, prefix: str = "", after: str = "") -> Iterator[Kept]:
        self._check_open()
        return listed(self._talk, prefix, after)

    def prepare(self) -> None:
        self._check_open()
        self._talk.end("prepare")
        self.state = PREPARED

    def commit(self) -> int | None:
        """As of every transaction. Where the connection fails in the middle of it, nobody knows whether it was made:
        StoreUnavailable."""
        self._check_open(PREPARED)
        try:
            slot = self._talk.end("commit").slot
        except BaseException:
            self._end(ABORTED)
            raise
        self._end(COMMITTED)
        return slot

    def _check(self, key: str) -> None:
        name_of(key)
        self._check_open()

    def _end(self, state: str) -> None:
        self.state = state
        self._held.drop()
