"""Where a lazy clone was cloned from, as its `config` namespace says: what it lacks is fetched there. FORMAT.md §8."""

from __future__ import annotations

import msgspec

from spraydry.errors import CorruptData, StoreUnavailable, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.repository.opening import open_at
from spraydry.stores.base import Store
from spraydry.stores.over.lazy import Lazy
from spraydry.stores.remote.tokens import withheld

ORIGIN = "origin"  # the name in the namespace `config`


class Origin(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A repository (its id, 16 bytes) and its URL."""

    url: str
    repository: bytes


def read_origin(store: Store) -> Origin | None:
    """The origin of a lazy clone; None for other repositories. Raises CorruptData."""
    try:
        value = store.get("config", ORIGIN)
    except ValueNotFound:
        return None
    try:
        if digest(value[:-DIGEST_BYTES]) != value[-DIGEST_BYTES:]:
            raise CorruptData("what the clone says of its origin is damaged")
        return msgspec.msgpack.decode(value[:-DIGEST_BYTES], type=Origin)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise CorruptData("what the clone says of its origin does not parse") from None


def write_origin(store: Store, origin: Origin | None) -> None:
    """Make a repository a lazy clone of `origin` from its next opening on; with None, of nothing."""
    if origin is None:
        store.delete("config", [ORIGIN])
    else:
        plain = msgspec.msgpack.encode(origin)
        store.put("config", ORIGIN, plain + digest(plain))


def over(store: Store, origin: Origin, read_only: bool) -> Lazy:
    """A clone's store, with what it lacks from the origin."""

    def open_origin() -> Store:
        with withheld():
            opened = open_at(origin.url, read_only=True)
        if opened.config.repository != origin.repository:
            opened.store.close()
            raise StoreUnavailable("there is another repository there now")
        return opened.store

    return Lazy(store, origin.url, open_origin, read_only)
