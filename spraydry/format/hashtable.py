"""A map from 16-byte keys to numbers that takes 36 to 72 bytes an entry, a third of what a dict takes."""

from __future__ import annotations

import struct
from array import array

_KEY = struct.Struct("<QQ")
_CELL = 3  # two words of key, and the number plus one: 0 is a free cell
_FIRST_CELLS = 1 << 10


class Table:
    """Open addressing over one array; the places come from Python's own keyed hash, so nobody can choose keys that
    meet in one place. Not thread-safe."""

    def __init__(self) -> None:
        self._mask = _FIRST_CELLS - 1
        self._cells = array("Q", bytes(8 * _CELL * _FIRST_CELLS))
        self._count = 0

    def get(self, key: bytes) -> int | None:
        """The number of a key; None if it has none."""
        value = self._cells[self._find(key, *_KEY.unpack(key)) + 2]
        return value - 1 if value else None

    def setdefault(self, key: bytes, value: int) -> int:
        """The number of a key (16 bytes), which is `value` (below 2^64 - 1) from now on if it had none."""
        low, high = _KEY.unpack(key)
        at = self._find(key, low, high)
        cells = self._cells
        if cells[at + 2]:
            return cells[at + 2] - 1
        cells[at], cells[at + 1], cells[at + 2] = low, high, value + 1
        self._count += 1
        if 3 * self._count > 2 * self._mask:
            self._grow()
        return value

    def _find(self, key: bytes, low: int, high: int) -> int:
        cells, mask = self._cells, self._mask
        place = hash(key) & mask
        while True:
            at = _CELL * place
            if not cells[at + 2] or (cells[at] == low and cells[at + 1] == high):
                return at
            place = place + 1 & mask

    def _grow(self) -> None:
        old = self._cells
        self._mask = 2 * self._mask + 1
        self._cells = array("Q", bytes(8 * _CELL * (self._mask + 1)))
        for at in range(0, len(old), _CELL):
            if old[at + 2]:
                low, high = old[at], old[at + 1]
                free = self._find(_KEY.pack(low, high), low, high)
                self._cells[free : free + _CELL] = old[at : at + _CELL]
