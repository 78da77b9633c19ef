"""Entries: what a directory says of one name, checked and encoded. Layout: FORMAT.md §4."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.chunker import MAX_CHUNK_BYTES
from spraydry.format.digest import DIGEST_BYTES, digest

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(1, 8)

MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
MAX_INLINE_XATTR_BYTES = 4096  # larger ones are a chunk of their own, so that any entry fits a page
MAX_XATTR_BYTES = 64 << 10  # of one value, as Linux has it
GROUP_BYTES = 16


class Totals(NamedTuple):
    """Sums over a subtree: `inodes` counts every entry in it, `files` the regular files, `size` is the sum of their
    sizes in bytes, `blocks` that in units of 4 KiB, each file's rounded up. None reaches 2^63."""

    inodes: int = 0
    files: int = 0
    size: int = 0
    blocks: int = 0

    def __add__(self, other: Totals) -> Totals:  # type: ignore[override]
        return Totals(self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3])


class Runs(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=1):
    """Content of more than one chunk. `filled` counts the bytes not in holes; `digest` may be absent (None) only where
    holes are so long that hashing them would take hours."""

    digest: bytes | None
    manifest: bytes
    filled: int


class Subtree(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False, tag=2):
    """Content of a directory: the top page of its tree, and the sums over everything *below* it."""

    digest: bytes
    inodes: int
    files: int
    size: int
    blocks: int

    @property
    def totals(self) -> Totals:
        return Totals(self.inodes, self.files, self.size, self.blocks)


Content = None | bytes | int | Runs | Subtree
Xattrs = tuple[tuple[bytes, bytes], ...]


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False):
    """One name in a directory.

    `content` by kind: FILE None (empty), bytes (digest of the only chunk) or Runs; DIRECTORY Subtree; SYMLINK the
    target; CHARACTER and BLOCK the device number as an integer (major << 32 | minor); FIFO and SOCKET None. `mode` has
    the permission bits only (07777). `xattrs` are sorted by name, or the digest of the chunk they were moved to.
    `group` names the hardlink group, None for an entry that is alone.
    """

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    size: int
    content: Content
    xattrs: Xattrs | bytes
    group: bytes | None

    @property
    def totals(self) -> Totals:
        """What this entry adds to the totals of its directory."""
        if self.kind == FILE:
            return Totals(1, 1, self.size, -(-self.size // 4096))
        if isinstance(self.content, Subtree):
            below = self.content
            return Totals(1 + below.inodes, below.files, below.size, below.blocks)
        return Totals(1, 0, 0, 0)

    @property
    def file_digest(self) -> bytes | None:
        """The BLAKE3 of a file's bytes, as `b3sum` prints it; None for other kinds and for unhashed sparse files."""
        if self.kind != FILE:
            return None
        if isinstance(self.content, Runs):
            return self.content.digest
        return self.content if isinstance(self.content, bytes) else digest(b"")


_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_xattr_decoder = msgspec.msgpack.Decoder(Xattrs)


def encode_entry(entry: Entry) -> bytes:
    """An entry alone, as a page holds it."""
    return _encoder.encode(entry)


def decode_entry(plain: bytes) -> Entry:
    """An entry alone, unchecked beyond its types: for what never left this machine. Raises CorruptData."""
    try:
        return _entry_decoder.decode(plain)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"an entry does not parse: {error}") from None


def encode_xattrs(xattrs: Xattrs) -> bytes:
    """Extended attributes as the bytes of a chunk, for those too large to stay in the entry."""
    return _encoder.encode(xattrs)


def decode_xattrs(plain: bytes) -> Xattrs:
    """The inverse of encode_xattrs. Raises CorruptData."""
    try:
        xattrs = _xattr_decoder.decode(plain)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"extended attributes do not parse: {error}") from None
    if not _xattrs_sound(xattrs, False) or _encoder.encode(xattrs) != plain:
        raise CorruptData("extended attributes are not possible")
    return xattrs


def check_name(name: bytes) -> None:
    """Raises CorruptData for a name no directory may hold."""
    if not 0 < len(name) <= MAX_NAME_BYTES or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise CorruptData(f"a name that cannot be: {name[:80]!r}")


def check_entry(entry: Entry, root: bool = False) -> None:
    """Raises CorruptData unless the entry could have come from a file system. The root entry has no name."""
    name, kind, content, size = entry.name, entry.kind, entry.content, entry.size
    if not (root and name == b""):
        check_name(name)
    if kind == FILE:
        if type(content) is bytes:
            sound = len(content) == DIGEST_BYTES and 0 < size <= MAX_CHUNK_BYTES
        elif type(content) is Runs:
            sound = (
                0 < size < 1 << 63
                and 0 <= content.filled <= size
                and len(content.manifest) == DIGEST_BYTES
                and (content.digest is None or len(content.digest) == DIGEST_BYTES)
            )
        else:
            sound = content is None and size == 0
    elif kind == DIRECTORY:
        sound = (
            type(content) is Subtree
            and size == 0
            and len(content.digest) == DIGEST_BYTES
            and 0 <= content.inodes < 1 << 63
            and 0 <= content.files < 1 << 63
            and 0 <= content.size < 1 << 63
            and 0 <= content.blocks < 1 << 63
        )
    elif kind == SYMLINK:
        sound = type(content) is bytes and 0 < len(content) == size <= MAX_TARGET_BYTES and b"\0" not in content
    elif kind in (CHARACTER, BLOCK):
        sound = type(content) is int and 0 <= content < 1 << 63 and size == 0
    else:
        sound = kind in (FIFO, SOCKET) and content is None and size == 0
    group = entry.group
    if not (
        sound
        and 0 <= entry.mode <= 0o7777
        and 0 <= entry.uid < 0xFFFFFFFF
        and 0 <= entry.gid < 0xFFFFFFFF
        and -(1 << 62) < entry.mtime_s < 1 << 62
        and 0 <= entry.mtime_ns < 10**9
        and (entry.xattrs == () or _xattrs_sound(entry.xattrs, True))
        and (group is None or (len(group) == GROUP_BYTES and kind != DIRECTORY))
    ):
        raise CorruptData(f"an entry that cannot be: {name[:80]!r}")


def inline_bytes(xattrs: Xattrs) -> int:
    """What extended attributes count against MAX_INLINE_XATTR_BYTES: names, values, 8 for each."""
    return sum(len(name) + len(value) + 8 for name, value in xattrs)


def _xattrs_sound(xattrs: Xattrs | bytes, inline: bool) -> bool:
    if isinstance(xattrs, bytes):
        return inline and len(xattrs) == DIGEST_BYTES
    names = [name for name, _ in xattrs]
    return (
        names == sorted(set(names))
        and all(0 < len(name) <= 255 and b"\0" not in name for name in names)
        and all(len(value) <= MAX_XATTR_BYTES for _, value in xattrs)
        and (inline_bytes(xattrs) <= MAX_INLINE_XATTR_BYTES) is inline
    )
