"""Where the contents of an EROFS image's files lie: in blocks of the devices beside it, each content once."""

from __future__ import annotations

from spraydry.format.entry import Entry, Runs
from spraydry.format.erofs_layout import BLOCK_BYTES
from spraydry.format.hashtable import Table

# Contents may lie on other devices: one is addressed in blocks of 32 bits, and slot n holds what begins within its
# SLOT_BLOCKS, so what is not longer than these never crosses into another one. The first slot is also mapped to where
# these numbers leave room, at SLOT_BLOCKS: then a file needs no index.
SLOT_BLOCKS = 1 << 31
MAX_SLOTS = 23


def device_slots(blocks: int) -> list[int]:
    """The blocks of each device that contents of so many blocks take: one reaches into the next, so that all of what
    begins in it is there."""
    return [min(blocks - first, 2 * SLOT_BLOCKS - 1) for first in range(0, max(blocks, 1), SLOT_BLOCKS)]


class Addresses:
    """Where contents lie if each file's follow those of the files before it, in preorder, from block 0 on; of files
    with the same content, where the first one lies. Call it once for each file; not thread-safe."""

    def __init__(self) -> None:
        self.blocks = 0
        self._known = Table()

    def __call__(self, entry: Entry) -> int:
        at = self.blocks
        self.blocks += -(-entry.size // BLOCK_BYTES)
        return self._known.setdefault(content_key(entry), at)


def content_key(entry: Entry) -> bytes:
    """What names a file's content, in 16 bytes; the same for files with the same bytes and holes."""
    content = entry.content
    if isinstance(content, Runs):
        return (content.digest or content.manifest)[:16]
    return content[:16] if isinstance(content, bytes) else bytes(16)
