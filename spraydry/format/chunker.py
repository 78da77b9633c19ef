"""Cutting plain bytes into chunks, as a spec string says: `fastcdc:min=16K,avg=48K,max=256K` or `fixed:size=64K`."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass

os.environ.setdefault("PYFASTCDC_REQUIRE_CYTHON", "1")  # its pure Python fallback is 100 times slower

from pyfastcdc import FastCDC

from spraydry.errors import UsageError
from spraydry.format.digest import Buffer

DEFAULT_SPEC = "fastcdc:min=16K,avg=48K,max=256K"

# No chunk may be longer: a frame holds it whole, and a reader caps what it decompresses (frame.MAX_PLAIN_BYTES).
MAX_CHUNK_BYTES = 4 << 20

# A hole is a run of whole zero blocks of this size at multiples of it. Finding holes by content, not by SEEK_HOLE,
# keeps names the same on every machine and file system.
HOLE_BLOCK_BYTES = 64 << 10
_ZEROS = bytes(HOLE_BLOCK_BYTES)

_SIZE = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?([KMGT]?)(?:I?B)?")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_bytes(text: str) -> int:
    """`4096`, `64K`, `1.5M`, `2GiB` as a number of bytes (binary multiples). Raises UsageError."""
    if match := _SIZE.fullmatch(text.strip().upper()):
        whole, fraction, unit = match[1], match[2] or "", _UNITS[match[3]]
        value = (int(whole + fraction) << unit) // int("1" + "0" * len(fraction))
        if value < 1 << 63:
            return value
    raise UsageError(f"not a size: {text!r} (write a number with K, M, G or T, such as 64M)")


@dataclass(frozen=True)
class Chunker:
    """Cuts buffers. Pure, and threads may share it: what is not thread-safe below is kept per thread.

    `spec` is the text it was made from, which is kept with each version; cuts are a function of it and the bytes.
    """

    spec: str
    min_bytes: int
    avg_bytes: int
    max_bytes: int
    fixed: bool

    def cut(self, plain: Buffer, last: bool = True) -> list[int]:
        """The lengths of the chunks `plain` is cut into, in order.

        With `last` their sum is len(plain). Without it more bytes follow: a final chunk whose end is not known yet is
        left out, and the caller puts its bytes in front of what follows.
        """
        size = len(plain)
        if size <= self.min_bytes:
            return [size] if last and size else []
        if self.fixed:
            lengths = [self.max_bytes] * (size // self.max_bytes)
            if last and size % self.max_bytes:
                lengths.append(size % self.max_bytes)
            return lengths
        lengths = [chunk.length for chunk in _fastcdc(self).cut_buf(plain)]
        if not last:
            lengths.pop()
        return lengths


_cutters = threading.local()


def _fastcdc(chunker: Chunker) -> FastCDC:
    """This thread's FastCDC: the library's objects must not be shared between threads."""
    cutters: dict[str, FastCDC] = _cutters.__dict__
    cutter = cutters.get(chunker.spec)
    if cutter is None:
        cutter = cutters[chunker.spec] = FastCDC(
            chunker.avg_bytes, min_size=chunker.min_bytes, max_size=chunker.max_bytes, normalized_chunking=2
        )
    return cutter


def parse_spec(spec: str) -> Chunker:
    """The chunker a spec string names.

    `fastcdc:min=A,avg=B,max=C`: content-defined cutting, FastCDC with normalised chunking level 2 (Xia et al.,
    "FastCDC", USENIX ATC 2016). `fixed:size=A`: every A bytes. Raises UsageError for anything else and for chunks
    above MAX_CHUNK_BYTES.
    """
    kind, _, rest = spec.partition(":")
    given = [(key, value) for key, _, value in (item.partition("=") for item in rest.split(","))]
    keys = {"fastcdc": ["min", "avg", "max"], "fixed": ["size"]}.get(kind)
    if keys is None or sorted(key for key, _ in given) != sorted(keys):
        raise UsageError(f"not a chunker: {spec!r} (write {DEFAULT_SPEC!r} or 'fixed:size=64K')")
    values = dict(given)
    sizes = [parse_bytes(values[key]) for key in keys]
    if max(sizes) > MAX_CHUNK_BYTES:
        raise UsageError(f"{spec!r}: a chunk may have at most {MAX_CHUNK_BYTES >> 20} MiB, the limit of a frame")
    if kind == "fixed":
        if sizes[0] < 1024:
            raise UsageError(f"{spec!r}: chunks below 1K cost more to name than they hold")
        return Chunker(spec, sizes[0] - 1, sizes[0], sizes[0], True)
    low, average, high = sizes
    if not (64 <= low <= 1 << 20 and 256 <= average <= 4 << 20 and high >= 1024 and low <= average <= high):
        raise UsageError(f"{spec!r}: sizes must rise from min (64 to 1M) over avg (256 to 4M) to max (at least 1K)")
    return Chunker(spec, low, average, high, False)


def zero_blocks(plain: Buffer) -> list[bool]:
    """For each block of HOLE_BLOCK_BYTES of `plain` (the last may be short): whether it is all zero."""
    view = memoryview(plain)
    return [
        # Copied, because comparing a view goes byte by byte: 30 times slower.
        view[at] == 0 and bytes(view[at : at + HOLE_BLOCK_BYTES]) == _ZEROS[: len(view) - at]
        for at in range(0, len(view), HOLE_BLOCK_BYTES)
    ]
