"""A store in a folder of any SSH account: `sftp://[USER@]HOST[:PORT]/PATH`. Layout: FORMAT.md §8."""

from __future__ import annotations

import builtins
import re
import secrets
import stat as modes
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from spraydry.errors import (
    CorruptData,
    NotARepository,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.parallel import ordered_map
from spraydry.stores.base import (
    NAMESPACES,
    Stat,
    Store,
    Stored,
    Traits,
    check_key,
    check_namespace,
    check_range,
    is_key,
)
from spraydry.stores.shared import layout as layouts
from spraydry.stores.shared.nesting import is_nest, letters, nested
from spraydry.stores.ssh import channel as sftp
from spraydry.stores.ssh.channel import Reply, SftpChannel
from spraydry.stores.ssh.connection import CHANNELS, Channels, find_host

MAX_VALUE_BYTES = 1 << 30
_NESTED = ("frames", "frames~")  # the only ones that get many values
_PLACES = tuple(sorted([*NAMESPACES, *(namespace + "~" for namespace in NAMESPACES)]))
_TEMPORARY = "tmp"
_DEPTHS = {"frames": 1}  # of nesting, as in the layout of a `dir:` store
_LEFT_BEHIND_S = 86_400  # a temporary file as old as that is no longer being written
# Read or written together, in two or three round trips; several such groups are under way at once, because OpenSSH
# takes no more than 2 MiB in a round trip.
_WRITE_BYTES, _READ_BYTES, _GROUP_VALUES = 1 << 20, 2 << 20, 64
_GROUP_NAMES = 1000
_GROUP_FOLDERS, _MOST_FOLDERS, _GROUP_ENTRIES = 8, 64, 32_000  # listed together
_READS_AHEAD = 2  # of a folder, then twice as many each time; OpenSSH gives a hundred names at a time
_MOST_READS_AHEAD = 32
_FULL_BYTES = 64 << 10

_URL = re.compile(
    r"(?:(?P<user>[^@/:]+)(?P<password>:[^@/]*)?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?(?P<path>/.*)"
)


class _Part(NamedTuple):
    """A value being written: its temporary file, the final one, and the bytes."""

    temporary: bytes
    path: bytes
    value: memoryview


class _Reading(NamedTuple):
    """A file being read: its handle, the size it had, and the pieces wanted: where each begins, and its length."""

    path: bytes
    handle: bytes
    size: int
    pieces: builtins.list[tuple[int, int]]

    def requests(self) -> Iterator[sftp.Request]:
        """What to ask for: whether the open file is the one that was looked at, and its bytes."""
        yield sftp.fstat(self.handle)
        yield from (sftp.read(self.handle, at, length) for at, length in self.pieces)


class SftpStore(Store):
    """Values as files below one folder. Blocks, at most a minute without an answer; threads may share it, up to eight
    are served at a time. It must not be carried over a fork.

    A value is written to a temporary file, made durable where the server has fsync@openssh.com (without it, as durable
    as the server's file system makes renamed files) and renamed. Servers need posix-rename@openssh.com to be written
    to; without hardlink@openssh.com, `create` relies on the plain rename to refuse a name that is taken.
    """

    def __init__(self, channels: Channels, folder: bytes, url: str, *, create: bool, read_only: bool) -> None:
        self.read_only = read_only
        self._channels = channels
        self._folder = folder
        self._url = url
        self._token = secrets.token_hex(8)
        self._numbers = count()
        self._tidied = threading.Lock()
        channels.reading(lambda channel: self._enter(channel, create))

    def _enter(self, channel: SftpChannel, create: bool) -> None:
        began_s = time.monotonic()
        (found,) = channel.ask([sftp.stat(self._folder)])
        round_trip_s = time.monotonic() - began_s
        self.traits = Traits(CHANNELS, round_trip_s, b"hardlink@openssh.com" in channel.extensions)
        if not self.read_only and b"posix-rename@openssh.com" not in channel.extensions:
            raise StoreReadOnly(f"{self._url} can only be read: its server has no posix-rename@openssh.com")
        if found.status == sftp.NO_SUCH_FILE:
            if not create or self.read_only:
                raise StoreNotFound(f"there is no repository at {self._url}")
            parts = self._folder.split(b"/")
            channel.ask(sftp.make_folder(b"/".join(parts[:end])) for end in range(1, len(parts) + 1) if parts[end - 1])
            (found,) = channel.ask([sftp.stat(self._folder)])
        self._check(channel, found)
        if not modes.S_ISDIR(found.attributes().mode):
            raise NotARepository(f"{self._url} is not a folder")
        (layout,) = self._read(channel, [self._path(layouts.NAME)])
        if (
            layout is not None and layouts.decode_depths(layout, self._url) != _DEPTHS
        ):  # a `dir:` store, nested in another way
            raise StoreError(
                f"{self._url} nests values as sftp: cannot: write `frames 1`, and nothing else, into its layout"
            )
        if not self.read_only:
            channel.ask([sftp.make_folder(self._path(_TEMPORARY))])

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        paths = [self._file(namespace, name)]
        (value,) = self._channels.reading(lambda channel: self._read(channel, paths, start, length))
        if value is None:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        return value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """In groups of about 2 MiB, as far as can be told from those before."""
        at = iter(names)
        typical_bytes = _READ_BYTES

        def groups() -> Iterator[builtins.list[str]]:
            while group := builtins.list(islice(at, max(1, min(_GROUP_VALUES, _READ_BYTES // typical_bytes)))):
                for name in group:
                    check_key(namespace, name)
                yield group

        def values(group: builtins.list[str]) -> builtins.list[tuple[str, bytes | None]]:
            paths = [self._file(namespace, name) for name in group]
            found = self._channels.reading(lambda channel: self._read(channel, paths))
            return builtins.list(zip(group, found, strict=True))

        for found in ordered_map(values, groups(), CHANNELS):
            sizes = [len(value) for _, value in found if value is not None]
            if sizes:
                typical_bytes = max(1, max(sizes))
            yield from found

    def _read(
        self, channel: SftpChannel, paths: builtins.list[bytes], start: int = 0, length: int | None = None
    ) -> builtins.list[bytes | None]:
        """The values of files, in two round trips: one to open them, one to read; None for what is not there."""
        asked = channel.ask(request for path in paths for request in (sftp.open_file(path, sftp.READ), sftp.stat(path)))
        plan: builtins.list[_Reading | None] = []
        try:
            for path, opened, found in zip(paths, asked[::2], asked[1::2], strict=True):
                plan.append(self._plan(channel, path, opened, found, start, length))
            replies = iter(channel.ask(request for reading in plan if reading for request in reading.requests()))
        finally:
            channel.tell(sftp.close(reply.handle()) for reply in asked[::2] if reply.status == sftp.OK)
        return [None if reading is None else self._whole(channel, reading, replies) for reading in plan]

    def _plan(
        self, channel: SftpChannel, path: bytes, opened: Reply, found: Reply, start: int, length: int | None
    ) -> _Reading | None:
        if sftp.NO_SUCH_FILE in (opened.status, found.status):
            return None
        self._check(channel, opened)
        self._check(channel, found)
        size, mode, _ = found.attributes()
        if not modes.S_ISREG(mode):
            return None
        if size > MAX_VALUE_BYTES:
            raise CorruptData(f"{self._url} is damaged: {self._show(path)} has {size} bytes")
        first = min(max(start + size, 0) if start < 0 else start, size)
        end = size if length is None else min(first + length, size)
        step = channel.piece_bytes
        return _Reading(path, opened.handle(), size, [(at, min(step, end - at)) for at in range(first, end, step)])

    def _whole(self, channel: SftpChannel, reading: _Reading, replies: Iterator[Reply]) -> bytes:
        found, *read = islice(replies, 1 + len(reading.pieces))
        self._check(channel, found)
        if found.attributes().size != reading.size:
            raise StoreUnavailable(f"{self._url}: {self._show(reading.path)} changed while it was read; try again")
        for reply in read:
            self._check(channel, reply)
        parts = [reply.content() for reply in read]
        if [len(part) for part in parts] != [length for _, length in reading.pieces]:
            raise CorruptData(f"{self._url}: of {self._show(reading.path)} the server gives less than there is")
        return b"".join(parts)

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        (found,) = self._channels.reading(lambda channel: channel.ask([sftp.lstat(self._file(namespace, name))]))
        if found.status == sftp.NO_SUCH_FILE:
            return None
        if found.status != sftp.OK:
            raise self._error(found)
        attributes = found.attributes()
        return Stored(name, attributes.size) if modes.S_ISREG(attributes.mode) else None

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        """Nests are read whole, several at a time: that bounds memory."""
        check_namespace(namespace)
        folder = self._path(namespace)
        (entries,) = self._channels.reading(lambda channel: self._folders(channel, [folder]))
        beside = [stored for stored in self._values(namespace, "", entries) if stored.name > after]
        nests = sorted(name for name in map(_text, entries) if namespace in _NESTED and is_nest(name))
        nests = [nest for nest in nests if letters(nest) >= after[: len(letters(nest))]]
        at, together = iter(nests), _GROUP_FOLDERS
        while group := builtins.list(islice(at, together)):
            found = self._nests(namespace, group)
            together = max(1, min(_MOST_FOLDERS, _GROUP_ENTRIES // max(1, *map(len, found))))
            for nest, entries in zip(group, found, strict=True):
                while beside and beside[0].name < letters(nest):
                    yield beside.pop(0)
                yield from (stored for stored in self._values(namespace, nest, entries) if stored.name > after)
        yield from beside

    def _nests(self, namespace: str, nests: builtins.list[str]) -> builtins.list[dict[bytes, sftp.Attributes]]:
        paths = [self._path(namespace, nest) for nest in nests]
        return self._channels.reading(lambda channel: self._folders(channel, paths))

    def _values(self, namespace: str, nest: str, entries: dict[bytes, sftp.Attributes]) -> builtins.list[Stored]:
        """What lies in a folder, sorted; other things than values may lie there."""
        return sorted(
            Stored(name, attributes.size)
            for name, attributes in ((_text(raw), attributes) for raw, attributes in entries.items())
            if is_key(namespace, name) and modes.S_ISREG(attributes.mode) and self._nest(namespace, name) == nest
        )

    def _folders(
        self, channel: SftpChannel, paths: builtins.list[bytes]
    ) -> builtins.list[dict[bytes, sftp.Attributes]]:
        """What lies in each of several folders; nothing in one that is not there."""
        entries: builtins.list[dict[bytes, sftp.Attributes]] = [{} for _ in paths]
        opened = channel.ask(map(sftp.open_folder, paths))
        handles = {place: reply.handle() for place, reply in enumerate(opened) if reply.status == sftp.OK}
        reading = dict(handles)
        failed = [reply for reply in opened if reply.status not in (sftp.OK, sftp.NO_SUCH_FILE)]
        ahead = _READS_AHEAD
        while reading and not failed:
            asked = [place for place in reading for _ in range(ahead)]
            ahead = min(2 * ahead, _MOST_READS_AHEAD)
            for place, reply in zip(asked, channel.ask(sftp.read_folder(handles[at]) for at in asked), strict=True):
                if reply.status == sftp.OK:
                    entries[place].update(reply.entries())
                elif reply.status == sftp.EOF:
                    reading.pop(place, None)
                else:
                    failed.append(reply)
        channel.tell(map(sftp.close, handles.values()))
        if failed:
            raise self._error(failed[0])
        return entries

    def stat(self) -> Stat:
        values = held = 0
        for namespace in _PLACES:
            for stored in self.list(namespace):
                values, held = values + 1, held + stored.size
        free = self._channels.reading(self._free_bytes)
        return Stat(values, held, free)

    def _free_bytes(self, channel: SftpChannel) -> int | None:
        if b"statvfs@openssh.com" not in channel.extensions:
            return None
        (reply,) = channel.ask([sftp.statvfs(self._folder)])
        if reply.status != sftp.OK:
            return None
        numbers = reply.numbers()
        return numbers[1] * numbers[4] if len(numbers) >= 5 else None

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        parts = (self._part(namespace, name, value) for name, value in values)
        again: builtins.list[_Part] = []

        def groups() -> Iterator[builtins.list[_Part]]:
            """Until a name comes again, which must wait for those before it."""
            group: builtins.list[_Part] = []
            size = 0
            seen = set()
            for part in chain(again, parts):
                if part.path in seen:
                    again[:] = [part]
                    break
                seen.add(part.path)
                group.append(part)
                size += len(part.value)
                if size >= _WRITE_BYTES or len(group) >= _GROUP_VALUES:
                    yield group
                    group, size = [], 0
            else:
                again.clear()
            if group:
                yield group

        while True:
            for _ in ordered_map(self._put, groups(), CHANNELS):
                pass
            if not again:
                return

    def _put(self, group: builtins.list[_Part]) -> None:
        with self._channels.channel() as channel:
            folders = self._write(channel, group)
            replies = channel.ask(
                [*(sftp.posix_rename(part.temporary, part.path) for part in group), *self._syncs(channel, folders)]
            )
            channel.tell(map(sftp.close, folders))
            self._succeed(channel, group, replies)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        part = self._part(namespace, name, value)
        with self._channels.channel() as channel:
            folders = self._write(channel, [part])
            link = sftp.hard_link if b"hardlink@openssh.com" in channel.extensions else sftp.rename
            linked, found, _, *synced = channel.ask(
                [
                    link(part.temporary, part.path),
                    sftp.lstat(part.path),
                    sftp.remove(part.temporary),
                    *self._syncs(channel, folders),
                ]
            )
            channel.tell(map(sftp.close, folders))
            taken = linked.status != sftp.OK and found.status == sftp.OK
            self._succeed(channel, [part], synced if taken else [linked, *synced])
            return not taken

    def _part(self, namespace: str, name: str, value: bytes) -> _Part:
        check_key(namespace, name)
        temporary = self._path(_TEMPORARY, f"{self._token}-{next(self._numbers)}")
        return _Part(temporary, self._file(namespace, name), memoryview(bytes(value)))

    def _write(self, channel: SftpChannel, group: builtins.list[_Part]) -> builtins.list[bytes]:
        """Durable temporary files; the handles of the folders into which they will go, where the server opens them."""
        makes, looks = self._enter_folders([part.path for part in group])
        temporaries = [sftp.open_file(part.temporary, sftp.WRITE | sftp.CREATE | sftp.EXCLUSIVE) for part in group]
        replies = channel.ask([*makes, *looks, *temporaries])
        folders = _handles(replies[len(makes) : -len(group)])
        files = replies[-len(group) :]
        try:
            self._succeed(channel, group, files)
            written = channel.ask(
                request
                for part, reply in zip(group, files, strict=True)
                for request in self._writes(channel, reply.handle(), part.value)
            )
            self._succeed(channel, group, written)
        except BaseException:
            channel.tell(map(sftp.close, folders))
            raise
        return folders

    def _enter_folders(self, files: Iterable[bytes]) -> tuple[builtins.list[sftp.Request], builtins.list[sftp.Request]]:
        """What makes the folders of files, unless they are there, and what opens them and those above, to sync them."""
        paths = {path.rpartition(b"/")[0] for path in files}
        paths |= {path.rpartition(b"/")[0] for path in paths}
        paths = {path for path in paths if len(path) > len(self._folder)}
        order = sorted(paths)
        return [*map(sftp.make_folder, order)], [sftp.open_file(path, sftp.READ) for path in [self._folder, *order]]

    def _writes(self, channel: SftpChannel, handle: bytes, value: memoryview) -> Iterator[sftp.Request]:
        for at in range(0, len(value), channel.piece_bytes):
            yield sftp.write(handle, at, value[at : at + channel.piece_bytes])
        yield from self._syncs(channel, [handle])
        yield sftp.close(handle)

    def _syncs(self, channel: SftpChannel, handles: builtins.list[bytes]) -> builtins.list[sftp.Request]:
        return [sftp.fsync(handle) for handle in handles] if b"fsync@openssh.com" in channel.extensions else []

    def _succeed(self, channel: SftpChannel, group: builtins.list[_Part], replies: Iterable[Reply]) -> None:
        """Raises for the first reply that tells a failure, and removes the temporary files."""
        for reply in replies:
            if reply.status != sftp.OK:
                error = self._failure(channel, reply)  # while the disk is as full as it was
                channel.ask(sftp.remove(part.temporary) for part in group)
                raise error

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._writable()
        check_key(namespace, name)
        check_key(to_namespace, to)
        path, target = self._file(namespace, name), self._file(to_namespace, to)
        makes, looks = self._enter_folders([target])
        with self._channels.channel() as channel:
            replies = channel.ask([*makes, *looks, sftp.open_file(path.rpartition(b"/")[0], sftp.READ)])
            folders = _handles(replies[len(makes) :])
            moved, *synced = channel.ask([sftp.posix_rename(path, target), *self._syncs(channel, folders)])
            channel.tell(map(sftp.close, folders))
            if moved.status == sftp.NO_SUCH_FILE:
                raise ValueNotFound(f"{namespace}/{name} is not in the store")
            self._succeed(channel, [], [moved, *synced])

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        at = iter(names)
        while group := builtins.list(islice(at, _GROUP_NAMES)):
            for name in group:
                check_key(namespace, name)
            paths = [self._file(namespace, name) for name in group]
            folders = sorted({path.rpartition(b"/")[0] for path in paths})
            with self._channels.channel() as channel:
                replies = channel.ask(
                    [*map(sftp.remove, paths), *(sftp.open_file(path, sftp.READ) for path in folders)]
                )
                handles = _handles(replies[len(paths) :])
                synced = channel.ask(self._syncs(channel, handles))
                channel.tell(map(sftp.close, handles))
                removed = [reply for reply in replies[: len(paths)] if reply.status != sftp.NO_SUCH_FILE]
                self._succeed(channel, [], [*removed, *synced])

    def flush(self) -> None:
        """Remove what writers that were killed left behind, a day after."""
        if self.read_only or not self._tidied.acquire(blocking=False):
            return  # once is enough
        folder = self._path(_TEMPORARY)
        mark = self._path(_TEMPORARY, f"{self._token}-{next(self._numbers)}")
        with self._channels.channel() as channel:
            (entries,) = self._folders(channel, [folder])
            if not entries:
                return
            (opened,) = channel.ask([sftp.open_file(mark, sftp.WRITE | sftp.CREATE | sftp.EXCLUSIVE)])
            self._check(channel, opened)
            found, _, _ = channel.ask([sftp.fstat(opened.handle()), sftp.close(opened.handle()), sftp.remove(mark)])
            self._check(channel, found)
            until_s = found.attributes().mtime_s - _LEFT_BEHIND_S  # the server's clock
            old = [name for name, entry in entries.items() if modes.S_ISREG(entry.mode) and entry.mtime_s < until_s]
            channel.ask(sftp.remove(folder + b"/" + name) for name in old)

    def destroy(self) -> None:
        """What is not a store's stays, and the folder with it."""
        self._writable()
        for namespace in _PLACES:
            while names := [stored.name for stored in islice(self.list(namespace), _GROUP_NAMES)]:
                self.delete(namespace, names)
        with self._channels.channel() as channel:
            folders = [self._path(namespace) for namespace in (*_PLACES, _TEMPORARY)]
            for folder, entries in zip(folders, self._folders(channel, folders), strict=True):
                if folder.endswith(b"/" + _TEMPORARY.encode()):
                    channel.ask(sftp.remove(folder + b"/" + name) for name in entries)
                channel.ask(sftp.remove_folder(folder + b"/" + name) for name in entries if is_nest(_text(name)))
            channel.ask(sftp.remove_folder(path) for path in (*folders, self._folder))
        self.close()

    def close(self) -> None:
        self._channels.close()

    # -- paths and errors

    def _path(self, *parts: str) -> bytes:
        return b"/".join([self._folder, *(part.encode() for part in parts)])

    def _nest(self, namespace: str, name: str) -> str:
        return "/".join(nested(name, 1 if namespace in _NESTED else 0))

    def _file(self, namespace: str, name: str) -> bytes:
        return self._path(*filter(None, (namespace, self._nest(namespace, name), name)))

    def _show(self, path: bytes) -> str:
        return path[len(self._folder) + 1 :].decode()

    def _writable(self) -> None:
        if self.read_only:
            raise StoreReadOnly(f"{self._url} was opened for reading only")

    def _check(self, channel: SftpChannel, reply: Reply) -> None:
        if reply.status != sftp.OK:
            raise self._failure(channel, reply)

    def _failure(self, channel: SftpChannel, reply: Reply) -> StoreError:
        """The error for a status; servers have one for most that can go wrong, and do not say what it was."""
        if reply.status == sftp.FAILURE:
            free = self._free_bytes(channel)
            if free is not None and free < _FULL_BYTES:
                return StoreFull(f"no room is left at {self._url}: free some space and run the command again")
        return self._error(reply)

    def _error(self, reply: Reply) -> StoreError:
        if reply.status == sftp.PERMISSION_DENIED:
            return StoreReadOnly(f"{self._url}: permission denied: its files must belong to the user that logs in")
        if reply.status == sftp.NO_SUCH_FILE:
            return StoreNotFound(f"{self._url} is gone: is its disk mounted?")
        return StoreError(f"{self._url}: the server says: {reply.text or f'status {reply.status}'}")


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> SftpStore:
    """The store at `[USER@]HOST[:PORT]/PATH`: an absolute path, or `/~/PATH` for one relative to the home folder.

    HOST may be an alias of ~/.ssh/config (or of the file that $SPRAYDRY_SSH_CONFIG names), whose HostName, Port, User,
    IdentityFile, IdentitiesOnly and UserKnownHostsFile are heeded. Keys come from there, from ssh-agent or from ~/.ssh;
    there are no passwords, and a host that known_hosts does not know is refused.
    """
    match = _URL.fullmatch(rest)
    if match is None:
        raise UsageError(f"sftp://{rest} cannot be meant: write sftp://USER@HOST/PATH")
    if match["password"] is not None:
        raise UsageError("sftp: no password may stand in a URL: use a key (`ssh-copy-id` puts it on the server)")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 1 << 16:
        raise UsageError(f"sftp: {port} is not a port")
    folder = b"/".join(part for part in unquote_to_bytes(match["path"]).split(b"/") if part not in (b"", b"."))
    home = folder == b"~" or folder.startswith(b"~/")
    folder = folder[2:] if home else b"/" + folder
    if folder in (b"", b"/") or b".." in folder.split(b"/") or b"\0" in folder:
        raise UsageError(f"sftp://{rest}: name a folder for the repository")
    user = unquote_to_bytes(match["user"]).decode("utf-8", "replace") if match["user"] else None
    host = find_host(match["host"].strip("[]"), port, user)
    channels = Channels(host)
    try:
        return SftpStore(channels, folder, f"sftp://{rest}", create=create, read_only=read_only)
    except BaseException:
        channels.close()
        raise


def _handles(replies: Iterable[Reply]) -> list[bytes]:
    return [reply.handle() for reply in replies if reply.status == sftp.OK]


def _text(name: bytes) -> str:
    """A file's name; what is not ASCII is no name of ours."""
    return name.decode("ascii", "replace")
