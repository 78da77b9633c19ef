"""Making dictionaries from samples, the same from the same on every run, and measuring what one saves."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import zstandard

from spraydry.format import frame as frames
from spraydry.format.digest import Buffer, digest

DEFAULT_BYTES = 110 << 10
MIN_BYTES = 4 << 10

# A dictionary is made of what many samples share. From fewer than ten times its own bytes it would be a copy of some of
# them, and measure well only where those come again.
SAMPLES_FACTOR = 10
_MIN_SAMPLES = 10

# The numbers that zstd leaves to everybody.
_FIRST_NUMBER, _NUMBERS = 1 << 15, (1 << 31) - (1 << 15)

# zstd's fast cover algorithm with everything fixed that it would otherwise search for: segments of SEGMENT bytes are
# judged by the runs of 8 bytes in them, looked up in a table of 2^20 counts. On Python sources, of 110 KiB, segments
# of 256 bytes save 7.7 % in frames of 8 KiB, those of 1,024 bytes 7.6 %.
SEGMENT_BYTES = 256
_PARAMETERS = {"k": SEGMENT_BYTES, "d": 8, "f": 20, "accel": 1, "steps": 1, "level": 3}


def train(samples: Sequence[bytes], size_bytes: int = DEFAULT_BYTES) -> frames.Dictionary | None:
    """A dictionary of at most `size_bytes` made from `samples`; None where these are too few or too small for one.

    The same samples in the same order give the same dictionary.
    """
    size_bytes = min(size_bytes, sum(map(len, samples)) // SAMPLES_FACTOR)
    if size_bytes < MIN_BYTES or len(samples) < _MIN_SAMPLES:
        return None
    try:
        trained = zstandard.train_dictionary(size_bytes, list(samples), split_point=1.0, **_PARAMETERS)
    except zstandard.ZstdError:
        return None  # samples without anything in common
    return frames.Dictionary.of(trained.as_bytes())


def another(dictionary: frames.Dictionary) -> frames.Dictionary:
    """One that does the same under another name: only the number is another that zstd writes into what it encodes."""
    (number,) = struct.unpack("<I", digest(dictionary.plain)[:4])
    plain = dictionary.plain
    return frames.Dictionary.of(plain[:4] + struct.pack("<I", _FIRST_NUMBER + number % _NUMBERS) + plain[8:])


def parameters() -> dict[str, int | str]:
    """What, beside the samples, decides about the bytes of a dictionary."""
    return {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION)), **_PARAMETERS}


def stored_bytes(
    contents: Iterable[Sequence[Buffer]], frame_class: str, level: int, dictionary: frames.Dictionary | None
) -> int:
    """What frames of these contents (the chunks of each) take when stored, headers and all."""
    return sum(len(frames.encode(chunks, frame_class, level, dictionary).stored) for chunks in contents)
