"""Condemning frames: nothing may count on them any more, here and on every other machine."""

from __future__ import annotations

from collections.abc import Collection

import spraydry
from spraydry.format.version import AnyRecord, CondemnRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository


def condemn(repository: Repository, names: Collection[bytes], verb: str) -> None:
    """Commit that these frames are given up; they stay where they are. `verb` is what does it. Raises StoreError."""
    if not names:
        return

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        return CondemnRecord(
            format=RECORD_FORMAT,
            previous=previous,
            made_ns=now_ns,
            made_by=f"spraydry {spraydry.__version__} {verb}",
            frames=tuple(sorted(names)),
        )

    with repository.batch():
        repository.log.append(make)
        repository.remember_head()
