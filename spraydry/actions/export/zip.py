"""A zip stream of a version: for those who have no tar; modes, symlinks and times are in it, hardlinks are files."""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import time
import zipfile
from collections.abc import Iterator
from typing import IO, cast

import msgspec

from spraydry.actions.export.target import Exported
from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.classes import class_of
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Entry
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository

_LEVEL = 3
_READ_BYTES = 1 << 20
_SPOOLED_BYTES = 1 << 20
_FIRST, _LAST = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # the times zip knows
_TYPES = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
_MSDOS_DIRECTORY = 0x10
_UTF8_NAME = 0x800
_TIME_ID, _TIME_FLAGS = 0x5455, 1  # the extended timestamp: only the time of the last change, in UTC


def write_zip(repository: Repository, found: Found, out: IO[bytes], progress: Report = unheard) -> Exported:
    """Write all that is below a directory to a binary stream, which need not be seekable: names as they are, what is
    packed already stored, all else deflated, with 64-bit sizes where they are needed.

    Fifos, sockets and devices are left out: zip has none. Raises CorruptData and others where a file cannot be read:
    the stream is cut short then. Memory does not grow with the number of entries: the directory at the end of the zip
    is kept in a temporary file until then.
    """
    done, total = Exported(), found.entry.totals
    gate = _Gate(out)
    archive = zipfile.ZipFile(cast(IO[bytes], gate), "w", zipfile.ZIP_DEFLATED, True, _LEVEL)
    with _Members() as members:
        archive.filelist = members  # type: ignore[assignment]
        archive.NameToInfo = _Nothing()
        try:
            for each in repository.walk(found):
                if each is found:
                    continue
                done.entries += 1
                _add(repository, archive, each, each.path[len(found.path) + 1 :] if found.path else each.path, done)
                progress(Done("writing", done.files, done.size, total.files, total.size))
            archive.close()
        except BaseException:
            gate.out = None  # whatever is closed from now on writes its end nowhere
            archive.close()
            raise
    done.written_bytes = gate.count
    return done


def _add(repository: Repository, archive: zipfile.ZipFile, each: Found, name: bytes, done: Exported) -> None:
    entry = each.entry
    if entry.kind not in _TYPES:
        done.left_out.append((each.path, "zip has no such files"))
        return
    member = _Member(name + b"/" if entry.kind == DIRECTORY else name, entry)
    if entry.kind == DIRECTORY:
        member.CRC = member.compress_size = 0
        archive.mkdir(member)
        return
    if entry.kind == FILE and class_of(name.rpartition(b"/")[2]) != "packed":
        member.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(member, "w") as into:
        if entry.kind == SYMLINK:
            assert isinstance(entry.content, bytes)
            into.write(entry.content)
            return
        done.files += 1
        done.size += entry.size
        with repository.open_file(each, ahead=True) as file:
            while plain := file.read1(_READ_BYTES):
                into.write(plain)


class _Member(zipfile.ZipInfo):
    """A member whose name is bytes: marked as UTF-8 where it is that, otherwise left as it is."""

    def __init__(self, name: bytes, entry: Entry) -> None:
        super().__init__(os.fsdecode(name), _moment(entry.mtime_s))
        self.create_system = 3  # Unix: modes and symlinks are looked at
        self.file_size = entry.size
        self.external_attr = (_TYPES[entry.kind] | entry.mode) << 16
        if entry.kind == DIRECTORY:
            self.external_attr |= _MSDOS_DIRECTORY
        if -(1 << 31) <= entry.mtime_s < 1 << 31:
            self.extra = struct.pack("<HHBl", _TIME_ID, 5, _TIME_FLAGS, entry.mtime_s)

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        name = os.fsencode(self.filename)
        try:
            name.decode()
        except UnicodeDecodeError:
            return name, self.flag_bits
        return name, self.flag_bits | (0 if name.isascii() else _UTF8_NAME)


def _moment(seconds: int) -> tuple[int, int, int, int, int, int]:
    try:
        parts = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return _FIRST if seconds < 0 else _LAST
    return max(_FIRST, min((*parts[:5], min(parts[5], 59)), _LAST))


class _Kept(msgspec.Struct, array_like=True):
    """What the end of the zip says of a member."""

    filename: bytes
    date_time: tuple[int, int, int, int, int, int]
    compress_type: int
    create_version: int
    extract_version: int
    flag_bits: int
    external_attr: int
    header_offset: int
    CRC: int
    compress_size: int
    file_size: int
    extra: bytes


class _Members:
    """In the place of the list that the library keeps of all members: appended to, and gone through once, at the
    end."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115
        self._count = 0

    def __enter__(self) -> _Members:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, member: zipfile.ZipInfo) -> None:
        fields = {name: getattr(member, name) for name in _Kept.__struct_fields__}
        told = msgspec.msgpack.encode(_Kept(**fields | {"filename": os.fsencode(member.filename)}))
        self._file.write(len(told).to_bytes(4, "big") + told)
        self._count += 1

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        self._file.seek(0)
        decoder = msgspec.msgpack.Decoder(_Kept)
        while length := self._file.read(4):
            kept = decoder.decode(self._file.read(int.from_bytes(length, "big")))
            member = _Member.__new__(_Member)
            zipfile.ZipInfo.__init__(member, os.fsdecode(kept.filename), kept.date_time)
            member.create_system = 3
            for name in _Kept.__struct_fields__[2:]:
                setattr(member, name, getattr(kept, name))
            yield member


class _Nothing(dict[str, zipfile.ZipInfo]):
    """In the place of the index by name, for which a tree, whose names are there once each, has no use."""

    def __setitem__(self, name: str, member: zipfile.ZipInfo) -> None:
        pass


class _Gate:
    """The stream as the library sees it: it cannot seek, and is shut after an error."""

    def __init__(self, out: IO[bytes]) -> None:
        self.out: IO[bytes] | None = out
        self.count = 0

    def write(self, plain: bytes) -> int:
        if self.out is not None:
            self.out.write(plain)
            self.count += len(plain)
        return len(plain)

    def flush(self) -> None:
        pass
