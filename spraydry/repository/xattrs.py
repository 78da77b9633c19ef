"""The extended attributes of an entry, from the entry or from the chunk they were moved to."""

from __future__ import annotations

from collections.abc import Callable

from spraydry.format.entry import Entry, Xattrs, decode_xattrs

_NAMESPACES = (b"user", b"system", b"trusted", b"security")


def xattrs_of(entry: Entry, chunk: Callable[[bytes], memoryview]) -> Xattrs:
    """The extended attributes of an entry, as ingested; `chunk` gives those that are a chunk of their own."""
    return decode_xattrs(bytes(chunk(entry.xattrs))) if isinstance(entry.xattrs, bytes) else entry.xattrs


def as_listed(xattrs: Xattrs) -> Xattrs:
    """Extended attributes in the order in which `listxattr` gives them. It means nothing, but programs that keep it
    (mksquashfs) show a difference where it differs; this one is nearest to what ext4 has, which keeps short ones first.
    """
    return tuple(sorted(xattrs, key=_listing_key))


def _listing_key(xattr: tuple[bytes, bytes]) -> tuple[int, int, bytes]:
    space, _, rest = xattr[0].partition(b".")
    return len(rest), _NAMESPACES.index(space) if space in _NAMESPACES else len(_NAMESPACES), rest
