"""Log records: versions and what else is committed to a repository, each in one slot. Layout: FORMAT.md §7."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from spraydry.errors import CorruptData, FormatTooNew, UsageError
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.format.entry import DIRECTORY, FILE, Entry, check_entry
from spraydry.format.frame import class_sound
from spraydry.format.keys import name_of

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
RESERVED = ("latest",)


class Record(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every record begins with: its format, the digest of the record in the slot before (32 zero bytes in slot
    1), and when (ns since 1970, for people: nothing is ordered by it) and by what (`spraydry 0.1.0 ingest`) it was
    made."""

    format: int
    previous: bytes
    made_ns: int
    made_by: str


class VersionRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=1):
    """A version. `users` and `groups` map the numeric owners in it to names on the machine it came from; `new_bytes`
    is what it added in plain bytes, `stored_bytes` in frames. `incomplete`: some sources could not be read, or
    something of it was lost."""

    root: str
    name: str
    entry: Entry
    links: bytes | None
    spec: str
    users: tuple[tuple[int, str], ...]
    groups: tuple[tuple[int, str], ...]
    incomplete: bool
    new_bytes: int
    stored_bytes: int


class RemovalRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=2):
    """The version or tag made in `slot` is no longer there. Its name stays used."""

    slot: int


class TagRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=3):
    """A second name, in the same root, for the version made in `slot`."""

    root: str
    name: str
    slot: int


class CondemnRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=4):
    """These frames (sorted names) are given up: nothing may count on them any more, and they are deleted later."""

    frames: tuple[bytes, ...]


class RevokeRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=6):
    """The removal or condemnation in `slot` is taken back."""

    slot: int


class DictionariesRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=7):
    """From here on new frames of each class use the dictionary named; classes not listed use none."""

    adopted: tuple[tuple[str, bytes], ...]


class CollectRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=8):
    """What was condemned in `slot` is being deleted from now on: it cannot be pardoned any more."""

    slot: int


class DropRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=9):
    """These dictionaries (sorted names) are given up: nothing may count on them any more, nor on a frame that uses
    one, whenever it was stored; and they are deleted later."""

    dictionaries: tuple[bytes, ...]


class CheckpointRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=5):
    """What a hoard held when slot `upto` was the newest: a directory without a name, with a file for each key, under
    its name in a tree (see keys). Later records of the hoard are to be laid over it."""

    hoard: str
    upto: int
    entry: Entry


class HoardRecord(Record, array_like=True, frozen=True, forbid_unknown_fields=True, kw_only=True, tag=10):
    """Changes to one hoard, all at once: each key with the entry, which has no name, of the file that it names from
    here on, None where it names nothing any more; by rising names in a tree. `cleared`: what the hoard held before is
    deleted first."""

    hoard: str
    cleared: bool
    changes: tuple[tuple[str, Entry | None], ...]


AnyRecord = (
    VersionRecord
    | RemovalRecord
    | TagRecord
    | CondemnRecord
    | RevokeRecord
    | DictionariesRecord
    | CollectRecord
    | DropRecord
    | CheckpointRecord
    | HoardRecord
)
MAX_CHANGES = 100_000  # of one record: it is read, and held, as a whole


class HoardHead(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a record begins with that changes a hoard: the fields of HoardRecord, up to which hoard it is."""

    kind: int
    format: int
    previous: bytes
    made_ns: int
    made_by: str
    hoard: str
    cleared: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyRecord)
_head_decoder = msgspec.msgpack.Decoder(HoardHead)
_HOARD_FRONT = b"\x98\x0a\x01\xc4\x20"  # eight fields, kind 10, format 1, 32 bytes
_KNOWN_TAGS = tuple(range(1, 11))
NO_RECORD = bytes(DIGEST_BYTES)


def check_new_name(name: str, what: str) -> None:
    """Raises UsageError unless `name` may name a root or version."""
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise UsageError(
            f"{name!r} cannot name a {what}: up to 200 letters, digits and . _ -, not starting with - or . (and"
            " 'latest' is taken)"
        )


def encode_record(record: AnyRecord) -> bytes:
    """A record as its slot holds it: the msgpack array, then the BLAKE3 of it."""
    plain = _encoder.encode(record)
    return plain + digest(plain)


def decode_record(value: bytes, slot: int) -> tuple[AnyRecord, bytes]:
    """The record in a slot, and its digest. Raises CorruptData, FormatTooNew."""
    plain, name = value[:-DIGEST_BYTES], value[-DIGEST_BYTES:]
    if digest(plain) != name:
        raise CorruptData(
            f"log slot {slot} is damaged: only a copy of this store has it (see `spraydry repair --from`)"
        )
    try:
        record = _decoder.decode(plain)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if _is_newer(plain):
            raise FormatTooNew(f"log slot {slot} was written by a newer spraydry: install a current one") from None
        raise CorruptData(f"log slot {slot} does not parse: {error}") from None
    if record.format != 1:
        raise FormatTooNew(f"log slot {slot} was written by a newer spraydry: install a current one")
    if len(record.previous) != DIGEST_BYTES or _encoder.encode(record) != plain or not _sound(record, slot):
        raise CorruptData(f"log slot {slot} holds a record that cannot be")
    return record, name


def hoard_head(value: bytes) -> HoardHead | None:
    """What a slot's value says of a hoard that it changes, but for the changes, which are not looked at: an eighth of
    the time of `decode_record`. The value matches its digest; None where it does not, or is not such a record, or also
    clears the hoard."""
    if not value.startswith(_HOARD_FRONT) or digest(value[:-DIGEST_BYTES]) != value[-DIGEST_BYTES:]:
        return None
    try:
        head = _head_decoder.decode(value[:-DIGEST_BYTES])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if head.cleared else head


def _is_newer(plain: bytes) -> bool:
    """Whether what does not parse is a record of a kind or format that is not known here."""
    try:
        fields = msgspec.msgpack.decode(plain)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return False
    if not isinstance(fields, list) or len(fields) < 2 or not all(type(field) is int for field in fields[:2]):
        return False
    return fields[0] not in _KNOWN_TAGS or fields[1] != 1


def _sound(record: AnyRecord, slot: int) -> bool:
    match record:
        case VersionRecord():
            check_entry(record.entry, root=True)
            owners = (record.users, record.groups)
            return (
                _names_sound(record.root, record.name)
                and (record.links is None or len(record.links) == DIGEST_BYTES)
                and all(_rising([number for number, _ in table]) for table in owners)
                and 0 <= record.new_bytes < 1 << 63
                and 0 <= record.stored_bytes < 1 << 63
            )
        case TagRecord():
            return _names_sound(record.root, record.name) and 0 < record.slot < slot
        case RemovalRecord() | RevokeRecord() | CollectRecord():
            return 0 < record.slot < slot
        case CondemnRecord():
            return _rising(record.frames) and all(len(frame) == DIGEST_BYTES for frame in record.frames)
        case DropRecord():
            return _rising(record.dictionaries) and all(len(name) == DIGEST_BYTES for name in record.dictionaries)
        case DictionariesRecord():
            return _rising([frame_class for frame_class, _ in record.adopted]) and all(
                class_sound(frame_class) and len(name) == DIGEST_BYTES for frame_class, name in record.adopted
            )
        case CheckpointRecord():
            check_entry(record.entry, root=True)
            plain = record.entry.kind == DIRECTORY and record.entry.name == b""
            return plain and _names_sound(record.hoard) and 0 < record.upto < slot
        case HoardRecord():
            return (
                _names_sound(record.hoard)
                and (record.cleared or len(record.changes) > 0)
                and len(record.changes) <= MAX_CHANGES
                and _changes_sound(record.changes)
            )


def _changes_sound(changes: Sequence[tuple[str, Entry | None]]) -> bool:
    for _, entry in changes:
        if entry is not None:
            check_entry(entry, root=True)
            if (entry.name, entry.kind, entry.group) != (b"", FILE, None):
                return False
    try:
        return _rising([name_of(key) for key, _ in changes])
    except UsageError:
        return False


def _names_sound(*names: str) -> bool:
    return all(_NAME.fullmatch(name) and name not in RESERVED for name in names)


def _rising(items: Sequence[Any]) -> bool:
    return all(low < high for low, high in pairwise(items))
