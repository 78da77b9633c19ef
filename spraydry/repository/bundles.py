"""What a bundle says of itself, in its `config` namespace: how much it holds, and what it builds on. FORMAT.md §8."""

from __future__ import annotations

import msgspec

from spraydry.errors import CorruptData, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES, digest, hasher
from spraydry.stores.base import NAMESPACES, Store

BUNDLE = "bundle"  # the name in the namespace `config`


class Prerequisite(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A version whose chunks are not in the bundle: its name where the bundle was made, the digest of its content."""

    name: str
    content: bytes


class Bundle(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A bundle: `values` is how many values there are besides this, `listing` the digest of their names and sizes."""

    format: int
    values: int
    listing: bytes
    prerequisites: tuple[Prerequisite, ...]


def read_bundle(store: Store) -> Bundle | None:
    """What a store says of itself as a bundle; None where it is none. Raises CorruptData."""
    try:
        value = store.get("config", BUNDLE)
    except ValueNotFound:
        return None
    try:
        if digest(value[:-DIGEST_BYTES]) != value[-DIGEST_BYTES:]:
            raise CorruptData("what the bundle says of itself is damaged")
        return msgspec.msgpack.decode(value[:-DIGEST_BYTES], type=Bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CorruptData("what the bundle says of itself does not parse") from None


def write_bundle(store: Store, prerequisites: tuple[Prerequisite, ...]) -> None:
    """Make a store that holds all it is to hold a bundle from its next opening on."""
    plain = msgspec.msgpack.encode(Bundle(1, *_listing(store), prerequisites))
    store.put("config", BUNDLE, plain + digest(plain))


def check_whole(store: Store, bundle: Bundle) -> None:
    """Raises CorruptData where values of a bundle are missing or cut short: what they hold is compared with their names
    when they are read."""
    if _listing(store) != (bundle.values, bundle.listing):
        raise CorruptData("the bundle is damaged or was cut short: carry it over again")


def _listing(store: Store) -> tuple[int, bytes]:
    count, hashed = 0, hasher()
    for namespace in NAMESPACES:
        for stored in store.list(namespace):
            if (namespace, stored.name) != ("config", BUNDLE):
                count += 1
                hashed.update(f"{namespace}/{stored.name} {stored.size}\n".encode())
    return count, hashed.digest()
