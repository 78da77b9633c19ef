"""Whether all that a record names is here: every chunk in a frame that was decoded here and is not given up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from spraydry.actions.closure import chunks_of
from spraydry.errors import CorruptData, NotFound, UploadRefused, ValueNotFound
from spraydry.format.entry import Entry
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository

_TOGETHER = 1000
_UNDONE = 100_000  # pages that a check may have walked before it failed, and are forgotten one by one


class Whole:
    """Walks what records need, and what others needed not again. Blocks; for one thread at a time. What it remembers is
    in a database that vanishes: memory is bounded."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._walked: Marks | None = None
        self._at = 0  # up to this slot nothing that was walked is given up

    def check(self, what: str, needed: Sequence[tuple[Entry, bytes | None]]) -> None:
        """Raises UploadRefused unless all that these entries with their links lists need is here for good, as of the
        newest slot that was read."""
        log = self._repository.log
        if self._walked is None or log.given_up_since(self._at):
            self._forget()
            self._walked = Marks(self._repository.catalog)
        self._at = log.head[0]
        mine: list[bytes] = []
        whole = False
        try:
            self._walk(what, needed, self._walked, mine)
            whole = True
        except (NotFound, CorruptData, ValueNotFound) as error:
            raise UploadRefused(f"the record was not taken: {what} is not whole: {error}") from None
        finally:
            if not whole and len(mine) < _UNDONE:
                self._walked.forget_walked(mine)
            elif not whole:
                self._forget()

    def _walk(self, what: str, needed: Sequence[tuple[Entry, bytes | None]], walked: Marks, mine: list[bytes]) -> None:
        def unseen(keys: Sequence[bytes]) -> set[bytes]:
            fresh = walked.unwalked(keys)
            if len(mine) < _UNDONE:
                mine.extend(fresh)
            return fresh

        chunks = (name for entry, links in needed for name in chunks_of(self._repository, entry, links, unseen))
        while names := set(islice(chunks, _TOGETHER)):
            if missing := self._missing(names):
                raise UploadRefused(
                    f"the record was not taken: {what} needs chunk {min(missing).hex()}, which is in no frame here"
                )

    def _missing(self, names: set[bytes]) -> set[bytes]:
        repository = self._repository
        missing = names - repository.catalog.chunks.known(sorted(names))
        if missing:
            missing -= repository.vouch(missing)
        if missing and repository.opened.origin is not None:  # a lazy clone counts on what its origin has
            catalog = repository.catalog
            missing = {
                name
                for name in missing
                if all(catalog.is_condemned(place.frame) for place in catalog.chunks.locate(name))
            }
        return missing

    def _forget(self) -> None:
        if self._walked is not None:
            self._walked.close()
            self._walked = None
