"""Names, sizes and times in words for people, with what would not be seen escaped."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Iterator
from itertools import groupby

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # what acts on terminals, turns text around or is not shown


def printable(name: bytes | str) -> str:
    r"""A name as text that no terminal acts on: control characters, bytes that are no UTF-8 and the like as `\xNN`
    or `\uNNNN`, a backslash as two."""
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_visible, text.replace("\\", "\\\\")))


def safe(text: str) -> str:
    """A text of our own, in which names may stand, with the same escapes but for backslashes."""
    return text if text.isprintable() else "".join(map(_visible, text))


def pieces(name: bytes | str) -> Iterator[tuple[str, bool]]:
    """A name in pieces to be shown one after another, each with whether it is an escape that stands for what is not
    shown; backslashes are themselves."""
    text = os.fsdecode(name) if isinstance(name, bytes) else name
    for hidden, group in groupby(text, lambda character: _visible(character) != character):
        yield "".join(map(_visible, group)), hidden


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode gives it
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(count: int | float) -> str:
    """Bytes for people: `517 B`, `38.2 KiB`, `1.0 GiB`."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        count /= 1024
        if abs(count) < 999.95 or unit == "PiB":
            break
    return f"{count:.1f} {unit}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def moment(seconds: int, ns: int = 0, exact: bool = False) -> str:
    """A time since 1970 as local `2024-05-01 12:30:00`; `exact` adds nanoseconds and zone. Any year is possible."""
    try:
        local = time.localtime(seconds)
    except (OverflowError, ValueError, OSError):
        return f"@{seconds}" + (f".{ns:09d}" if exact else "")
    return time.strftime("%Y-%m-%d %H:%M:%S", local) + (f".{ns:09d} {time.strftime('%z', local)}" if exact else "")


def duration(seconds: float) -> str:
    """`15 ms`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
