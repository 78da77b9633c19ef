"""What `HOARD/KEY` names, and where what is put without a key goes."""

from __future__ import annotations

import re
from typing import NamedTuple

from spraydry.errors import UsageError
from spraydry.format.keys import name_of
from spraydry.format.version import check_new_name

# What is put without a key is kept under its digest: so it is found by it, and lives until it is deleted, as all keys.
DIGESTS = "digests"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeyAddress(NamedTuple):
    """A key of a hoard."""

    hoard: str
    key: str

    def __str__(self) -> str:
        return f"{self.hoard}/{self.key}"


def parse_key(address: str) -> KeyAddress:
    """`HOARD/KEY`, or the digest of something that was put without a key. Raises UsageError."""
    if _DIGEST.fullmatch(address):
        return KeyAddress(DIGESTS, address)
    hoard, slash, key = address.partition("/")
    if not slash:
        raise UsageError(f"{address!r} names no key: write HOARD/KEY, such as avatars/me.png")
    check_new_name(hoard, "hoard")
    name_of(key)
    return KeyAddress(hoard, key)


def parse_prefix(address: str) -> KeyAddress:
    """`HOARD/`, or `HOARD/PREFIX/`, below which files are put under their names: the prefix as `key`. Raises
    UsageError."""
    hoard, _, prefix = address.partition("/")
    check_new_name(hoard, "hoard")
    if prefix:
        name_of(prefix.removesuffix("/"))
    return KeyAddress(hoard, prefix)
