"""Index runs: immutable sorted lists of rows chunk digest -> frame, offset, length. Layout: FORMAT.md §7."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.frame import LEVELS, MAX_FRAME_BYTES, MAX_PLAIN_BYTES, RAW, ZSTD, class_sound

_MAGIC = b"SDrn"
_HEADER = struct.Struct("<4sB3sIII")  # magic, format, zeros, bytes of the frame table, frames, rows
_ROW = struct.Struct("<32sIII")  # digest, frame's place in the table, offset and length in its plain bytes


class FrameInfo(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What the index knows of a frame: its name, and what its header says."""

    name: bytes
    frame_class: str
    codec: int
    level: int
    dictionary: bytes | None
    plain: int
    stored: int


class Row(NamedTuple):
    """A chunk in a frame; `frame` is the frame's place in the run's frame table."""

    digest: bytes
    frame: int
    offset: int
    length: int


_frames_encoder = msgspec.msgpack.Encoder()
_frames_decoder = msgspec.msgpack.Decoder(tuple[FrameInfo, ...])


def encode_run(frames: Sequence[FrameInfo], rows: Iterable[Row]) -> bytes:
    """The bytes of a run; rows come in any order and are sorted."""
    table = _frames_encoder.encode(tuple(frames))
    packed = sorted(_ROW.pack(*row) for row in rows)
    return b"".join((_HEADER.pack(_MAGIC, 1, bytes(3), len(table), len(frames), len(packed)), table, *packed))


def table_bytes(front: bytes) -> int:
    """Where the frame table of a run ends, told by its first bytes (20 are enough). Raises CorruptData."""
    try:
        return _HEADER.size + int(_HEADER.unpack_from(front)[3])
    except struct.error as error:
        raise CorruptData(f"an index run does not parse: {error}") from None


def frames_in_run(value: bytes) -> tuple[FrameInfo, ...]:
    """The frame table of a run, of which the front with the table is enough. Raises CorruptData."""
    end = table_bytes(value)
    magic, version, zeros, _, frame_count, _ = _HEADER.unpack_from(value)
    table = memoryview(value)[_HEADER.size : end]
    try:
        frames = _frames_decoder.decode(table)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"an index run does not parse: {error}") from None
    if (
        (magic, version, zeros) != (_MAGIC, 1, bytes(3))
        or len(frames) != frame_count
        or _frames_encoder.encode(frames) != table
    ):
        raise CorruptData("an index run is not what its header claims")
    if not all(map(_frame_sound, frames)):
        raise CorruptData("an index run names frames that cannot be")
    return frames


def decode_run(value: bytes) -> tuple[tuple[FrameInfo, ...], Iterator[Row]]:
    """The frame table and the rows, in order. Raises CorruptData; the caller has checked the name."""
    frames = frames_in_run(value)
    *_, row_count = _HEADER.unpack_from(value)
    at = table_bytes(value)
    if len(value) != at + row_count * _ROW.size:
        raise CorruptData("an index run is not what its header claims")

    def rows() -> Iterator[Row]:
        before = b""
        plain = [frame.plain for frame in frames]
        for row in map(Row._make, _ROW.iter_unpack(memoryview(value)[at:])):
            name, place, offset, length = row
            if name < before or place >= len(frames) or not length or offset + length > plain[place]:
                raise CorruptData("an index run has a row that cannot be")
            before = name
            yield row

    return frames, rows()


def _frame_sound(frame: FrameInfo) -> bool:
    return (
        len(frame.name) == DIGEST_BYTES
        and class_sound(frame.frame_class)
        and frame.codec in (RAW, ZSTD)
        and frame.level in LEVELS
        and (frame.dictionary is None or len(frame.dictionary) == DIGEST_BYTES)
        and 0 < frame.plain <= MAX_PLAIN_BYTES
        and 0 < frame.stored <= MAX_FRAME_BYTES
    )
