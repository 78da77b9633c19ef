"""Frames: one or more chunks, concatenated, compressed together and made self-describing. Layout: FORMAT.md §3."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import zstandard

from spraydry.errors import DictionaryMissing, FrameCorrupt, UsageError
from spraydry.format.digest import DIGEST_BYTES, Buffer, digest

MAX_PLAIN_BYTES = 4 << 20
MAX_DICTIONARY_BYTES = 4 << 20
MAX_CHUNKS = 4096  # of one frame: each is hashed when the frame is read, whichever of them was asked for
MAX_FRAME_BYTES = MAX_PLAIN_BYTES + (64 << 10)  # raw bytes, a chunk list and the headers
SALT_BYTES = 16

RAW, ZSTD = 0, 1
LEVELS = range(-7, 23)
DEFAULT_LEVEL = 3

_MAGIC = b"SDfr"
_OUTER = struct.Struct("<4sBBBBIII16s")  # magic, format, flags, codec, zero, encoded length, inner length, key id, salt
_MAX_WINDOW_BYTES = 8 << 20
_CLASS = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,31}")

# Bytes are stored as they are unless compression saves at least one part in 32: below that a reader's time is worth
# more than the room.
_WORTH = 32
_PROBE_BYTES = 4096


class Reference(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Something a frame needs to be decoded: kind 1 is a dictionary; kind 2 (a base frame) is reserved."""

    kind: int
    digest: bytes


class _Inner(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    frame_class: str
    level: int
    lengths: tuple[int, ...]
    references: tuple[Reference, ...]


_inner_encoder = msgspec.msgpack.Encoder()
_inner_decoder = msgspec.msgpack.Decoder(_Inner)

DICTIONARY = 1


@dataclass(frozen=True)
class Dictionary:
    """Trained zstd bytes, named by their digest. Threads may share it: zstd only reads it."""

    digest: bytes
    plain: bytes
    _prepared: zstandard.ZstdCompressionDict

    @classmethod
    def of(cls, plain: bytes) -> Dictionary:
        """The dictionary made of trained bytes. Raises FrameCorrupt when they are none."""
        if len(plain) > MAX_DICTIONARY_BYTES:
            raise FrameCorrupt(f"no dictionary has {len(plain)} bytes")
        try:
            prepared = zstandard.ZstdCompressionDict(plain, dict_type=zstandard.DICT_TYPE_FULLDICT)
            zstandard.ZstdDecompressor(dict_data=prepared)  # parses it, which the line above does not
            return cls(digest(plain), plain, prepared)
        except (zstandard.ZstdError, ValueError) as error:
            raise FrameCorrupt(f"not a zstd dictionary: {error}") from None


@dataclass(frozen=True)
class Header:
    """What a frame says of itself without being decoded: `level` is the zstd level it was made with (also when that
    did not pay and `codec` is RAW), `plain_bytes` the sum of `lengths`."""

    frame_class: str
    codec: int
    level: int
    lengths: tuple[int, ...]
    dictionary: bytes | None
    plain_bytes: int
    encoded_at: int


@dataclass(frozen=True)
class Encoded:
    """A frame ready to be stored: its name (32 bytes, the BLAKE3 of `stored`), its bytes and its header."""

    name: bytes
    stored: bytes
    header: Header


def encode(
    chunks: Sequence[Buffer],
    frame_class: str,
    level: int = DEFAULT_LEVEL,
    dictionary: Dictionary | None = None,
    salt: bytes | None = None,
) -> Encoded:
    """Put chunks (in this order, none empty, at most MAX_CHUNKS and MAX_PLAIN_BYTES together) into one frame.

    `salt` (16 bytes, random by default) makes the name of each frame new, so that the name of a deleted frame never
    comes back. Bytes that do not shrink are stored raw. What is returned was decoded again and compared: compressors
    have had bugs that wrote wrong bytes (restic #4523, #4677). Raises UsageError for a level zstd does not have.
    """
    plain = b"".join(chunks)
    lengths = tuple(map(len, chunks))
    if len(plain) > MAX_PLAIN_BYTES or len(lengths) > MAX_CHUNKS or not all(lengths) or not lengths:
        raise ValueError(f"no frame can hold {len(lengths)} chunks of {len(plain)} bytes, or empty ones")
    if level not in LEVELS:
        raise UsageError(f"zstd has no level {level} (write one from {LEVELS[0]} to {LEVELS[-1]})")
    if not class_sound(frame_class):
        raise ValueError(f"not a class: {frame_class!r}")
    codec, encoded = RAW, plain
    if _may_shrink(plain):
        smaller = compress(plain, level, dictionary)
        if len(smaller) < len(plain) - len(plain) // _WORTH:
            codec, encoded = ZSTD, smaller
            if _decompress(encoded, len(plain), dictionary) != plain:
                raise FrameCorrupt(
                    "zstd did not give back the bytes it was given; nothing was stored: check the memory"
                )
    references = (Reference(DICTIONARY, dictionary.digest),) if dictionary and codec == ZSTD else ()
    inner = _inner_encoder.encode(_Inner(frame_class, level, lengths, references))
    outer = _OUTER.pack(_MAGIC, 1, 0, codec, 0, len(encoded), len(inner), 0, salt or os.urandom(SALT_BYTES))
    stored = b"".join((outer, inner, encoded))
    head = Header(
        frame_class,
        codec,
        level,
        lengths,
        references[0].digest if references else None,
        len(plain),
        len(outer) + len(inner),
    )
    return Encoded(digest(stored), stored, head)


def salted(stored: bytes, salt: bytes | None = None) -> Encoded:
    """A stored frame under a new name: the same but for its salt (16 bytes, random by default). Raises FrameCorrupt."""
    head = header(stored)
    at = _OUTER.size - SALT_BYTES
    anew = b"".join((stored[:at], salt or os.urandom(SALT_BYTES), stored[_OUTER.size :]))
    return Encoded(digest(anew), anew, head)


def header(stored: Buffer) -> Header:
    """Read and check a frame's headers. Raises FrameCorrupt, also for sizes no frame may have."""
    view = memoryview(stored)
    if len(view) < _OUTER.size:
        raise FrameCorrupt(f"a frame of {len(view)} bytes is shorter than its header")
    magic, version, flags, codec, zero, encoded_bytes, inner_bytes, key, _ = _OUTER.unpack_from(view)
    if magic != _MAGIC:
        raise FrameCorrupt("not a frame: wrong magic")
    if version != 1 or flags or zero or key or codec not in (RAW, ZSTD):
        raise FrameCorrupt(f"a frame of format {version}, codec {codec}, key {key} cannot be read by this spraydry")
    encoded_at = _OUTER.size + inner_bytes
    if len(view) > MAX_FRAME_BYTES or encoded_at + encoded_bytes != len(view):
        raise FrameCorrupt("a frame's length does not match its header")
    raw_inner = view[_OUTER.size : encoded_at]
    try:
        inner = _inner_decoder.decode(raw_inner)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FrameCorrupt(f"a frame's inner header does not parse: {error}") from None
    plain_bytes = sum(inner.lengths)
    if (
        not 0 < len(inner.lengths) <= MAX_CHUNKS
        or min(inner.lengths) <= 0
        or plain_bytes > MAX_PLAIN_BYTES
        or inner.level not in LEVELS
        or not class_sound(inner.frame_class)
        or (codec == RAW and inner.references)
        or _inner_encoder.encode(inner) != raw_inner
    ):
        raise FrameCorrupt("a frame's inner header is not possible")
    dictionary = None
    for reference in inner.references:
        if reference.kind != DICTIONARY or dictionary is not None or len(reference.digest) != DIGEST_BYTES:
            raise FrameCorrupt(f"a frame needs something of kind {reference.kind}, unknown to this spraydry")
        dictionary = reference.digest
    return Header(inner.frame_class, codec, inner.level, inner.lengths, dictionary, plain_bytes, encoded_at)


def decode(stored: Buffer, find_dictionary: Callable[[bytes], Dictionary]) -> tuple[Header, Buffer]:
    """The header and the plain bytes of a frame.

    `find_dictionary` is asked for the dictionary by its digest, if one is needed, and raises DictionaryMissing. Raises
    FrameCorrupt for anything that does not decode to exactly what the headers claim. The plain bytes are *not* yet
    verified: each chunk must still be compared with its name.
    """
    head = header(stored)
    encoded = memoryview(stored)[head.encoded_at :]
    if head.codec == RAW:
        if len(encoded) != head.plain_bytes:
            raise FrameCorrupt("a raw frame's length is not that of its chunks")
        return head, encoded
    dictionary = find_dictionary(head.dictionary) if head.dictionary else None
    return head, _decompress(encoded, head.plain_bytes, dictionary)


def compress(plain: Buffer, level: int = DEFAULT_LEVEL, dictionary: Dictionary | None = None) -> bytes:
    """`plain` as one zstd frame that states its size; `level` is one of LEVELS."""
    key = (level, dictionary.digest if dictionary else None)
    compressors: OrderedDict[object, zstandard.ZstdCompressor] = _per_thread("compressors")
    compressor = compressors.get(key)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(
            level=level, dict_data=dictionary._prepared if dictionary else None, write_content_size=True
        )
        _keep(compressors, key, compressor)
    return compressor.compress(plain)


def _decompress(encoded: Buffer, plain_bytes: int, dictionary: Dictionary | None) -> bytes:
    """Decode one zstd frame of exactly `plain_bytes`, never allocating for more than it should hold."""
    try:
        claimed = zstandard.get_frame_parameters(encoded)
    except zstandard.ZstdError as error:
        raise FrameCorrupt(f"a frame's zstd header does not parse: {error}") from None
    if claimed.content_size != plain_bytes or claimed.window_size > max(_MAX_WINDOW_BYTES, plain_bytes):
        raise FrameCorrupt(f"a frame's zstd header claims {claimed.content_size} bytes, its chunks have {plain_bytes}")
    key = dictionary.digest if dictionary else None
    decompressors: OrderedDict[object, zstandard.ZstdDecompressor] = _per_thread("decompressors")
    decompressor = decompressors.get(key)
    if decompressor is None:
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary._prepared if dictionary else None)
        _keep(decompressors, key, decompressor)
    try:
        plain = decompressor.decompress(encoded, max_output_size=plain_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise FrameCorrupt(f"a frame does not decode: {error}") from None
    if len(plain) != plain_bytes:
        raise FrameCorrupt("a frame decodes to another length than its chunks have")
    return plain


# A zstd compressor or decompressor shared between threads crashes the process (python-zstandard #244), so each thread
# has its own, and no more than a few: one with a dictionary holds some hundred KiB.
_local = threading.local()
_KEPT_PER_THREAD = 16


def _per_thread(kind: str) -> OrderedDict[object, Any]:
    kept: OrderedDict[object, Any] = _local.__dict__.setdefault(kind, OrderedDict())
    return kept


def _keep(kept: OrderedDict[object, Any], key: object, value: object) -> None:
    kept[key] = value
    if len(kept) > _KEPT_PER_THREAD:
        kept.popitem(last=False)


def _may_shrink(plain: bytes) -> bool:
    """A cheap look at three places: does level 1 save anything there? Photos and archives are spared the full try."""
    if len(plain) < 4 * _PROBE_BYTES:
        return len(plain) > 64
    step = (len(plain) - _PROBE_BYTES) // 2
    probe = b"".join(plain[at : at + _PROBE_BYTES] for at in (0, step, 2 * step))
    return len(compress(probe, 1)) < len(probe) - len(probe) // _WORTH


def load_dictionary(name: bytes, plain: bytes) -> Dictionary:
    """A dictionary read from a store, checked against its name. Raises DictionaryMissing when it is damaged."""
    if digest(plain) != name:
        raise DictionaryMissing(f"dictionary {name.hex()} is damaged")
    return Dictionary.of(plain)


def class_sound(frame_class: str) -> bool:
    """Whether that may name a class: short, and harmless on a terminal."""
    return _CLASS.fullmatch(frame_class) is not None
