"""What is said of a file's bytes: their type, and that they are not to script anything."""

from __future__ import annotations

import mimetypes
import os
from urllib.parse import quote_from_bytes

from spraydry.format.classes import class_of

# The table of Python alone: what machines add to it must not change what a server says.
_TYPES = mimetypes.MimeTypes(())
_PACKED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "br": "application/x-br",
}
_MORE = {
    b".7z": "application/x-7z-compressed",
    b".avif": "image/avif",
    b".flac": "audio/flac",
    b".m4a": "audio/mp4",
    b".mkv": "video/x-matroska",
    b".md": "text/markdown",
    b".ogg": "audio/ogg",
    b".opus": "audio/ogg",
    b".parquet": "application/vnd.apache.parquet",
    b".webp": "image/webp",
    b".woff": "font/woff",
    b".woff2": "font/woff2",
    b".zst": "application/zstd",
}
_WITH_CHARSET = {"application/javascript", "application/json", "application/xml", "image/svg+xml"}
_CODE = {"python", "json", "markup", "script", "c", "text"}
OTHER = "application/octet-stream"

# A file shows its pictures and styles, and no more: no script, no form, no frame, no other place's content, and
# an origin of its own, so that even what a browser runs all the same is a stranger to the pages of this server.
_POLICY = (
    b"sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self' 'unsafe-inline';"
    b" font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
GUARDED = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", _POLICY))


def content_type(name: bytes) -> str:
    """The media type of a file of that name, by its ending. Text is said to be UTF-8."""
    ending = os.path.splitext(name)[1].lower()
    found = _MORE.get(ending)
    if found is None:
        # As a path of ASCII: what comes before the ending says nothing, and may look like a URL.
        guessed, packed = _TYPES.guess_type("x" + os.fsdecode(ending)) if ending.isascii() else (None, None)
        found = _PACKED.get(packed, OTHER) if packed else guessed
    if found is None:
        found = "text/plain" if class_of(name) in _CODE or _is_readme(name) else OTHER
    return f"{found}; charset=utf-8" if found.startswith("text/") or found in _WITH_CHARSET else found


def disposition(how: str, name: bytes) -> bytes:
    """A Content-Disposition for a file to be kept under a name, whatever bytes that has."""
    plain = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\%/' else "_" for byte in name)
    text = f'{how}; filename="{plain}"'
    if plain.encode() != name:
        text += f"; filename*=UTF-8''{quote_from_bytes(_utf8(name), safe='')}"
    return text.encode()


def _utf8(name: bytes) -> bytes:
    return name.decode(errors="replace").encode()


def _is_readme(name: bytes) -> bool:
    return name.upper() in (b"README", b"LICENSE", b"LICENCE", b"COPYING", b"AUTHORS", b"CHANGES", b"NEWS", b"MAKEFILE")
