"""What there is to say of one entry, in values that can be printed or turned into JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.errors import UsageError
from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SOCKET, SYMLINK, Entry, Subtree
from spraydry.format.manifest import Span
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from spraydry.repository.xattrs import xattrs_of

KINDS = {
    FILE: "file",
    DIRECTORY: "directory",
    SYMLINK: "symlink",
    FIFO: "fifo",
    SOCKET: "socket",
    CHARACTER: "character device",
    BLOCK: "block device",
}


@dataclass(frozen=True)
class Described:
    """An entry. `path` is relative to what was asked for; `size` of a directory is that of the files in it; `mode` is
    octal text; `digest` is hex, None where there is none; `device` is (major, minor)."""

    path: bytes
    kind: str
    mode: str
    uid: int
    gid: int
    user: str | None
    group: str | None
    size: int
    mtime_s: int
    mtime_ns: int
    digest: str | None
    target: bytes | None
    device: tuple[int, int] | None
    hardlink: str | None


def describe(found: Found, path: bytes) -> Described:
    """An entry as a listing shows it, under `path`. Reads nothing."""
    entry = found.entry
    record = found.version.record
    return Described(
        path=path,
        kind=KINDS[entry.kind],
        mode=f"{entry.mode:04o}",
        uid=entry.uid,
        gid=entry.gid,
        user=dict(record.users).get(entry.uid),
        group=dict(record.groups).get(entry.gid),
        size=entry.totals.size if entry.kind == DIRECTORY else entry.size,
        mtime_s=entry.mtime_s,
        mtime_ns=entry.mtime_ns,
        digest=entry.file_digest.hex() if entry.file_digest else None,
        target=entry.content if entry.kind == SYMLINK and isinstance(entry.content, bytes) else None,
        device=device(entry),
        hardlink=entry.group.hex() if entry.group else None,
    )


def device(entry: Entry) -> tuple[int, int] | None:
    """Major and minor number of a device; None for other kinds."""
    return (entry.content >> 32, entry.content & 0xFFFFFFFF) if isinstance(entry.content, int) else None


@dataclass(frozen=True)
class Details:
    """What a listing leaves out. `chunks` and `hole_bytes` are those of a file; the totals count what lies below a
    directory; `xattrs` are (name, value)."""

    links: int
    xattrs: list[tuple[bytes, bytes]]
    chunks: int
    hole_bytes: int
    inodes: int
    files: int


def details(repository: Repository, found: Found) -> Details:
    """Everything else about an entry; reads its manifest, links list and attributes. Raises CorruptData."""
    entry = found.entry
    parts = list(spans(entry, repository.read_chunk)) if entry.kind == FILE else []
    links = 1
    if entry.group is not None:
        links = repository.links(found.version.record.links).find(entry.group).count
    return Details(
        links=links,
        xattrs=list(xattrs_of(entry, repository.read_chunk)),
        chunks=sum(span.chunk is not None for span in parts),
        hole_bytes=sum(span.length for span in parts if span.chunk is None),
        inodes=entry.content.inodes if isinstance(entry.content, Subtree) else 0,
        files=entry.totals.files,
    )


def chunks(repository: Repository, found: Found) -> Iterator[Span]:
    """The chunks and holes of a file, in their order. Raises UsageError for what is no regular file, CorruptData."""
    if found.entry.kind != FILE:
        raise UsageError(f"{os.fsdecode(found.path) or found.version} is not a regular file: it has no chunks")
    return spans(found.entry, repository.read_chunk)


def relative(found: Found, base: Found) -> bytes:
    """An entry's path below `base`; the base itself is its own name, or the root's where it is the root."""
    if found is base or found.path == base.path:
        return base.path.rpartition(b"/")[2] or os.fsencode(base.version.root)
    return found.path[len(base.path) + 1 :] if base.path else found.path
