"""Writing files of a server: to durable temporary files first, many at a time, which then get their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from spraydry.stores.ssh import protocol as sftp
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.folder import RemoteFolder
from spraydry.stores.ssh.protocol import Reply

# Written together, in three round trips; several such groups are under way at once. OpenSSH takes no more than 2 MiB
# through a channel in a round trip.
_GROUP_BYTES, _GROUP_PARTS = 2 << 20, 64


class Part(NamedTuple):
    """A value being written: its temporary file, the final one, and the bytes."""

    temporary: bytes
    path: bytes
    value: memoryview


def rounds(parts: Iterable[Part]) -> Iterator[Iterator[list[Part]]]:
    """Parts in groups to be written together, the groups in rounds of which each is to be used up, and what it gave
    written, before the next is asked for: a name that comes again waits for those before it."""
    left = iter(parts)
    again: list[Part] = []

    def groups() -> Iterator[list[Part]]:
        group: list[Part] = []
        size = 0
        seen = set()
        for part in chain(again, left):
            if part.path in seen:
                again[:] = [part]
                break
            seen.add(part.path)
            group.append(part)
            size += len(part.value)
            if size >= _GROUP_BYTES or len(group) >= _GROUP_PARTS:
                yield group
                group, size = [], 0
        else:
            again.clear()
        if group:
            yield group

    yield groups()
    while again:
        yield groups()


def put(folder: RemoteFolder, channel: SftpChannel, group: Sequence[Part]) -> None:
    """Write files, replacing those of the same names."""
    folders = _write(folder, channel, group)
    renames = [sftp.posix_rename(part.temporary, part.path) for part in group]
    named = channel.ask([*renames, *syncs(channel, folders), *map(sftp.close, folders)])
    _succeed(folder, channel, group, named[: len(named) - len(folders)])


def create(folder: RemoteFolder, channel: SftpChannel, part: Part) -> bool:
    """Write a file unless the name is taken; False if it is."""
    folders = _write(folder, channel, [part])
    link = sftp.hard_link if b"hardlink@openssh.com" in channel.extensions else sftp.rename
    steps = [link(part.temporary, part.path), sftp.lstat(part.path), sftp.remove(part.temporary)]
    synced = syncs(channel, folders)
    linked, found, _, *rest = channel.ask([*steps, *synced, *map(sftp.close, folders)])
    taken = linked.status != sftp.OK and found.status == sftp.OK
    _succeed(folder, channel, [part], [*([] if taken else [linked]), *rest[: len(synced)]])
    return not taken


def move(folder: RemoteFolder, channel: SftpChannel, path: bytes, to: bytes) -> bool:
    """Rename a file, replacing what has the new name; False if there is none."""
    makes, looks = _enter_folders(folder, [to])
    replies = channel.ask([*makes, *looks, sftp.open_file(path.rpartition(b"/")[0], sftp.READ)])
    folders = handles(replies[len(makes) :])
    synced = syncs(channel, folders)
    moved, *rest = channel.ask([sftp.posix_rename(path, to), *synced, *map(sftp.close, folders)])
    if moved.status == sftp.NO_SUCH_FILE:
        return False
    folder.check(channel, [moved, *rest[: len(synced)]])
    return True


def remove(folder: RemoteFolder, channel: SftpChannel, paths: Sequence[bytes]) -> None:
    """Remove files; those that are not there are passed over."""
    above = sorted({path.rpartition(b"/")[0] for path in paths})
    replies = channel.ask([*map(sftp.remove, paths), *(sftp.open_file(path, sftp.READ) for path in above)])
    folders = handles(replies[len(paths) :])
    synced = syncs(channel, folders)
    rest = channel.ask([*synced, *map(sftp.close, folders)])
    removed = [reply for reply in replies[: len(paths)] if reply.status != sftp.NO_SUCH_FILE]
    folder.check(channel, [*removed, *rest[: len(synced)]])


def _write(folder: RemoteFolder, channel: SftpChannel, group: Sequence[Part]) -> list[bytes]:
    """Durable temporary files; the handles of the folders into which they will go, where the server opens them."""
    makes, looks = _enter_folders(folder, [part.path for part in group])
    temporaries = [sftp.open_file(part.temporary, sftp.WRITE | sftp.CREATE | sftp.EXCLUSIVE) for part in group]
    replies = channel.ask([*makes, *looks, *temporaries])
    folders = handles(replies[len(makes) : -len(group)])
    files = replies[-len(group) :]
    try:
        _succeed(folder, channel, group, files)
        written = channel.ask(
            request
            for part, reply in zip(group, files, strict=True)
            for request in _writes(channel, reply.handle(), part.value)
        )
        _succeed(folder, channel, group, written)
    except BaseException:
        channel.tell(map(sftp.close, folders))
        raise
    return folders


def _enter_folders(folder: RemoteFolder, files: Iterable[bytes]) -> tuple[list[sftp.Request], list[sftp.Request]]:
    """What makes the folders of files, unless they are there, and what opens them and those above, to sync them."""
    paths = {path.rpartition(b"/")[0] for path in files}
    paths |= {path.rpartition(b"/")[0] for path in paths}
    order = sorted(path for path in paths if len(path) > len(folder.path))
    return [*map(sftp.make_folder, order)], [sftp.open_file(path, sftp.READ) for path in [folder.path, *order]]


def _writes(channel: SftpChannel, handle: bytes, value: memoryview) -> Iterator[sftp.Request]:
    for at in range(0, len(value), channel.piece_bytes):
        yield sftp.write(handle, at, value[at : at + channel.piece_bytes])
    yield from syncs(channel, [handle])
    yield sftp.close(handle)


def syncs(channel: SftpChannel, handles: Sequence[bytes]) -> list[sftp.Request]:
    """What makes open files or folders durable, where the server can."""
    return [sftp.fsync(handle) for handle in handles] if b"fsync@openssh.com" in channel.extensions else []


def handles(replies: Iterable[Reply]) -> list[bytes]:
    """Of the files that could be opened."""
    return [reply.handle() for reply in replies if reply.status == sftp.OK]


def _succeed(folder: RemoteFolder, channel: SftpChannel, group: Sequence[Part], replies: Iterable[Reply]) -> None:
    """Raises for the first reply that tells a failure, and removes the temporary files."""
    for reply in replies:
        if reply.status != sftp.OK:
            error = folder.failure(channel, reply)  # while the disk is as full as it was
            channel.ask(sftp.remove(part.temporary) for part in group)
            raise error
