"""Chunks and frames by their digests, whole or abbreviated: which one is meant, and what is in a frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from spraydry.errors import FrameCorrupt, NotFound, UsageError, ValueNotFound
from spraydry.format.digest import DIGEST_BYTES, digest
from spraydry.format.frame import RAW, header
from spraydry.repository.repository import Repository

_HEX_DIGITS = 2 * DIGEST_BYTES
_LEAST_DIGITS = 6
_SHOWN = 5
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Held:
    """A chunk (hex digest) in a frame: `length` bytes at `offset` of its plain bytes."""

    digest: str
    offset: int
    length: int


@dataclass(frozen=True)
class FrameDescribed:
    """What a frame says of itself, and the chunks in it, decoded and named by their bytes. `codec` is `raw` or `zstd`,
    `level` that of zstd, `dictionary` a hex digest."""

    frame: str
    frame_class: str
    codec: str
    level: int
    dictionary: str | None
    stored_bytes: int
    header_bytes: int
    plain_bytes: int
    chunks: list[Held]


def find_chunk(repository: Repository, text: str) -> bytes:
    """The digest of the chunk that begins with these hex digits (at least 6). Raises UsageError where several do,
    NotFound where none does."""
    name = _whole(text, "chunk", repository.catalog.chunks.between)
    if name is None:
        raise NotFound(
            f"no chunk begins with {text}; the digest of a file is that of a chunk only where it has one chunk"
        )
    return name


def find_frame(repository: Repository, text: str) -> bytes:
    """The name of the frame that begins with these hex digits (at least 6); a whole name need not be indexed. Raises
    UsageError where several do, NotFound where none does."""
    name = _whole(text, "frame", repository.catalog.frames_between)
    if name is None:
        if len(text) < _HEX_DIGITS:
            raise NotFound(f"no frame begins with {text}")
        name = bytes.fromhex(text)
    return name


def _whole(text: str, what: str, between: Callable[[bytes, bytes, int], list[bytes]]) -> bytes | None:
    """The one digest that begins with `text`; None where there is none."""
    text = text.lower()
    if not _HEX.fullmatch(text) or not _LEAST_DIGITS <= len(text) <= _HEX_DIGITS:
        raise UsageError(
            f"{text!r} is no digest of a {what}: write its {_HEX_DIGITS} hex digits, or 6 or more of the first"
        )
    low, high = (bytes.fromhex(text.ljust(_HEX_DIGITS, filler)) for filler in "0f")
    found = between(low, high, _SHOWN + 1)
    if len(found) > 1:
        shown = ", ".join(name.hex()[: max(12, len(text) + 4)] for name in found[:_SHOWN])
        more = " and others" if len(found) > _SHOWN else ""
        raise UsageError(f"several {what}s begin with {text}: {shown}{more}; write more of it")
    return found[0] if found else None


def stored_frame(repository: Repository, name: bytes) -> bytes:
    """The stored bytes of a frame, which are what its name says. Raises NotFound, FrameCorrupt."""
    try:
        stored = repository.store.get("frames", name.hex())
    except ValueNotFound:
        raise NotFound(f"there is no frame {name.hex()}") from None
    if digest(stored) != name:
        raise FrameCorrupt(f"frame {name.hex()} is damaged: its bytes are not what its name says")
    return stored


def describe_frame(repository: Repository, name: bytes) -> FrameDescribed:
    """Decode a frame and tell what is in it. Raises NotFound, FrameCorrupt, DictionaryMissing."""
    stored = stored_frame(repository, name)
    head = header(stored)
    _, rows, _ = repository.decoded(name, stored)
    return FrameDescribed(
        frame=name.hex(),
        frame_class=head.frame_class,
        codec="raw" if head.codec == RAW else "zstd",
        level=head.level,
        dictionary=head.dictionary.hex() if head.dictionary else None,
        stored_bytes=len(stored),
        header_bytes=head.encoded_at,
        plain_bytes=head.plain_bytes,
        chunks=[Held(row.digest.hex(), row.offset, row.length) for row in rows],
    )
