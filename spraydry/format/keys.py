"""Keys of hoards: what may name a file in one, and the names they have in a checkpoint's tree. Layout: FORMAT.md §7."""

from __future__ import annotations

import re

from spraydry.errors import CorruptData, UsageError
from spraydry.format.entry import MAX_NAME_BYTES

# A slash sorts before all other characters that a key may have: so what is below one prefix stands together.
_SLASH = b"\x01"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")  # that is empty, `.` or `..`


def name_of(key: str) -> bytes:
    """The name of a key in a tree. Raises UsageError for what can be no key."""
    try:
        name = key.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{key!r} cannot be a key: it is not Unicode") from None
    if not 0 < len(name) <= MAX_NAME_BYTES:
        raise UsageError(f"a key has 1 to {MAX_NAME_BYTES} bytes of UTF-8: {key[:80]!r} has {len(name)}")
    if _CONTROL.search(key):
        raise UsageError(f"{key!r} cannot be a key: it has control characters")
    if _PART.search(key):
        raise UsageError(f"{key!r} cannot be a key: no part between slashes is empty, '.' or '..'")
    return name.replace(b"/", _SLASH)


def key_of(name: bytes) -> str:
    """The inverse of `name_of`. Raises CorruptData for what is the name of no key."""
    try:
        key = name.replace(_SLASH, b"/").decode()
        if name_of(key) == name:
            return key
    except (UnicodeDecodeError, UsageError):
        pass
    raise CorruptData(f"a hoard has a key that cannot be: {name[:80]!r}")


def prefix_of(prefix: str) -> bytes:
    """What the names of all keys that begin with `prefix` begin with."""
    return prefix.encode(errors="surrogatepass").replace(b"/", _SLASH)
