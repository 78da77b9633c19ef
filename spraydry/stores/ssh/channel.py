"""SFTP, version 3 with OpenSSH's extensions, over one SSH channel: many requests under way at once."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

# What may be sent or asked for at a time: every server takes 32 KiB, OpenSSH says that it takes more.
PIECE_BYTES = 32 << 10
_LARGE_PIECE_BYTES = 255 << 10
_UNDER_WAY = 1000  # the window of the channel says how many bytes may be
_SEND_BYTES = 32 << 10  # what one SSH packet holds
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
    """Eleven numbers about the file system; of them, 1 is the size of a block, 4 those free for users."""
    return Request(_EXTENDED, _string(b"statvfs@openssh.com") + _string(path))


class SftpChannel:
    """One SFTP session. Blocks; one thread at a time may use it.

    What the channel raises gets out (EOFError, OSError, paramiko's exceptions), and Garbled. `in_step` is False after
    that, and whenever replies are outstanding: it must be closed then.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel  # a paramiko.Channel
        self._held = memoryview(b"")  # received, not yet used
        self._sending: list[bytes] = []
        self._sending_bytes = 0
        self._number = 0
        self._early: dict[int, Reply] = {}
        self._unwanted: set[int] = set()
        self.in_step = False
        self.extensions = self._greet()
        self.piece_bytes = _LARGE_PIECE_BYTES if b"limits@openssh.com" in self.extensions else PIECE_BYTES
        self.in_step = True

    def _greet(self) -> frozenset[bytes]:
        self._channel.sendall(struct.pack(">IBI", 5, _INIT, 3))
        kind, body = self._packet()
        if kind != _VERSION:
            raise Garbled("it does not greet")
        at, names = 4, set()
        while at < len(body):
            name, at = _string_at(body, at)
            _, at = _string_at(body, at)
            names.add(bytes(name))
        return frozenset(names)

    @property
    def usable(self) -> bool:
        """Whether it may be used again."""
        return self.in_step and not self._channel.closed and self._channel.get_transport().is_active()

    def ask(self, requests: Iterable[Request]) -> list[Reply]:
        """The replies to requests, in their order; up to 1000 are under way at once."""
        replies: list[Reply] = []
        waiting: deque[int] = deque()
        self.in_step = False
        for request in requests:
            self._send(request)
            waiting.append(self._number)
            if len(waiting) >= _UNDER_WAY:
                replies.append(self._reply_to(waiting.popleft()))
        while waiting:
            replies.append(self._reply_to(waiting.popleft()))
        self.in_step = True
        return replies

    def tell(self, requests: Iterable[Request]) -> None:
        """Requests whose replies nobody waits for; they are sent with what is asked next."""
        for request in requests:
            self._send(request)
            self._unwanted.add(self._number)

    def close(self) -> None:
        """End the session."""
        with suppress(EOFError, OSError):  # that it was lost already is no news
            self._channel.close()

    def _send(self, request: Request) -> None:
        self._number = (self._number + 1) & 0xFFFFFFFF
        packet = struct.pack(">IBI", len(request.body) + 5, request.kind, self._number) + request.body
        self._sending.append(packet)
        self._sending_bytes += len(packet)
        if self._sending_bytes >= _SEND_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._sending:
            packets = memoryview(b"".join(self._sending))
            self._sending, self._sending_bytes = [], 0
            while packets:
                sent = self._channel.send(packets[:_SEND_BYTES])
                if not sent:
                    raise EOFError("the channel was closed")
                packets = packets[sent:]

    def _reply_to(self, number: int) -> Reply:
        while number not in self._early:
            self._flush()
            kind, body = self._packet()
            (to,) = _unpack(">I", body)
            if to in self._unwanted:
                self._unwanted.remove(to)
                continue
            self._early[to] = Reply(kind, body[4:])
            if len(self._early) > _UNDER_WAY:
                raise Garbled("it answers what was not asked")
        return self._early.pop(number)

    def _packet(self) -> tuple[int, memoryview]:
        length, kind = _unpack(">IB", self._receive(5))
        if not 5 <= length <= _MAX_PACKET_BYTES:
            raise Garbled(f"a packet of {length} bytes")
        return kind, self._receive(length - 1)

    def _receive(self, count: int) -> memoryview:
        if len(self._held) < count:
            parts, held = [self._held], len(self._held)
            while held < count:
                part = self._channel.recv(1 << 24)  # all there is: what is left lying is moved at every call
                if not part:
                    raise EOFError("the channel was closed")
                parts.append(part)
                held += len(part)
            self._held = memoryview(b"".join(parts))
        received, self._held = self._held[:count], self._held[count:]
        return received


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
