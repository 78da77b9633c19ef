"""Log packs: some thousand consecutive slots in one value, so that a long log is read with few requests. FORMAT.md §7.

A pack is a copy that may be missing, damaged or forged: whoever reads one checks that its records follow each other,
and that the slot in which they end is what the log itself holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from spraydry.errors import CorruptData, DictionaryMissing, StoreError
from spraydry.format import frame as frames
from spraydry.format.digest import DIGEST_BYTES
from spraydry.stores.base import Store

NAMESPACE = "hoards"
SLOTS = 1000
_LEVEL = 9
_CLASS = "log"
_NAME = re.compile(r"log-([0-9]{12})-([0-9]{12})")
# All that write a pack of the same slots write the same bytes.
_SALT = bytes(frames.SALT_BYTES)


class Pack(NamedTuple):
    """Which slots a pack holds, from `first` to `last`."""

    first: int
    last: int

    @property
    def name(self) -> str:
        return f"log-{self.first:012d}-{self.last:012d}"


def packs_of(names: Iterable[str], after: int = 0) -> list[Pack]:
    """Of what a listing names, in its order, the packs that hold the slots behind `after`, none of which overlap."""
    found = [Pack(int(match[1]), int(match[2])) for match in map(_NAME.fullmatch, names) if match]
    chosen: list[Pack] = []
    for pack in sorted(found, key=lambda pack: (pack.first, -pack.last)):
        if after < pack.first <= pack.last < pack.first + frames.MAX_CHUNKS:
            chosen.append(pack)
            after = pack.last
    return chosen


def listed(store: Store, after: int = 0) -> list[Pack]:
    """The packs of the slots behind `after`; none where the store cannot tell."""
    try:
        return packs_of((stored.name for stored in store.list(NAMESPACE, f"log-{after:012d}")), after)
    except StoreError:
        return []


def read(store: Store, packs: Sequence[Pack]) -> Iterator[tuple[Pack, list[bytes]]]:
    """The values of the slots of some packs, in order; none of a pack that is damaged or gone."""
    for pack, (_, value) in zip(packs, store.get_many(NAMESPACE, [pack.name for pack in packs]), strict=True):
        yield pack, [] if value is None else decoded(pack, value)


def decoded(pack: Pack, value: bytes) -> list[bytes]:
    """The values of the slots that a pack claims to hold; none where it is damaged."""

    def no_dictionary(_: bytes) -> frames.Dictionary:
        raise DictionaryMissing("a log pack needs no dictionary")

    try:
        head, plain = frames.decode(value, no_dictionary)
    except CorruptData:
        return []
    if len(head.lengths) != pack.last - pack.first + 1:
        return []
    values, at = [], 0
    for length in head.lengths:
        values.append(bytes(plain[at : at + length]))
        at += length
    return values


def write(store: Store, names: Sequence[str], digests: Sequence[bytes]) -> Pack | None:
    """Pack slots that follow each other, whose names in the log and digests are given: as many of the first as fill a
    pack. Which; None where they fill none, or one of them cannot be had as it was read. Raises StoreError."""
    values: list[bytes] = []
    held = 0
    for name, (_, value), known in zip(names, store.get_many("log", names[:SLOTS]), digests, strict=False):
        if value is None or value[-DIGEST_BYTES:] != known:
            return None
        if held + len(value) > frames.MAX_PLAIN_BYTES:
            if values:
                break
            continue  # it is as long as a pack
        if not values:
            first = int(name)
        values.append(value)
        held += len(value)
    else:
        if len(names) < SLOTS or not values:
            return None
    pack = Pack(first, first + len(values) - 1)
    encoded = frames.encode(values, _CLASS, _LEVEL, salt=_SALT)
    store.put(NAMESPACE, pack.name, encoded.stored)
    return pack
