"""Ingesting a tar stream: its members become nodes, in whatever order they come."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
import zlib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, BinaryIO, Self, cast

import msgspec

from spraydry.actions.commit import commit
from spraydry.actions.ingest.attributes import outsized
from spraydry.actions.ingest.build import build
from spraydry.actions.ingest.ingest import Ingested, kept
from spraydry.actions.ingest.nodes import Node, Nodes
from spraydry.actions.ingest.proposal import group_number, propose, user_number
from spraydry.actions.ingest.scan import Findings
from spraydry.actions.ingest.segments import store_stream
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import CorruptData, UsageError
from spraydry.format.chunker import DEFAULT_SPEC, Chunker, parse_spec
from spraydry.format.classes import TREE, class_of
from spraydry.format.digest import digest
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Content,
    Entry,
    Xattrs,
    check_entry,
    check_name,
    decode_entry,
    decode_xattrs,
    encode_entry,
)
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.posix_acl import ACCESS, DEFAULT, MINIMAL_BYTES, acl_value
from spraydry.format.version import check_new_name
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.writer import Writer
from spraydry.stores.database.scratch import scratch, scratch_errors

_KINDS = {
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.SYMTYPE: SYMLINK,
    tarfile.FIFOTYPE: FIFO,
    tarfile.CHRTYPE: CHARACTER,
    tarfile.BLKTYPE: BLOCK,
}
_XATTR, _ACL = "SCHILY.xattr.", "SCHILY.acl."
# tarfile copies what is left of its buffer for every header and content it hands out: with a buffer of 1 MiB, members
# of 300 bytes took 137 us of CPU each, with this one 90.
_READ_BYTES = 16 << 10
_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


def _decompressed(stream: BinaryIO) -> BinaryIO:
    """The tar in a stream that may be compressed. tarfile could tell by itself, but compares no checksums: a flipped
    bit would be taken for what was in the file."""
    buffered = io.BufferedReader(cast(io.RawIOBase, stream), 1 << 20)
    head = buffered.peek(6)
    for magic, opened in _PACKED.items():
        if head.startswith(magic):
            return cast(BinaryIO, opened(cast(BinaryIO, buffered)))
    return cast(BinaryIO, buffered)


_ReadError = tarfile.ReadError
_HeaderError: type[Exception] = tarfile.HeaderError
_EndOfTar: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]


class _Header(tarfile.TarInfo):
    """A member's header. The library takes a stream that ends in the midst of one, without the mark that ends a stream,
    or with a damaged one, for complete; here that is an error."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            member = super().fromtarfile(tarfile)
        except _EndOfTar:
            raise
        except _HeaderError as error:
            raise _ReadError(f"unexpected end of data, or {error}") from None
        except ValueError as error:  # numbers in extended headers are taken as they come
            raise _ReadError(f"a header that cannot be: {error}") from None
        if member.size < 0:
            raise _ReadError("a header that cannot be: a size below nothing")
        return member


class _Members:
    """Members by path, the last of each counting, in a scratch database: there may be any number, in any order."""

    def __init__(self) -> None:
        self._database = scratch(32 << 20)
        self._database.execute("CREATE TABLE member(key BLOB PRIMARY KEY, entry BLOB, hardlinks INTEGER) WITHOUT ROWID")
        self._links = 0

    def put(self, key: bytes, entry: Entry, hardlinks: int | None = None) -> None:
        self._database.execute("INSERT OR REPLACE INTO member VALUES(?, ?, ?)", (key, encode_entry(entry), hardlinks))

    def has(self, key: bytes) -> bool:
        return bool(self._database.execute("SELECT 1 FROM member WHERE key = ?", (key,)).fetchall())

    def link(self, key: bytes, target: bytes, name: bytes) -> bool:
        """Make `key` another name of what is at `target`; False where nothing is, or a directory."""
        rows = self._database.execute("SELECT entry, hardlinks FROM member WHERE key = ?", (target,)).fetchall()
        if not rows or not isinstance(rows[0][0], bytes):
            return False
        entry, hardlinks = decode_entry(rows[0][0]), rows[0][1]
        if entry.kind == DIRECTORY:
            return False
        if hardlinks is None:
            self._links += 1
            hardlinks = self._links
            self._database.execute("UPDATE member SET hardlinks = ? WHERE key = ?", (hardlinks, target))
        self.put(key, msgspec.structs.replace(entry, name=name), int(hardlinks))
        return True

    def fill(self, nodes: Nodes, problem: Callable[[bytes, str], None]) -> None:
        """All members as nodes, in preorder: a path's parts joined by zero bytes sort that way."""
        directories: list[bytes] = []
        for key, encoded, hardlinks in self._database.execute("SELECT * FROM member ORDER BY key"):
            assert isinstance(key, bytes) and isinstance(encoded, bytes)
            entry = decode_entry(encoded)
            depth = key.count(b"\0") + 1 if key else 0
            del directories[depth:]
            above = key.rpartition(b"\0")[0]
            if depth and (len(directories) < depth or directories[-1] != above):
                problem(key.replace(b"\0", b"/"), "it lies below something that is no directory")
                continue
            if entry.kind == DIRECTORY:
                directories.append(key)
            id = nodes.new_id()
            nodes.files += entry.kind == FILE
            nodes.bytes += entry.size
            if hardlinks is not None:
                nodes.first_of(0, int(hardlinks), id, key.replace(b"\0", b"/"))
            inode = int(hardlinks or 0)
            nodes.add(Node(id, depth, entry.kind, entry.name, entry.size, 0, inode, 0, 0, encoded, inode > 0, False))

    def close(self) -> None:
        self._database.close(True)


def ingest_tar(
    repository: Repository,
    stream: BinaryIO,
    *,
    root: str,
    name: str | None = None,
    chunker: str | None = None,
    level: int = DEFAULT_LEVEL,
    dry_run: bool = False,
    progress: Report = unheard,
) -> Ingested:
    """Make the newest version of a root from a tar stream (plain, gzip, bzip2 or xz), read once, front to back.

    Directories that are only implied are made with mode 755. An ACL of somebody whom nobody knows here is reported and
    left out. Raises UsageError for what is no tar stream, CorruptData for one that is cut short.
    """
    clock = time.monotonic()
    check_new_name(root, "root")
    if name is not None:
        check_new_name(name, "version")
        repository.log.check_unused(root, name)
    newest = repository.log.newest(root)
    spec = chunker or (newest.record.spec if newest else DEFAULT_SPEC)
    cutter = parse_spec(spec)
    findings = Findings()
    members, nodes = _Members(), Nodes()
    began_at = repository.log.head[0]
    files = size = 0
    is_tar = False
    try:
        with scratch_errors(), Writer(repository, level, dry_run=dry_run) as writer, kept(writer, dry_run):
            members.put(b"", Entry(b"", DIRECTORY, 0o755, 0, 0, 0, 0, 0, None, (), None))
            try:
                source = _decompressed(stream)
                with tarfile.open(fileobj=source, mode="r|", bufsize=_READ_BYTES, tarinfo=_Header) as archive:
                    is_tar = True
                    for member in archive:
                        archive.members = []  # type: ignore[attr-defined]  # it keeps them all
                        path = _parts(member.name)
                        if path is None:
                            findings.problems.append((_bytes(member.name), "a name no directory may hold"))
                            continue
                        try:
                            _take(archive, member, path, members, writer, cutter, findings)
                        except CorruptData as error:
                            findings.problems.append((b"/".join(path), str(error)))
                        files, size = files + 1, size + member.size
                        progress(Done("reading", files, size))
                while source.read(1 << 20):
                    pass  # what is behind the last member decides whether all of it was right
            except (tarfile.ReadError, lzma.LZMAError, zlib.error, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # reading failed; without a number it is what gzip and bz2 say of damage
                if not is_tar:
                    raise UsageError(f"standard input is no tar stream: {error}") from None
                raise CorruptData(f"the tar stream is damaged or cut short: {error}; nothing was committed") from None
            except EOFError:
                raise CorruptData("the tar stream is cut short; nothing was committed") from None
            members.fill(nodes, lambda path, why: findings.problems.append((path, why)))
            built = build(nodes, {}, None, None, 0, lambda name, plain: writer.add(name, plain, TREE))
            written = writer.finish()
        version = None
        new = newest is None or newest.record.entry != built.entry
        named = False
        if not dry_run:
            proposal = propose(root, name, built, spec, findings, written)
            committed = commit(repository, proposal, began_at)
            version, new, named = committed.version, committed.new, committed.named
            merge_runs(repository)
            repository.store.flush()
    finally:
        members.close()
        nodes.close()
    return Ingested(
        root=root,
        version=version,
        new=new,
        named=named,
        files=nodes.files,
        size=nodes.bytes,
        unchanged_files=0,
        read_files=nodes.files,
        read_bytes=nodes.bytes,
        new_bytes=written.plain_bytes,
        deduplicated_bytes=written.known_bytes,
        stored_bytes=written.stored_bytes,
        seconds=time.monotonic() - clock,
        problems=findings.problems,
        left_out=[],
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parts(path: str) -> list[bytes] | None:
    """The names on a member's path; None where one is impossible."""
    parts = [part for part in _bytes(path).split(b"/") if part not in (b"", b".")]
    try:
        for part in parts:
            check_name(part)
    except CorruptData:
        return None
    return parts


def _take(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    path: list[bytes],
    members: _Members,
    writer: Writer,
    chunker: Chunker,
    findings: Findings,
) -> None:
    key, name = b"\0".join(path), path[-1] if path else b""
    findings.users.add(member.uid)
    findings.groups.add(member.gid)
    for depth in range(1, len(path)):
        above = b"\0".join(path[:depth])
        if not members.has(above):
            members.put(above, _entry(member, path[depth - 1], DIRECTORY, 0, None, (), 0o755))
    if member.islnk():
        target = _parts(member.linkname)
        if not path or target is None or not members.link(key, b"\0".join(target), name):
            findings.problems.append((b"/".join(path), f"a hardlink to {member.linkname!r}, which is not there"))
        return
    try:
        acls = _acls(member)
    except CorruptData as error:
        findings.problems.append((b"/".join(path), f"{error}; it was left out"))
        acls = {}
    told = {
        _bytes(key[len(_XATTR) :]): _bytes(value) for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    }
    xattrs: Xattrs = tuple(sorted((acls | told).items()))
    kept_xattrs: Xattrs | bytes = xattrs
    try:
        plain = outsized(xattrs)
    except OSError as error:
        raise CorruptData(str(error.strerror)) from None
    if plain is not None:
        kept_xattrs = digest(plain)
        decode_xattrs(plain)
        writer.add(kept_xattrs, plain, TREE)
    kind = FILE if member.isreg() else _KINDS.get(member.type)
    if kind is None:
        findings.problems.append((b"/".join(path), f"a member of an unknown type {member.type!r}"))
        return
    size, content = 0, None
    if kind == FILE:
        size, content = _content(archive, member, writer, chunker, class_of(name))
    elif kind == SYMLINK:
        content = _bytes(member.linkname)
        size = len(content)
    elif kind in (CHARACTER, BLOCK):
        content = member.devmajor << 32 | member.devminor
    entry = _entry(member, name, kind, size, content, kept_xattrs, member.mode & 0o7777)
    if kind == DIRECTORY:
        check_entry(msgspec.structs.replace(entry, kind=FIFO), root=True)  # what it holds is not known yet
    else:
        check_entry(entry)
    members.put(key, entry)


def _acls(member: tarfile.TarInfo) -> dict[bytes, bytes]:
    """The ACLs that stand in a member's headers as text, as extended attributes."""
    found = {}
    for key, name in ((_ACL + "access", ACCESS), (_ACL + "default", DEFAULT)):
        if (text := member.pax_headers.get(key, "").strip()) and _XATTR + name.decode() not in member.pax_headers:
            value = acl_value(text, user_number, group_number)
            if name == DEFAULT or len(value) > MINIMAL_BYTES:
                found[name] = value
    return found


def _content(
    archive: tarfile.TarFile, member: tarfile.TarInfo, writer: Writer, chunker: Chunker, frame_class: str
) -> tuple[int, Content]:
    file = archive.extractfile(member)
    if file is None or member.size == 0:
        return 0, None
    left = member.size

    def read(most: int) -> bytes:
        """No more than is there: Python sets aside what is asked for, 4 MiB for a member of 300 bytes."""
        nonlocal left
        piece = file.read(min(most, left))
        left -= len(piece)
        return piece

    size, content = store_stream(writer, read, chunker, frame_class)
    if size != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return size, content


def _entry(
    member: tarfile.TarInfo, name: bytes, kind: int, size: int, content: Content, xattrs: Xattrs | bytes, mode: int
) -> Entry:
    try:
        nanoseconds = int(Decimal(member.pax_headers.get("mtime", repr(member.mtime))).scaleb(9))
    except (InvalidOperation, ValueError, OverflowError):
        nanoseconds = 0
    except ArithmeticError:
        raise CorruptData("a time that cannot be") from None
    seconds, rest = divmod(nanoseconds, 10**9)
    if abs(seconds) >= 1 << 62:
        raise CorruptData("a time that cannot be")
    uid, gid = (number if 0 <= number < 0xFFFFFFFF else 65534 for number in (member.uid, member.gid))
    return Entry(name, kind, mode, uid, gid, seconds, rest, size, content, xattrs, None)
