"""After a store was given up as lost: what this machine knows of the repository is compared with what is left."""

from __future__ import annotations

import glob
import os
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from spraydry.repository.configuration import Configuration

if TYPE_CHECKING:
    from spraydry.repository.catalog import Catalog
    from spraydry.stores.base import Store


def pending(configuration: Configuration | None, catalog: Catalog) -> bool:
    """Whether a store was lost since this machine last looked at what is left: the log may be shorter than it was."""
    if configuration is None or not configuration.lost:
        return False
    return configuration.lost > int.from_bytes(catalog.state("lost") or b"", "big")


def settle(configuration: Configuration, catalog: Catalog, store: Store, folder: str) -> None:
    """Let nothing count as stored that no store lists any more: neither frames, for deduplication, nor files that were
    found unchanged, whose list lies in `folder`. While a store does not answer, this is done again at every opening.

    What is said of where chunks lie stays, for a store may be found again. 8 bytes of memory for each frame.
    """
    there = array("Q", sorted(int(stored.name[:16], 16) for stored in store.list("frames") if _is_frame(stored.name)))

    def is_there(name: bytes) -> bool:
        front = int.from_bytes(name[:8], "big")
        place = bisect_left(there, front)
        return place < len(there) and there[place] == front

    catalog.distrust(info.name for _, info in catalog.frames() if not is_there(info.name))
    forget_unchanged(folder)
    if not store.silent:
        catalog.remember("lost", configuration.lost.to_bytes(8, "big"))


def forget_unchanged(folder: str) -> None:
    """Forget which files were found unchanged, whose list lies in `folder`: the next ingest reads all, and stores again
    what was lost."""
    for path in glob.glob(os.path.join(glob.escape(folder), "scan-*")):
        try:
            os.unlink(path)
        except OSError:
            pass  # it was not there, or the next ingest says what is wrong


def _is_frame(name: str) -> bool:
    try:
        return len(bytes.fromhex(name)) == 32
    except ValueError:
        return False
