"""SFTP, version 3 with OpenSSH's extensions: what the packets of requests and replies look like."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER_BYTES = 5  # the length of what follows, and the kind
_MAX_PACKET_BYTES = 1 << 20

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = range(5)
UNSUPPORTED = 8
READ, WRITE, CREATE, EXCLUSIVE = 0x01, 0x02, 0x08, 0x20

_INIT, _VERSION = 1, 2
_OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT = 3, 4, 5, 6, 7, 8
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _STAT, _RENAME = 11, 12, 13, 14, 15, 17, 18
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_EXTENDED, _EXTENDED_REPLY = 200, 201
_SIZE, _OWNER, _PERMISSIONS, _TIMES, _MORE = 1, 2, 4, 8, 1 << 31


class Attributes(NamedTuple):
    """Of a file: size in bytes, kind and permissions, when it was changed; 0 for what the server does not say."""

    size: int
    mode: int
    mtime_s: int


class Request(NamedTuple):
    """What the server is asked: the kind of packet, and what follows the number of the request."""

    kind: int
    body: bytes


class Garbled(Exception):
    """The server's bytes are not SFTP."""


class Reply:
    """What the server answered. The methods raise Garbled where it is not what the request asks for."""

    def __init__(self, kind: int, body: memoryview) -> None:
        self.kind = kind
        self._body = body

    @property
    def status(self) -> int:
        """OK unless it is a status that says otherwise."""
        return int(_unpack(">I", self._body)[0]) if self.kind == _STATUS else OK

    @property
    def text(self) -> str:
        """What a status says in words, for people; one line."""
        if self.kind != _STATUS or len(self._body) < 8:
            return ""
        return " ".join(str(_string_at(self._body, 4)[0], "utf-8", "replace").split())[:200]

    def handle(self) -> bytes:
        """Of an opened file or folder."""
        return bytes(_string_at(self._expect(_HANDLE), 0)[0])

    def content(self) -> memoryview:
        """The bytes that were read."""
        return _string_at(self._expect(_DATA), 0)[0]

    def attributes(self) -> Attributes:
        """Of what was asked about."""
        return _attributes_at(self._expect(_ATTRS), 0)[0]

    def entries(self) -> Iterator[tuple[bytes, Attributes]]:
        """A part of a folder."""
        body = self._expect(_NAME)
        (count,) = _unpack(">I", body)
        at = 4
        for _ in range(count):
            name, at = _string_at(body, at)
            _, at = _string_at(body, at)
            attributes, at = _attributes_at(body, at)
            yield bytes(name), attributes

    def numbers(self) -> tuple[int, ...]:
        """The 64-bit numbers of which an extension's reply consists."""
        body = self._expect(_EXTENDED_REPLY)
        return _unpack(f">{len(body) // 8}Q", body)

    def _expect(self, kind: int) -> memoryview:
        if self.kind != kind:
            raise Garbled(f"a reply of kind {self.kind} instead of {kind}")
        return self._body


def open_file(path: bytes, flags: int) -> Request:
    """Open a file, made with mode 0600; for READ also a folder, where the server is OpenSSH's."""
    return Request(_OPEN, _string(path) + struct.pack(">III", flags, _PERMISSIONS, 0o600))


def close(handle: bytes) -> Request:
    """Close a file or folder."""
    return Request(_CLOSE, _string(handle))


def closes(request: Request) -> bytes | None:
    """The handle a request closes; None where it closes none."""
    return request.body[4:] if request.kind == _CLOSE else None


def read(handle: bytes, start: int, length: int) -> Request:
    """Bytes of a file."""
    return Request(_READ, _string(handle) + struct.pack(">QI", start, length))


def write(handle: bytes, start: int, piece: memoryview) -> Request:
    """Bytes into a file."""
    return Request(_WRITE, b"".join((_string(handle), struct.pack(">QI", start, len(piece)), piece)))


def lstat(path: bytes) -> Request:
    """The attributes of what has that name."""
    return Request(_LSTAT, _string(path))


def stat(path: bytes) -> Request:
    """The attributes of the file or folder, behind a symbolic link if it is one."""
    return Request(_STAT, _string(path))


def fstat(handle: bytes) -> Request:
    """The attributes of an open file."""
    return Request(_FSTAT, _string(handle))


def open_folder(path: bytes) -> Request:
    """Open a folder to read what is in it."""
    return Request(_OPENDIR, _string(path))


def read_folder(handle: bytes) -> Request:
    """The next entries of a folder; EOF behind the last."""
    return Request(_READDIR, _string(handle))


def make_folder(path: bytes) -> Request:
    """Make a folder of mode 0700."""
    return Request(_MKDIR, _string(path) + struct.pack(">II", _PERMISSIONS, 0o700))


def remove(path: bytes) -> Request:
    """Remove a file."""
    return Request(_REMOVE, _string(path))


def remove_folder(path: bytes) -> Request:
    """Remove an empty folder."""
    return Request(_RMDIR, _string(path))


def rename(path: bytes, to: bytes) -> Request:
    """Rename a file; by the protocol it must fail where the new name is taken."""
    return Request(_RENAME, _string(path) + _string(to))


def posix_rename(path: bytes, to: bytes) -> Request:
    """Rename a file, replacing what has the new name."""
    return Request(_EXTENDED, _string(b"posix-rename@openssh.com") + _string(path) + _string(to))


def hard_link(path: bytes, to: bytes) -> Request:
    """Give a file a second name, which must not be taken."""
    return Request(_EXTENDED, _string(b"hardlink@openssh.com") + _string(path) + _string(to))


def fsync(handle: bytes) -> Request:
    """Make a file or folder durable."""
    return Request(_EXTENDED, _string(b"fsync@openssh.com") + _string(handle))


def statvfs(path: bytes) -> Request:
    """Eleven numbers about the file system; of them, 1 is the size of a block, 4 those free for users, 9 flags."""
    return Request(_EXTENDED, _string(b"statvfs@openssh.com") + _string(path))


def greeting() -> bytes:
    """What a client says first."""
    return struct.pack(">IBI", 5, _INIT, 3)


def extensions(kind: int, body: memoryview) -> frozenset[bytes]:
    """What the server can beyond the protocol, by its answer to the greeting. Raises Garbled."""
    if kind != _VERSION:
        raise Garbled("it does not greet")
    at, names = 4, set()
    while at < len(body):
        name, at = _string_at(body, at)
        _, at = _string_at(body, at)
        names.add(bytes(name))
    return frozenset(names)


def packet(number: int, request: Request) -> bytes:
    """A request, by whose number its reply is known."""
    return struct.pack(">IBI", len(request.body) + 5, request.kind, number) + request.body


def header(received: memoryview) -> tuple[int, int]:
    """Of a packet from the server: how many bytes follow the header, and its kind. Raises Garbled."""
    length, kind = _unpack(">IB", received)
    if not 5 <= length <= _MAX_PACKET_BYTES:
        raise Garbled(f"a packet of {length} bytes")
    return length - 1, kind


def numbered(kind: int, body: memoryview) -> tuple[int, Reply]:
    """A reply, and the number of what it is a reply to. Raises Garbled."""
    (number,) = _unpack(">I", body)
    return number, Reply(kind, body[4:])


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _unpack(form: str, body: memoryview) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, body)
    except struct.error:
        raise Garbled("a packet that is too short") from None


def _string_at(body: memoryview, at: int) -> tuple[memoryview, int]:
    (length,) = _unpack(">I", body[at:])
    end = at + 4 + length
    if end > len(body):
        raise Garbled("a packet that is too short")
    return body[at + 4 : end], end


def _attributes_at(body: memoryview, at: int) -> tuple[Attributes, int]:
    (flags,) = _unpack(">I", body[at:])
    at += 4
    size = mode = mtime_s = 0
    if flags & _SIZE:
        (size,) = _unpack(">Q", body[at:])
        at += 8
    if flags & _OWNER:
        at += 8
    if flags & _PERMISSIONS:
        (mode,) = _unpack(">I", body[at:])
        at += 4
    if flags & _TIMES:
        _, mtime_s = _unpack(">II", body[at:])
        at += 8
    if flags & _MORE:
        (count,) = _unpack(">I", body[at:])
        at += 4
        for _ in range(2 * count):
            _, at = _string_at(body, at)
    return Attributes(size, mode, mtime_s), at
