"""Index runs: immutable sorted lists of rows chunk digest -> frame, offset, length. Layout: FORMAT.md §7."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.digest import DIGEST_BYTES
from spraydry.format.frame import MAX_PLAIN_BYTES

_MAGIC = b"SDrn"
_HEADER = struct.Struct("<4sBxxxIII")  # magic, format, zeros, bytes of the frame table, frames, rows
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
    return b"".join((_HEADER.pack(_MAGIC, 1, len(table), len(frames), len(packed)), table, *packed))


def decode_run(value: bytes) -> tuple[tuple[FrameInfo, ...], Iterator[Row]]:
    """The frame table and the rows, in order. Raises CorruptData; the caller has checked the name."""
    try:
        magic, version, table_bytes, frame_count, row_count = _HEADER.unpack_from(value)
        at = _HEADER.size + table_bytes
        frames = _frames_decoder.decode(memoryview(value)[_HEADER.size : at])
    except (struct.error, msgspec.MsgspecError) as error:
        raise CorruptData(f"an index run does not parse: {error}") from None
    if magic != _MAGIC or version != 1 or len(frames) != frame_count or len(value) != at + row_count * _ROW.size:
        raise CorruptData("an index run is not what its header claims")
    if any(len(frame.name) != DIGEST_BYTES or frame.plain > MAX_PLAIN_BYTES for frame in frames):
        raise CorruptData("an index run names frames that cannot be")

    def rows() -> Iterator[Row]:
        for fields in _ROW.iter_unpack(memoryview(value)[at:]):
            row = Row(*fields)
            if row.frame >= frame_count or row.offset + row.length > frames[row.frame].plain:
                raise CorruptData("an index run has a row that cannot be")
            yield row

    return frames, rows()
