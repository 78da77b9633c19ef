"""EROFS images of a tree: all of its metadata, with the contents of files where the caller says they lie.

Of what the format offers (`erofs_layout`) this writes: extended inodes; directories and symlinks with their last part
behind the inode; files as one range of blocks, or by chunk indexes where they have holes or lie far away; extended
attributes, shared where they repeat.

    block 0          superblock at 1024, device table behind it
    block 1 ...      contents, if they lie in the image itself
    `metadata_at`    root inode, then every other inode before the directory that names it; blocks of large directories
    ... the end      shared extended attributes

Children come before their parent, so that a directory knows the places of all it names when it is written: one pass,
whose memory is the names of the directories that are open, and a table of what may be met again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from spraydry.errors import ImageImpossible
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Entry, Runs, Subtree, Xattrs
from spraydry.format.erofs_contents import MAX_SLOTS, SLOT_BLOCKS
from spraydry.format.erofs_layout import (
    BLOCK_BYTES,
    CHUNKED,
    FORMATS,
    INDEX,
    INDEXED,
    INLINE,
    INODE,
    NID,
    NOWHERE,
    PLAIN,
    UNIT,
    XATTR_HEADER,
    DirectoryBlocks,
    XattrBodies,
    chunk_bits,
    device_number,
    front_block,
)
from spraydry.format.hashtable import Table
from spraydry.format.links import Links
from spraydry.format.tree import Tree
from spraydry.format.tree_page import Page

_ROOT_NID = 2  # number 0 would be no inode number
_FLUSH_BYTES = 1 << 20


class Source(NamedTuple):
    """What an image is made from: `root` and, each of which may block, `page(digest)` for the trees below it, the
    `links` of its version, `xattrs(entry)`, and `filled(entry)`: the (start, stop) byte ranges of a file outside of its
    holes, in order."""

    root: Entry
    page: Callable[[bytes], Page]
    links: Links
    xattrs: Callable[[Entry], Xattrs]
    filled: Callable[[Entry], Iterator[tuple[int, int]]]


class Image(NamedTuple):
    """What was written: the image's length in bytes, its inodes."""

    size: int
    inodes: int


def write_image(
    source: Source,
    write: Callable[[int, bytes], object],
    address: Callable[[Entry], int],
    *,
    slots: Sequence[int] = (),
    metadata_at: int = 1,
    uuid: bytes = bytes(16),
    tick: Callable[[int], None] = lambda inodes: None,
) -> Image:
    """Write the image through `write(offset, bytes)`, not in the order of the offsets.

    `address(entry)` is asked once for each file of some bytes, in preorder, for the first block of its content: on
    the devices, whose sizes in blocks are `slots`, or in the image itself if there are none; then `metadata_at` is the
    first block behind them. `tick(inodes)` is called now and then. Raises ImageImpossible for what EROFS cannot hold,
    and what `source` raises.
    """
    return _Writer(source, write, address, slots, metadata_at, uuid, tick).run()


class _Directory:
    """A directory that is being read; `below` says where in the image the directories in it name it as their `..`."""

    __slots__ = ("below", "blocks", "entries", "entry")

    def __init__(self, entry: Entry, page: Callable[[bytes], Page]) -> None:
        assert isinstance(entry.content, Subtree)
        self.entry = entry
        self.entries = Tree(entry.content, page).entries()
        self.blocks = DirectoryBlocks()
        self.below = array("Q")


class _Placed(NamedTuple):
    """Where an inode's bytes came to lie: the first `blocks` of them at `blocks_at`, the rest at `tail_at`."""

    nid: int
    blocks_at: int
    blocks: int
    tail_at: int

    def at(self, offset: int) -> int:
        return self.blocks_at + offset if offset < self.blocks else self.tail_at + offset - self.blocks


class _Writer:
    def __init__(
        self,
        source: Source,
        write: Callable[[int, bytes], object],
        address: Callable[[Entry], int],
        slots: Sequence[int],
        metadata_at: int,
        uuid: bytes,
        tick: Callable[[int], None],
    ) -> None:
        if len(slots) > MAX_SLOTS:
            raise ImageImpossible(f"its files take more than {MAX_SLOTS * SLOT_BLOCKS * BLOCK_BYTES >> 40} TiB")
        self._source, self._write, self._address = source, write, address
        self._slots, self._metadata_at, self._uuid, self._tick = slots, metadata_at, uuid, tick
        self._base = metadata_at * BLOCK_BYTES
        self._buffer = bytearray(_ROOT_NID * UNIT)
        self._at = self._base  # where in the image the buffer begins
        self._inodes = 0
        self._members = Table()  # of a hardlink group: the number of its inode
        self._xattrs = XattrBodies()

    def run(self) -> Image:
        root = self._source.root
        root_body = self._xattr_body(root)
        self._buffer += bytes(_round_up(INODE.size + len(root_body), UNIT))
        stack = [_Directory(root, self._source.page)]
        while True:
            here = stack[-1]
            found = self._step(here)
            if found is not None:
                stack.append(_Directory(found, self._source.page))
                continue
            stack.pop()
            if not stack:
                break
            nid, dots_at = self._directory(here)
            stack[-1].blocks.add(here.entry.name, nid, DIRECTORY)
            stack[-1].below.append(dots_at)
        self._root(here, root_body)
        return self._finish()

    def _step(self, here: _Directory) -> Entry | None:
        """Write the inodes of what a directory names until there is a directory to enter; None at its end."""
        add, address, pack = here.blocks.add, self._address, INODE.pack
        flat = SLOT_BLOCKS if self._slots else 0
        for entry, _ in here.entries:
            kind, group = entry.kind, entry.group
            if kind == DIRECTORY:
                return entry
            if kind == FILE and entry.size:
                block = address(entry)
            else:
                block = 0
            nlink = 1
            if group is not None:
                nid = self._members.get(group)
                if nid is not None:
                    add(entry.name, nid, kind)
                    continue
                nlink = self._nlink(entry)
            content = entry.content
            blocks = (entry.size + BLOCK_BYTES - 1) // BLOCK_BYTES
            if (
                kind == FILE
                and not entry.xattrs
                and block + blocks <= SLOT_BLOCKS
                and (type(content) is bytes or content is None or content.filled == entry.size)  # type: ignore[union-attr]
            ):
                nid = (self._at + len(self._buffer) - self._base) // UNIT
                self._count()
                self._buffer += pack(
                    PLAIN,
                    0,
                    0o100000 | entry.mode,
                    0,
                    entry.size,
                    block + flat if entry.size else NOWHERE,
                    self._inodes & 0xFFFFFFFF,
                    entry.uid,
                    entry.gid,
                    entry.mtime_s,
                    entry.mtime_ns,
                    nlink,
                )
            else:
                nid = self._other(entry, block, nlink)
            if group is not None:
                self._members.setdefault(group, nid)
            add(entry.name, nid, kind)
        return None

    @property
    def _end(self) -> int:
        return self._at + len(self._buffer)

    def _xattr_body(self, entry: Entry) -> bytes:
        return self._xattrs.of(self._source.xattrs(entry)) if entry.xattrs else b""

    def _nlink(self, entry: Entry) -> int:
        return 1 if entry.group is None else min(self._source.links.find(entry.group).count, 0xFFFFFFFF)

    # -- inodes

    def _count(self) -> None:
        self._inodes += 1
        if not self._inodes & 1023:
            self._tick(self._inodes)
            self._flush()

    def _flush(self) -> None:
        """Write the whole blocks that were put together."""
        whole = len(self._buffer) // BLOCK_BYTES * BLOCK_BYTES
        self._write(self._at, bytes(self._buffer[:whole]))
        self._at += whole
        del self._buffer[:whole]

    def _inode(self, entry: Entry, layout: int, body: bytes, size: int, union: int, nlink: int) -> bytes:
        self._count()
        return (
            INODE.pack(
                layout,
                (len(body) - XATTR_HEADER.size) // 4 + 1 if body else 0,
                FORMATS[entry.kind] | entry.mode,
                0,
                size,
                union,
                self._inodes & 0xFFFFFFFF,
                entry.uid,
                entry.gid,
                entry.mtime_s,
                entry.mtime_ns,
                nlink,
            )
            + body
        )

    def _other(self, entry: Entry, block: int, nlink: int) -> int:
        """The inode of anything that is no directory."""
        body, kind = self._xattr_body(entry), entry.kind
        if kind == SYMLINK:
            assert isinstance(entry.content, bytes)
            return self._with_tail(entry, body, entry.content).nid
        if kind == FILE and entry.size:
            layout, union, indexes = self._content(entry, block)
            inode = self._inode(entry, layout, body, entry.size, union, nlink)
            return self._place(inode + bytes(-len(inode) % 8 if indexes else 0) + indexes)
        union = NOWHERE if kind == FILE else 0
        if isinstance(entry.content, int):
            union = device_number(entry.content)
        return self._place(self._inode(entry, PLAIN, body, 0, union, nlink))

    def _content(self, entry: Entry, block: int) -> tuple[int, int, bytes]:
        """Layout, union and indexes of a file's inode."""
        size, content = entry.size, entry.content
        whole = not isinstance(content, Runs) or content.filled == size
        if whole and block + -(-size // BLOCK_BYTES) <= SLOT_BLOCKS:
            return PLAIN, block + (SLOT_BLOCKS if self._slots else 0), b""
        filled = [(0, size)] if whole else list(self._source.filled(entry))
        bits = chunk_bits(size, filled)
        places = array("Q")
        for start, stop in filled:
            first = start >> bits
            if places and places[-1] == first:
                first += 1
            places.extend(range(first, (stop - 1 >> bits) + 1))
        indexes = bytearray(b"\0\0\0\0\xff\xff\xff\xff") * ((size - 1 >> bits) + 1)
        for place in places:
            slot, at = divmod(block + (place << bits - 12), SLOT_BLOCKS)
            if not self._slots and slot:
                raise ImageImpossible("its files take more than an image can hold")
            INDEX.pack_into(indexes, place * INDEX.size, 0, slot + 1 if self._slots else 0, at)
        return CHUNKED, INDEXED | bits - 12, bytes(indexes)

    def _with_tail(self, entry: Entry, body: bytes, plain: bytes | bytearray) -> _Placed:
        """The inode of a directory or symlink with these bytes: whole blocks first, the rest behind the inode."""
        blocks = len(plain) // BLOCK_BYTES * BLOCK_BYTES
        head = INODE.size + len(body)
        inline = len(plain) > blocks and head + len(plain) - blocks <= BLOCK_BYTES
        if not inline:
            blocks = _round_up(len(plain), BLOCK_BYTES)
        block = self._blocks(plain, blocks) if blocks else NOWHERE
        inode = self._inode(entry, INLINE if inline else PLAIN, body, len(plain), block, self._nlink(entry))
        if inline:
            self._room(head + len(plain) - blocks)
            inode += plain[blocks:]
        nid = self._place(inode)
        return _Placed(nid, block * BLOCK_BYTES, blocks, self._base + nid * UNIT + head)

    def _blocks(self, plain: bytes | bytearray, length: int) -> int:
        """Put `length` bytes, of `plain` or zeros behind it, at the start of a block; the number of that block."""
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        block = self._end // BLOCK_BYTES
        self._buffer += plain[:length]
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        return block

    def _room(self, length: int) -> None:
        """Go on in the next block unless so many bytes fit into what is left of this one."""
        left = -self._end % BLOCK_BYTES
        if left and length > left:
            self._buffer += bytes(left)

    def _place(self, inode: bytes) -> int:
        """Put an inode and what follows it in the image; its number."""
        nid = (self._end - self._base) // UNIT
        self._buffer += inode
        self._buffer += bytes(-len(inode) % UNIT)
        if len(self._buffer) > _FLUSH_BYTES:
            self._flush()
        return nid

    def _overwrite(self, at: int, plain: bytes) -> None:
        """Change bytes that were put in the image before."""
        if at < self._at:
            self._write(at, plain)
        else:
            self._buffer[at - self._at : at - self._at + len(plain)] = plain

    # -- directories

    def _directory(self, here: _Directory) -> tuple[int, int]:
        """Write a directory; its number, and where in the image it names the directory above."""
        plain = here.blocks.finish()
        placed = self._with_tail(here.entry, self._xattr_body(here.entry), plain)
        self._overwrite(placed.at(here.blocks.dots[0]), NID.pack(placed.nid))
        self._name_above(here, placed.nid)
        return placed.nid, placed.at(here.blocks.dots[1])

    def _name_above(self, here: _Directory, nid: int) -> None:
        name = NID.pack(nid)
        for at in here.below:
            self._overwrite(at, name)

    def _root(self, here: _Directory, body: bytes) -> None:
        """The root's inode stands at the front, where a number of 16 bits reaches it; its bytes are blocks of their
        own."""
        plain = here.blocks.finish()
        for at in here.blocks.dots:
            NID.pack_into(plain, at, _ROOT_NID)
        self._name_above(here, _ROOT_NID)
        block = self._blocks(plain, _round_up(len(plain), BLOCK_BYTES))
        inode = self._inode(here.entry, PLAIN, body, len(plain), block, 1)
        self._overwrite(self._base + _ROOT_NID * UNIT, inode)

    def _finish(self) -> Image:
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        shared_at = self._end // BLOCK_BYTES
        self._buffer += self._xattrs.shared
        self._buffer += bytes(-self._end % BLOCK_BYTES)
        end = self._end
        if end > BLOCK_BYTES << 32:
            raise ImageImpossible("it would have more than 16 TiB")
        self._write(self._at, bytes(self._buffer))
        slots = [(blocks, 0 if number else SLOT_BLOCKS) for number, blocks in enumerate(self._slots)]
        blocks = end // BLOCK_BYTES
        front = front_block(_ROOT_NID, self._inodes, blocks, self._metadata_at, shared_at, self._uuid, slots)
        self._write(0, front)
        return Image(end, self._inodes)


def _round_up(length: int, unit: int) -> int:
    return -(-length // unit) * unit
