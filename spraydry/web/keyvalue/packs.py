"""Uploaded log packs: taken only when they hold what the log does."""

from __future__ import annotations

from spraydry.errors import UploadRefused
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.repository.log import Log
from spraydry.repository.packs import decoded, packs_of


def check_pack(log: Log, name: str, value: bytes) -> None:
    """Raises UploadRefused unless that may be stored under that name: what it holds are the slots of the log."""
    found = packs_of([name])
    if not found or found[0].last > log.head[0]:
        raise UploadRefused(f"hoards/{name[:80]} was not stored: it names no slots of the log")
    pack = found[0]
    values = decoded(pack, value)
    told = [one[-DIGEST_BYTES:] for one in values if digest(one[:-DIGEST_BYTES]) == one[-DIGEST_BYTES:]]
    if told != log.digests[pack.first - 1 : pack.last]:
        raise UploadRefused(f"hoards/{name} was not stored: it holds something else than the log")
