"""When each of any number of values was last used, roughly, in a table of fixed size that can be kept and merged."""

from __future__ import annotations

import struct

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES, digest

_MAGIC = b"SDag\x01\0\0\0"
_HEADER = struct.Struct("<8sQQQ")
_BYTES_A_PLACE = 4096
_SMALLEST, _LARGEST = 1 << 12, 1 << 22
_ERA = 128

GUESS = 8


class Ages:
    """The generation, of the last 128 to 255, in which a digest was last used. Never blocks. Threads may share `use`
    and `used`; the other methods are for one at a time.

    Each digest has two of the table's bytes, which say it, less what makes them fit; digests share bytes, so one may
    seem to have been used later than it was, never earlier. Of a million values in 4 MiB, half of them used before the
    others, 5 % of the older half seem newer. A digest that is not known counts, from when it is first asked for, as
    used GUESS generations before: what was used longest ago has been removed, so it is rather one that another process
    brought lately.
    """

    def __init__(self, limit_bytes: int) -> None:
        """For values of `limit_bytes` together."""
        places = min(max(limit_bytes // _BYTES_A_PLACE, _SMALLEST), _LARGEST)
        self._table = bytearray(1 << (places - 1).bit_length())
        self.generation = GUESS + 1

    def use(self, name: str) -> None:
        """Note that the value with this digest, in hex, is used in the present generation."""
        generation = self.generation
        first, second = self._places(name)
        self._table[first] = self._table[second] = generation - _base(generation)

    def used(self, name: str) -> int:
        """When that value was used last: higher is later."""
        first, second = self._places(name)
        known = min(self._table[first], self._table[second])
        if not known:
            generation = self.generation
            known = generation - _base(generation) - GUESS
            for place in (first, second):
                self._table[place] = self._table[place] or known
        return known

    def advance(self, generation: int) -> None:
        """Go on to a generation, at least the present one."""
        if shift := _base(generation) - _base(self.generation):
            self._table[:] = self._table.translate(bytes(max(0, value - shift) for value in range(256)))
        self.generation = generation

    def merge(self, encoded: bytes) -> tuple[int, int]:
        """Take in what another process, or an earlier one, kept by `encode`; the numbers that were kept with it.

        Raises CorruptData for other bytes; a table made for another limit is passed over.
        """
        if len(encoded) < _HEADER.size + DIGEST_BYTES or digest(encoded[:-DIGEST_BYTES]) != encoded[-DIGEST_BYTES:]:
            raise CorruptData("the cache's list of what was used when is damaged")
        magic, generation, held_bytes, reserve_bytes = _HEADER.unpack_from(encoded)
        if magic != _MAGIC or not generation:
            raise CorruptData("the cache's list of what was used when is of another version")
        table = encoded[_HEADER.size : -DIGEST_BYTES]
        if len(table) == len(self._table):
            self.advance(max(self.generation, generation))
            shift = _base(self.generation) - _base(generation)
            table = table.translate(bytes(max(0, value - shift) for value in range(256)))
            self._table[:] = bytes(map(max, self._table, table))
        return held_bytes, reserve_bytes

    def encode(self, held_bytes: int, reserve_bytes: int) -> bytes:
        """The table to be kept, with the bytes that the cache holds, and that may be added before it is kept again."""
        plain = _HEADER.pack(_MAGIC, self.generation, held_bytes, reserve_bytes) + self._table
        return plain + digest(plain)

    def _places(self, name: str) -> tuple[int, int]:
        last = len(self._table) - 1
        return int(name[:8], 16) & last, int(name[8:16], 16) & last


def _base(generation: int) -> int:
    """What is taken off generations in the table: 128 more whenever 255 does not suffice."""
    return max(0, generation // _ERA - 1) * _ERA
