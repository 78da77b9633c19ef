"""Slots of the log that are damaged or gone: had from other stores of the repository, or from a copy of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from spraydry.errors import CorruptData, SprayDryError, StoreReadOnly, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.version import AnyRecord, decode_record
from spraydry.repository.opening import Opened, open_at
from spraydry.repository.slots import slot_name
from spraydry.stores.base import Store


@dataclass(frozen=True)
class MendedLog:
    """Slots that were damaged or gone: `had` from a copy, `lost` where no copy has a record that fits there."""

    had: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


def mend_log(url: str, remotes: Sequence[str], write: bool) -> MendedLog:
    """Look through the log of the repository at `url`, which may be such that it cannot be opened; with `write` put
    slots back that a copy has. Each record has the digest of the one before: so, from the newest down, it is known
    which record must be in a slot; in the newest, as long as its last bytes are whole. Raises StoreError."""
    with ExitStack() as stack:
        opened = _opened(stack, url, not write)
        if write and opened.store.read_only:
            raise StoreReadOnly(f"{url} cannot be written (permissions, or a read-only medium)")
        others = [_opened(stack, remote, True) for remote in remotes]
        copies = [one.store for one in others if one.config.repository == opened.config.repository]
        if opened.spread is not None:
            copies += [member.store for member in opened.spread.members if member.store is not None]
        owner = opened.owner or opened.store
        newest = max((int(stored.name) for stored in owner.list("log") if stored.name.isdecimal()), default=0)
        had: list[int] = []
        lost: list[int] = []
        wanted: bytes | None = None
        for slot in range(newest, 0, -1):
            value = _value(owner, slot)
            record = _record(value, slot, wanted)
            if record is None:
                wanted = wanted or (value or b"")[-DIGEST_BYTES:]
                value = next((one for one in _copies(copies, slot) if _record(one, slot, wanted) is not None), None)
                record = _record(value, slot, wanted)
                (lost if record is None else had).append(slot)
                if write and record is not None and value is not None:
                    owner.put("log", slot_name(slot), value)
            wanted = None if record is None else record.previous
        return MendedLog(tuple(reversed(had)), tuple(reversed(lost)))


def _opened(stack: ExitStack, url: str, read_only: bool) -> Opened:
    opened = open_at(url, read_only=read_only)
    stack.callback(opened.store.close)
    return opened


def _value(store: Store, slot: int) -> bytes | None:
    try:
        return store.get("log", slot_name(slot))
    except (ValueNotFound, CorruptData):
        return None


def _copies(stores: Iterable[Store], slot: int) -> Iterator[bytes]:
    for store in stores:
        try:
            yield store.get("log", slot_name(slot))
        except SprayDryError:
            continue


def _record(value: bytes | None, slot: int, wanted: bytes | None) -> AnyRecord | None:
    """The record that a value is, if it has the digest `wanted` (None: whichever)."""
    try:
        record, name = decode_record(value or b"", slot)
    except CorruptData:
        return None
    return record if wanted in (None, name) else None
