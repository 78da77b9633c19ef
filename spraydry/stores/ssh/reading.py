"""Reading files of a server: one in a round trip where that can be, many in two."""

from __future__ import annotations

import stat as modes
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from spraydry.errors import CorruptData, StoreUnavailable
from spraydry.stores.ssh import protocol as sftp
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.folder import RemoteFolder
from spraydry.stores.ssh.protocol import Reply

MAX_VALUE_BYTES = 1 << 30
_ATTEMPTS = 20
_FORESEEN_BYTES = 5 * (255 << 10)  # more than nearly all frames have


class _Reading(NamedTuple):
    """A file being read: its handle, the size it had, and the pieces wanted: where each begins, and its length."""

    path: bytes
    handle: bytes
    size: int
    pieces: list[tuple[int, int]]

    def requests(self) -> Iterator[sftp.Request]:
        """What to ask for: whether the open file is the one that was looked at, and its bytes."""
        yield sftp.fstat(self.handle)
        yield from (sftp.read(self.handle, at, length) for at, length in self.pieces)


def read_file(
    folder: RemoteFolder, channel: SftpChannel, path: bytes, start: int = 0, length: int | None = None
) -> bytes | None:
    """`length` bytes of a file from `start` (below 0: from the end); None for what is not there.

    In one round trip, where the server gives the file the handle that is foreseen: what asks for its bytes is sent
    together with what opens it. No file is open before, so that bytes of another can never come instead.
    """
    handle = channel.next_handle
    if handle is not None and start >= 0 and (length is None or length <= _FORESEEN_BYTES):
        pieces = _pieces(channel, start, start + (_FORESEEN_BYTES if length is None else length))
        reading = _Reading(path, handle, 0, pieces)
        opened, found, *read, _ = channel.ask(
            [sftp.open_file(path, sftp.READ), *reading.requests(), sftp.close(handle)]
        )
        if opened.status == sftp.NO_SUCH_FILE:
            return None
        folder.check(channel, [opened])
        if opened.handle() != handle:
            channel.tell([sftp.close(opened.handle())])
            channel.foresees = False
        elif (value := _foreseen(found, read, pieces, start, length)) is not None:
            return value
    (value,) = read_files(folder, channel, [path], start, length)
    return value


def _foreseen(
    found: Reply, read: Sequence[Reply], pieces: Sequence[tuple[int, int]], start: int, length: int | None
) -> bytes | None:
    """What was read of a file that turns out to have `found`'s size; None if that is not all that was wanted."""
    if found.status != sftp.OK or not modes.S_ISREG(found.attributes().mode):
        return None
    size = found.attributes().size
    end = size if length is None else min(start + length, size)
    if end > start + _FORESEEN_BYTES:
        return None
    parts = []
    for (at, piece_bytes), reply in zip(pieces, read, strict=True):
        wanted = min(piece_bytes, end - at)
        if wanted > 0:
            if reply.status != sftp.OK or len(reply.content()) != wanted:
                return None
            parts.append(reply.content())
    return b"".join(parts)


def read_files(
    folder: RemoteFolder, channel: SftpChannel, paths: Sequence[bytes], start: int = 0, length: int | None = None
) -> list[bytes | None]:
    """The values of files, in two round trips: one to open them, one to read; None for what is not there.

    What is replaced between its opening and its looking at is read again: the size is another file's then.
    """
    values: dict[bytes, bytes | None] = {}
    for _ in range(_ATTEMPTS):
        values |= _read_once(folder, channel, [path for path in paths if path not in values], start, length)
        if len(values) == len(set(paths)):
            return [values[path] for path in paths]
    changing = next(path for path in paths if path not in values)
    raise StoreUnavailable(f"{folder.url}: {folder.show(changing)} changed each time it was read; try again")


def _read_once(
    folder: RemoteFolder, channel: SftpChannel, paths: Sequence[bytes], start: int, length: int | None
) -> dict[bytes, bytes | None]:
    """What `read_files` gives, by path, without the files that were replaced meanwhile."""
    asked = channel.ask(request for path in paths for request in (sftp.open_file(path, sftp.READ), sftp.stat(path)))
    closes = [sftp.close(reply.handle()) for reply in asked[::2] if reply.status == sftp.OK]
    try:
        plan = [
            _plan(folder, channel, path, opened, found, start, length)
            for path, opened, found in zip(paths, asked[::2], asked[1::2], strict=True)
        ]
    except BaseException:
        channel.tell(closes)
        raise
    wanted = (request for reading in plan if reading for request in reading.requests())
    replies = iter(channel.ask(chain(wanted, closes)))
    values: dict[bytes, bytes | None] = {}
    for path, reading in zip(paths, plan, strict=True):
        if reading is None:
            values[path] = None
        elif (value := _whole(folder, channel, reading, replies)) is not None:
            values[path] = value
    return values


def _plan(
    folder: RemoteFolder,
    channel: SftpChannel,
    path: bytes,
    opened: Reply,
    found: Reply,
    start: int,
    length: int | None,
) -> _Reading | None:
    if sftp.NO_SUCH_FILE in (opened.status, found.status):
        return None
    folder.check(channel, [opened, found])
    size, mode, _ = found.attributes()
    if not modes.S_ISREG(mode):
        return None
    if size > MAX_VALUE_BYTES:
        raise CorruptData(f"{folder.url} is damaged: {folder.show(path)} has {size} bytes")
    first = min(max(start + size, 0) if start < 0 else start, size)
    end = size if length is None else min(first + length, size)
    return _Reading(path, opened.handle(), size, _pieces(channel, first, end))


def _pieces(channel: SftpChannel, first: int, end: int) -> list[tuple[int, int]]:
    step = channel.piece_bytes
    return [(at, min(step, end - at)) for at in range(first, end, step)]


def _whole(folder: RemoteFolder, channel: SftpChannel, reading: _Reading, replies: Iterator[Reply]) -> bytes | None:
    """The bytes of a file; None if it is not the one whose size was asked for."""
    found, *read = islice(replies, 1 + len(reading.pieces))
    folder.check(channel, [found])
    if found.attributes().size != reading.size:
        return None
    folder.check(channel, read)
    parts = [reply.content() for reply in read]
    if [len(part) for part in parts] != [length for _, length in reading.pieces]:
        raise CorruptData(f"{folder.url}: of {folder.show(reading.path)} the server gives less than there is")
    return b"".join(parts)
