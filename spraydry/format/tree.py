"""Entries, and the trees of pages they form: a tree is one directory, sorted by raw names. Layout: FORMAT.md §4."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import msgspec

from spraydry.errors import CorruptData
from spraydry.format.chunker import MAX_CHUNK_BYTES
from spraydry.format.digest import DIGEST_BYTES, digest

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(1, 8)

LEAF, INDEX = 1, 2
# A page ends at the first name whose digest says so once it has MIN bytes, or before MAX: so the same names give the
# same pages whatever was there before, and one more name changes one page. Measured: 45 KB decode in 0.2 ms.
MIN_PAGE_BYTES = 32 << 10
MAX_PAGE_BYTES = 64 << 10
MAX_DEPTH = 8

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


class Runs(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """Content of more than one chunk. `filled` counts the bytes not in holes; `digest` may be absent (None) only where
    holes are so long that hashing them would take hours."""

    digest: bytes | None
    manifest: bytes
    filled: int


class Subtree(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
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


class Entry(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
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


class Child(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A page as the index page above it names it."""

    first: bytes
    last: bytes
    digest: bytes
    inodes: int
    files: int
    size: int
    blocks: int

    @property
    def totals(self) -> Totals:
        return Totals(self.inodes, self.files, self.size, self.blocks)


class _Leaf(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=LEAF):
    version: int
    entries: tuple[Entry, ...]


class _Index(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=INDEX):
    version: int
    children: tuple[Child, ...]


_encoder = msgspec.msgpack.Encoder()
_page_decoder = msgspec.msgpack.Decoder(_Leaf | _Index)
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


class TreeBuilder:
    """Makes the pages of one directory from its entries, added in name order, holding no more than a page a level.

    `emit(digest, plain)` gets every page, those below before those above. Not thread-safe.
    """

    def __init__(self, emit: Callable[[bytes, bytes], None], _level: int = 0) -> None:
        self._emit = emit
        self._level = _level
        self._parts: list[bytes] = []
        self._bytes = 0
        self._totals = [0, 0, 0, 0]
        self._first = self._last = b""
        self._above: TreeBuilder | None = None

    def add_file(self, name: bytes, encoded: bytes, size: int) -> None:
        """The next entry, of kind FILE, already checked and encoded."""
        self._add(name, name, encoded)
        totals = self._totals
        totals[0] += 1
        totals[1] += 1
        totals[2] += size
        totals[3] += -(-size // 4096)
        self._close_at(name)

    def add(self, entry: Entry) -> None:
        """The next entry; its name must sort behind the last. Raises CorruptData for one no reader would take."""
        check_entry(entry)
        if entry.kind == FILE:
            self.add_file(entry.name, _encoder.encode(entry), entry.size)
            return
        self._add(entry.name, entry.name, _encoder.encode(entry))
        totals = self._totals
        totals[0] += 1
        if isinstance(entry.content, Subtree):
            below = entry.content
            totals[0] += below.inodes
            totals[1] += below.files
            totals[2] += below.size
            totals[3] += below.blocks
        self._close_at(entry.name)

    def finish(self) -> Subtree:
        """Write what is left and name the whole."""
        if self._above is None:
            return Subtree(self._page(), *self._totals)
        if self._parts:
            self._flush()
        return self._above.finish()

    def _add(self, first: bytes, last: bytes, encoded: bytes) -> None:
        if first <= self._last:
            raise CorruptData(f"names are out of order or there twice: {first[:80]!r}")
        if self._bytes + len(encoded) > MAX_PAGE_BYTES and self._parts:
            self._flush()
        if not self._parts:
            self._first = first
        self._last = last
        self._parts.append(encoded)
        self._bytes += len(encoded)

    def _close_at(self, name: bytes) -> None:
        if self._bytes >= MIN_PAGE_BYTES and digest(name)[self._level] & 63 == 0:
            self._flush()

    def _flush(self) -> None:
        child = Child(self._first, self._last, self._page(), *self._totals)
        if self._above is None:
            self._above = TreeBuilder(self._emit, self._level + 1)
        self._above._add_child(child)
        self._parts.clear()
        self._bytes = 0
        self._totals[:] = (0, 0, 0, 0)

    def _add_child(self, child: Child) -> None:
        self._add(child.first, child.last, _encoder.encode(child))
        for place, value in enumerate(child.totals):
            self._totals[place] += value
        self._close_at(child.last)

    def _page(self) -> bytes:
        if max(self._totals) >= 1 << 63:
            raise CorruptData("the files of a directory have more bytes than can be counted")
        kind = INDEX if self._level else LEAF
        header = bytes((0x93, kind, 1)) + _array_header(len(self._parts))
        plain = b"".join((header, *self._parts))
        name = digest(plain)
        self._emit(name, plain)
        return name


def _array_header(length: int) -> bytes:
    """The msgpack header of an array, in its shortest form."""
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


class Page:
    """One decoded and checked page. `offsets[i]` counts the inodes before item i, `block_offsets[i]` the 4 KiB blocks
    of files; the last ones are the page's totals."""

    __slots__ = ("block_offsets", "bytes", "items", "leaf", "names", "offsets", "totals")

    names: list[bytes]
    offsets: list[int]
    block_offsets: list[int]

    def __init__(self, plain: bytes) -> None:
        """Raises CorruptData unless `plain` is the one encoding of a possible page."""
        if len(plain) > MAX_PAGE_BYTES + 16:
            raise CorruptData(f"no tree page has {len(plain)} bytes")
        try:
            page = _page_decoder.decode(plain)
        except msgspec.MsgspecError as error:
            raise CorruptData(f"a tree page does not parse: {error}") from None
        self.leaf = isinstance(page, _Leaf)
        self.items: tuple[Entry, ...] | tuple[Child, ...] = page.entries if isinstance(page, _Leaf) else page.children
        self.bytes = len(plain)
        if page.version != 1 or _encoder.encode(page) != plain:
            raise CorruptData("a tree page is not in its one possible encoding")
        names, offsets, block_offsets = self.names, self.offsets, self.block_offsets = [], [0], [0]
        inodes = files = size = blocks = 0
        before = b""
        for item in self.items:
            if type(item) is Entry:
                check_entry(item)
                first = last = item.name
                below = item.content
                inodes += 1
                if item.kind == FILE:
                    files += 1
                    size += item.size
                    blocks += -(-item.size // 4096)
                elif type(below) is Subtree:
                    inodes += below.inodes
                    files += below.files
                    size += below.size
                    blocks += below.blocks
            else:
                assert type(item) is Child
                first, last = item.first, item.last
                if len(item.digest) != DIGEST_BYTES or item.inodes <= 0 or min(item.totals) < 0:
                    raise CorruptData("a tree page's child is not possible")
                check_name(first)
                check_name(last)
                inodes += item.inodes
                files += item.files
                size += item.size
                blocks += item.blocks
            if not before < first <= last:
                raise CorruptData("names in a tree page are out of order or there twice")
            before = last
            names.append(last)
            offsets.append(inodes)
            block_offsets.append(blocks)
        if not self.leaf and not self.items:
            raise CorruptData("an index page of a tree is empty")
        self.totals = Totals(inodes, files, size, blocks)
        if max(self.totals) >= 1 << 63:
            raise CorruptData("a tree page's totals are not possible")


class Tree:
    """Reads one directory. `page(digest)` gives a decoded page; it may block and decides about caching.

    Every page is compared with what its parent claims of it (totals, names): otherwise ranges of inode numbers could
    overlap and one file show another's bytes. Raises CorruptData.
    """

    def __init__(self, subtree: Subtree, page: Callable[[bytes], Page]) -> None:
        self.subtree = subtree
        self._load = page

    def lookup(self, name: bytes) -> tuple[Entry, int] | None:
        """The entry of that name and the number of inodes in this directory before it; None if there is none."""
        page, base = self._top(), 0
        for _ in range(MAX_DEPTH):
            place = bisect_left(page.names, name)
            if place == len(page.names):
                return None
            item = page.items[place]
            base += page.offsets[place]
            if isinstance(item, Entry):
                return (item, base) if item.name == name else None
            if name < item.first:
                return None
            page = self._child(item)
        raise CorruptData("a tree is deeper than possible")

    def at(self, offset: int) -> tuple[Entry, int]:
        """The entry whose subtree holds inode `offset` (0 is the first entry), and the number of inodes before it."""
        page, base, place = self.leaf(offset)
        return cast(Entry, page.items[place]), base + page.offsets[place]

    def leaf(self, offset: int) -> tuple[Page, int, int]:
        """Where the entry stands whose subtree holds inode `offset`: its page, the number of inodes before that page,
        its place in the page."""
        page, base = self._top(), 0
        if not 0 <= offset < self.subtree.inodes:
            raise CorruptData("no such inode in this directory")
        for _ in range(MAX_DEPTH):
            place = bisect_right(page.offsets, offset - base) - 1
            if page.leaf:
                return page, base, place
            base += page.offsets[place]
            page = self._child(cast(Child, page.items[place]))
        raise CorruptData("a tree is deeper than possible")

    def entries(self, after: bytes = b"") -> Iterator[tuple[Entry, int]]:
        """The entries whose names sort behind `after`, in order, each with the number of inodes before it."""
        yield from self._below(self._top(), 0, after, 1)

    def entries_from_block(self, block: int) -> Iterator[tuple[Entry, int]]:
        """The entries from the one on in which block `block` lies, if those of all files below are counted in preorder,
        each with the number of blocks before it."""
        yield from self._from_block(self._top(), 0, block, 1)

    def pages(self) -> Iterator[bytes]:
        """The names of all pages of this directory (not of those below it)."""
        stack: list[tuple[Subtree | Child, int]] = [(self.subtree, 1)]
        while stack:
            claim, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise CorruptData("a tree is deeper than possible")
            yield claim.digest
            page = self._child(claim) if isinstance(claim, Child) else self._top()
            stack += [(item, depth + 1) for item in reversed(page.items) if isinstance(item, Child)]

    def _below(self, page: Page, base: int, after: bytes, depth: int) -> Iterator[tuple[Entry, int]]:
        if depth > MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        for place in range(bisect_right(page.names, after) if after else 0, len(page.names)):
            item = page.items[place]
            if isinstance(item, Entry):
                yield item, base + page.offsets[place]
            else:
                yield from self._below(self._child(item), base + page.offsets[place], after, depth + 1)

    def _from_block(self, page: Page, base: int, block: int, depth: int) -> Iterator[tuple[Entry, int]]:
        if depth > MAX_DEPTH:
            raise CorruptData("a tree is deeper than possible")
        offsets = page.block_offsets
        for place in range(max(bisect_right(offsets, block - base) - 1, 0), len(page.items)):
            item = page.items[place]
            if isinstance(item, Entry):
                yield item, base + offsets[place]
            else:
                yield from self._from_block(self._child(item), base + offsets[place], block, depth + 1)

    def _top(self) -> Page:
        page = self._load(self.subtree.digest)
        if page.totals != self.subtree.totals:
            raise CorruptData("a directory's totals are not what its parent claims")
        return page

    def _child(self, claim: Child) -> Page:
        page = self._load(claim.digest)
        first = page.items[0] if page.items else None
        if (
            first is None
            or page.totals != claim.totals
            or page.names[-1] != claim.last
            or (first.name if isinstance(first, Entry) else first.first) != claim.first
        ):
            raise CorruptData("a tree page is not what the page above claims")
        return page


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
