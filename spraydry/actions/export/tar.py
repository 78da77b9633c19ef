"""A tar stream of a version, in pax format with times in ns and extended attributes, as GNU tar and `ingest -` read."""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from typing import IO, cast

from spraydry.actions.export.sparse import Sparse
from spraydry.actions.export.target import Exported
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import CorruptData
from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK
from spraydry.format.posix_acl import ACCESS, DEFAULT, acl_text
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository
from spraydry.repository.xattrs import as_listed, xattrs_of

_TYPES = {
    FILE: tarfile.REGTYPE,
    DIRECTORY: tarfile.DIRTYPE,
    SYMLINK: tarfile.SYMTYPE,
    FIFO: tarfile.FIFOTYPE,
    CHARACTER: tarfile.CHRTYPE,
    BLOCK: tarfile.BLKTYPE,
}
# For `tar --acls`, which takes no notice of the attributes.
_ACLS = {ACCESS: "SCHILY.acl.access", DEFAULT: "SCHILY.acl.default"}


def write_tar(
    repository: Repository, found: Found, out: IO[bytes], progress: Report = unheard, *, holes: bool = True
) -> Exported:
    """Write what is found, and all below it, to a binary stream, which need not be seekable.

    A directory is `.`, and its entries stand in the stream without a leading folder; anything else has its own name.
    Hardlinks are kept, and holes (without `holes` they are zeros); sockets are left out: tar has none. Raises
    CorruptData and others where a file cannot be read: the stream is cut short then.
    """
    done = Exported()
    total = found.entry.totals
    firsts: dict[bytes, str] = {}  # of a hardlink group: the member in the stream that has the content
    counting = _Counting(out)
    # Not the library's own mode for streams: that adds every write to a buffer by copying both.
    with tarfile.TarFile(fileobj=cast(IO[bytes], counting), mode="w", format=tarfile.PAX_FORMAT) as archive:
        for each in repository.walk(found):
            done.entries += 1
            below = each.path[len(found.path) + 1 :] if found.path else each.path
            name = (below or b".") if found.entry.kind == DIRECTORY else os.path.basename(each.path)
            _add(repository, archive, each, os.fsdecode(name), firsts, done, holes)
            archive.members = []  # type: ignore[attr-defined]  # it keeps them all
            progress(Done("writing", done.files, done.size, total.files, total.size))
    done.written_bytes = counting.count
    return done


def _add(
    repository: Repository,
    archive: tarfile.TarFile,
    each: Found,
    name: str,
    firsts: dict[bytes, str],
    done: Exported,
    holes: bool,
) -> None:
    entry = each.entry
    if entry.kind not in _TYPES:
        done.left_out.append((each.path, "tar has no sockets"))
        return
    info = tarfile.TarInfo(name)
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.pax_headers = {"mtime": _seconds(entry.mtime_s, entry.mtime_ns)}
    for key, value in as_listed(xattrs_of(entry, repository.read_chunk)):
        info.pax_headers[f"SCHILY.xattr.{os.fsdecode(key)}"] = os.fsdecode(value)
        if key in _ACLS:
            with suppress(CorruptData):  # whatever it is, it stands above
                info.pax_headers[_ACLS[key]] = acl_text(value)
    if entry.kind == FILE:
        done.files += 1
        done.size += entry.size
    if entry.group is not None:
        first = firsts.setdefault(entry.group, name)
        if first != name:
            info.type, info.linkname = tarfile.LNKTYPE, first
            archive.addfile(info)
            return
    if entry.kind == SYMLINK:
        assert isinstance(entry.content, bytes)
        info.linkname = os.fsdecode(entry.content)
    elif isinstance(entry.content, int):
        info.devmajor, info.devminor = entry.content >> 32, entry.content & 0xFFFFFFFF
    if holes and (sparse := Sparse.of(repository, entry, name)) is not None:
        info.name = f"GNUSparseFile.0/{done.files}"  # what who does not know of holes calls it
        info.size = sparse.size
        info.pax_headers = sparse.headers | info.pax_headers
        archive.addfile(info, cast(IO[bytes], sparse))
    elif entry.kind == FILE and entry.size:
        info.size = entry.size
        with repository.open_file(each, ahead=True) as file:
            archive.addfile(info, file)
    else:
        archive.addfile(info)


def _seconds(seconds: int, nanoseconds: int) -> str:
    """A time as pax has it: a decimal fraction of seconds, counted towards zero where it is before 1970."""
    whole = seconds * 1_000_000_000 + nanoseconds
    sign = "-" if whole < 0 else ""
    return f"{sign}{abs(whole) // 1_000_000_000}.{abs(whole) % 1_000_000_000:09}"


class _Counting:
    """A stream that counts what is written to it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.count = 0

    def tell(self) -> int:
        return self.count

    def write(self, plain: bytes) -> int:
        self._out.write(plain)
        self.count += len(plain)
        return len(plain)
