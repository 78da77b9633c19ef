"""What pages show of names, numbers and times, as HTML in which nothing of a repository is markup."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from markupsafe import Markup, escape

from spraydry.format.classes import class_of
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Entry
from spraydry.wording import pieces

_STEPS = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (86400, 3600, "hour"),
    (86400 * 30, 86400, "day"),
    (86400 * 365, 86400 * 30, "month"),
    (float("inf"), 86400 * 365, "year"),
)


def shown(name: bytes | str) -> Markup:
    """A name: isolated and from left to right, so that letters from right to left turn nothing else around, nor what
    ends it, and what would not be seen (bytes that are no UTF-8, control characters, marks that turn text, blanks at
    its ends) as an escape that is marked."""
    parts = [_marked(name)]
    for blank in (" ", "\u3000", "\xa0"):  # at an end they would not be seen
        text = name if isinstance(name, str) else os.fsdecode(name)
        if text.endswith(blank) or text.startswith(blank):
            core = text.strip(blank)
            front = len(text) - len(text.lstrip(blank))
            parts = [_blanks(blank, front), _marked(core), _blanks(blank, len(text) - len(core) - front)]
            break
    return Markup('<bdi dir="ltr">{}</bdi>').format(Markup().join(parts))


def _blanks(blank: str, count: int) -> Markup:
    return Markup('<span class="odd">{}</span>').format(f"\\x{ord(blank):02x}" * count) if count > 0 else Markup()


def _marked(text: bytes | str) -> Markup:
    return Markup().join(
        Markup('<span class="odd">{}</span>').format(piece) if hidden else escape(piece)
        for piece, hidden in pieces(text)
    )


def line_shown(text: bytes | str, most: int = 2000) -> Markup:
    """As `shown`, of a line of text, which may have tabs; clipped behind so many characters."""
    decoded = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
    parts = Markup("\t").join(map(_marked, decoded[:most].split("\t")))
    if len(decoded) <= most:
        return parts
    return parts + Markup('<span class="odd">… {:,} more</span>').format(len(decoded) - most)


def exact(seconds: int) -> str:
    """`2024-05-01 12:30:00 UTC`; any year is possible."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} seconds after 1970"


def ago(seconds: int, now: float | None = None) -> str:
    """`3 days ago`, `in 2 hours`."""
    away = (time.time() if now is None else now) - seconds
    size = abs(away)
    if size < 10:
        return "just now"
    step, unit = next((step, unit) for end, step, unit in _STEPS if size < end)
    count = int(size // step)
    if count > 10_000:
        return "long ago" if away > 0 else "far in the future"
    text = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{text} ago" if away > 0 else f"in {text}"


def moment(seconds: int) -> Markup:
    """A time, exact and relative."""
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return Markup("<time>{}</time>").format(exact(seconds))
    return Markup('<time datetime="{}" title="{}">{} <span class="ago">{}</span></time>').format(
        at.strftime("%Y-%m-%dT%H:%M:%SZ") if at.year > 999 else "",
        exact(seconds),
        Markup('{} <span class="clock">{}</span>').format(f"{at.year:04}-{at:%m-%d}", f"{at:%H:%M}"),
        ago(seconds),
    )


def icon(entry: Entry) -> str:
    """The symbol that stands for an entry."""
    if entry.kind == DIRECTORY:
        return "folder"
    if entry.kind == SYMLINK:
        return "link"
    if entry.kind != FILE:
        return "device"
    return icon_of(entry.name)


def icon_of(called: bytes | str) -> str:
    """The symbol that stands for a file of that name."""
    name = os.fsencode(called).rpartition(b"/")[2]
    if kind := media(name)[0]:
        return kind
    if name.lower().endswith((b".md", b".rst")):
        return "text"
    found = class_of(name)
    if found in ("python", "json", "markup", "script", "c"):
        return "code"
    return {"text": "text", "packed": "packed", "binary": "binary"}.get(found, "file")


_MEDIA = {
    "image": "png jpg jpeg jpe gif webp avif bmp ico svg apng",
    "audio": "mp3 ogg oga opus flac m4a wav aac",
    "video": "mp4 m4v webm ogv mov mkv",
    "pdf": "pdf",
}
_KINDS = {ending.encode(): kind for kind, endings in _MEDIA.items() for ending in endings.split()}


def media(name: bytes) -> tuple[str, str]:
    """What a browser may show a file of that name as: image, audio, video, pdf, or ''; and its ending."""
    _, dot, ending = name.rpartition(b".")
    ending = ending.lower() if dot else b""
    return _KINDS.get(ending, ""), ending.decode("ascii", "replace")
