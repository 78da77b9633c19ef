"""Giving back the room of what was deleted."""

from __future__ import annotations

from collections.abc import Iterator

from spraydry.errors import CorruptData
from spraydry.segments.appending import Appended, Appender
from spraydry.segments.folder import Folder
from spraydry.segments.layout import VALUE
from spraydry.segments.living import Living
from spraydry.segments.reserve import room

_WORTH_SEALING_BYTES = 1 << 20


class Reclaimer:
    """Copies what lives out of segments that are half dead, and removes them. Blocks; only for who has the right to
    write (`Folder.locked`)."""

    def __init__(self, folder: Folder, living: Living, appender: Appender) -> None:
        self._folder = folder
        self._living = living
        self._appender = appender

    def reclaim(self) -> None:
        """At most as much is copied as one segment may hold."""
        tail, appender = self._folder.tail, self._appender
        worth = min(_WORTH_SEALING_BYTES, appender.max_file_size // 4)
        if tail is not None and self._living.is_half_dead(tail.number) and tail.end > worth:
            appender.renew()
        self._living.drop_dead()
        appender.spare_files = 1
        try:
            self._copy(appender.max_file_size)
        finally:
            appender.spare_files = 0
        self._folder.commit()
        self._living.drop_dead()

    def _copy(self, most: int) -> None:
        for number in [number for number in self._living.sealed_numbers() if self._living.is_half_dead(number)]:
            size = self._living.living_bytes(number)
            if size <= most and room(self._folder.path) > 2 * size:
                self._folder.trusting(lambda number=number: self._copy_one(number))  # type: ignore[misc]
                most -= size

    def _copy_one(self, number: int) -> None:
        self._appender.append_all(self._records(number))

    def _records(self, number: int) -> Iterator[Appended]:
        for key, row in self._living.of(number):
            try:
                yield row.kind, key, self._folder.read(key, row) if row.kind == VALUE else b""
            except CorruptData:
                pass  # it stays where it is, and so does its segment
