"""A store in a folder of any SSH account: `sftp://[USER@]HOST[:PORT]/PATH`. Layout: FORMAT.md §8."""

from __future__ import annotations

import builtins
import secrets
import stat as modes
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import count, islice

from spraydry.errors import NotARepository, StoreError, StoreNotFound, StoreReadOnly, ValueNotFound
from spraydry.parallel import ordered_map
from spraydry.stores.base import NAMESPACES, Stat, Store, Stored, Traits, check_key, check_namespace, check_range
from spraydry.stores.shared import layout as layouts
from spraydry.stores.shared.nesting import is_nest
from spraydry.stores.ssh import protocol as sftp
from spraydry.stores.ssh import writing
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.channels import CHANNELS, Channels
from spraydry.stores.ssh.folder import DEPTHS, TEMPORARY, RemoteFolder, text
from spraydry.stores.ssh.host import find_folder
from spraydry.stores.ssh.listing import list_values, read_folders
from spraydry.stores.ssh.reading import read_file, read_files

_PLACES = tuple(sorted([*NAMESPACES, *(namespace + "~" for namespace in NAMESPACES)]))
_LEFT_BEHIND_S = 86_400  # a temporary file as old as that is no longer being written
_READ_BYTES, _READ_VALUES = 2 << 20, 64  # read together
_GROUP_NAMES = 1000


class SftpStore(Store):
    """Values as files below one folder. Blocks, at most a minute without an answer; threads may share it, up to eight
    are served at a time. It must not be carried over a fork.

    A value is written to a temporary file, made durable where the server has fsync@openssh.com (without it, as durable
    as the server's file system makes renamed files) and renamed. Servers need posix-rename@openssh.com to be written
    to; without hardlink@openssh.com, `create` relies on the plain rename to refuse a name that is taken.
    """

    def __init__(self, channels: Channels, folder: RemoteFolder, *, create: bool, read_only: bool) -> None:
        self.read_only = read_only
        self._channels = channels
        self._folder = folder
        self._token = secrets.token_hex(8)
        self._numbers = count()
        self._tidied = threading.Lock()
        channels.reading(lambda channel: self._enter(channel, create))

    def _enter(self, channel: SftpChannel, create: bool) -> None:
        folder = self._folder
        began_s = time.monotonic()
        (found,) = channel.ask([sftp.stat(folder.path)])
        round_trip_s = time.monotonic() - began_s
        hardlinks = b"hardlink@openssh.com" in channel.extensions
        self.traits = Traits(CHANNELS, round_trip_s, hardlinks, lists_all=True)
        if not self.read_only and b"posix-rename@openssh.com" not in channel.extensions:
            raise StoreReadOnly(f"{folder.url} can only be read: its server has no posix-rename@openssh.com")
        if found.status == sftp.NO_SUCH_FILE:
            if not create or self.read_only:
                raise StoreNotFound(f"there is no repository at {folder.url}")
            parts = folder.path.split(b"/")
            channel.ask(sftp.make_folder(b"/".join(parts[:end])) for end in range(1, len(parts) + 1) if parts[end - 1])
            (found,) = channel.ask([sftp.stat(folder.path)])
        folder.check(channel, [found])
        if not modes.S_ISDIR(found.attributes().mode):
            raise NotARepository(f"{folder.url} is not a folder")
        layout = read_file(folder, channel, folder.below(layouts.NAME))
        if layout is not None and layouts.decode_depths(layout, folder.url) != DEPTHS:  # a `dir:` store's
            raise StoreError(
                f"{folder.url} nests values as sftp: cannot: write `frames 1`, and nothing else, into its layout"
            )
        if not self.read_only:
            channel.ask([sftp.make_folder(folder.below(TEMPORARY))])

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        folder, path = self._folder, self._folder.file(namespace, name)
        value = self._channels.reading(lambda channel: read_file(folder, channel, path, start, length))
        if value is None:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        return value

    def get_many(self, namespace: str, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """In groups of about 2 MiB, as far as can be told from those before."""
        at = iter(names)
        typical_bytes = _READ_BYTES

        def groups() -> Iterator[builtins.list[str]]:
            while group := builtins.list(islice(at, max(1, min(_READ_VALUES, _READ_BYTES // typical_bytes)))):
                for name in group:
                    check_key(namespace, name)
                yield group

        def values(group: builtins.list[str]) -> builtins.list[tuple[str, bytes | None]]:
            paths = [self._folder.file(namespace, name) for name in group]
            found = self._channels.reading(lambda channel: read_files(self._folder, channel, paths))
            return builtins.list(zip(group, found, strict=True))

        for found in ordered_map(values, groups(), CHANNELS):
            sizes = [len(value) for _, value in found if value is not None]
            if sizes:
                typical_bytes = max(1, max(sizes))
            yield from found

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        path = self._folder.file(namespace, name)

        def look(channel: SftpChannel) -> Stored | None:
            (found,) = channel.ask([sftp.lstat(path)])
            if found.status == sftp.NO_SUCH_FILE:
                return None
            self._folder.check(channel, [found])
            attributes = found.attributes()
            return Stored(name, attributes.size) if modes.S_ISREG(attributes.mode) else None

        return self._channels.reading(look)

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        return list_values(self._folder, self._channels, namespace, after)

    def stat(self) -> Stat:
        values = held = 0
        for namespace in _PLACES:
            for stored in self.list(namespace):
                values, held = values + 1, held + stored.size
        return Stat(values, held, self._channels.reading(self._folder.free_bytes))

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        self._writable()
        for groups in writing.rounds(self._part(namespace, name, value) for name, value in values):
            for _ in ordered_map(self._put, groups, CHANNELS):
                pass

    def _put(self, group: builtins.list[writing.Part]) -> None:
        with self._channels.channel() as channel:
            writing.put(self._folder, channel, group)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        self._writable()
        part = self._part(namespace, name, value)
        with self._channels.channel() as channel:
            return writing.create(self._folder, channel, part)

    def _part(self, namespace: str, name: str, value: bytes) -> writing.Part:
        check_key(namespace, name)
        return writing.Part(self._temporary(), self._folder.file(namespace, name), memoryview(bytes(value)))

    def _temporary(self) -> bytes:
        return self._folder.below(TEMPORARY, f"{self._token}-{next(self._numbers)}")

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        self._writable()
        check_key(namespace, name)
        check_key(to_namespace, to)
        path, target = self._folder.file(namespace, name), self._folder.file(to_namespace, to)
        with self._channels.channel() as channel:
            if not writing.move(self._folder, channel, path, target):
                raise ValueNotFound(f"{namespace}/{name} is not in the store")

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        at = iter(names)
        while group := builtins.list(islice(at, _GROUP_NAMES)):
            for name in group:
                check_key(namespace, name)
            with self._channels.channel() as channel:
                writing.remove(self._folder, channel, [self._folder.file(namespace, name) for name in group])

    def flush(self) -> None:
        """Remove what writers that were killed left behind, a day after."""
        if self.read_only or not self._tidied.acquire(blocking=False):
            return  # once is enough
        place, mark = self._folder.below(TEMPORARY), self._temporary()
        with self._channels.channel() as channel:
            (entries,) = read_folders(self._folder, channel, [place])
            if not entries:
                return
            (opened,) = channel.ask([sftp.open_file(mark, sftp.WRITE | sftp.CREATE | sftp.EXCLUSIVE)])
            self._folder.check(channel, [opened])
            found, _, _ = channel.ask([sftp.fstat(opened.handle()), sftp.close(opened.handle()), sftp.remove(mark)])
            self._folder.check(channel, [found])
            until_s = found.attributes().mtime_s - _LEFT_BEHIND_S  # the server's clock
            old = [name for name, entry in entries.items() if modes.S_ISREG(entry.mode) and entry.mtime_s < until_s]
            channel.ask(sftp.remove(place + b"/" + name) for name in old)

    def destroy(self) -> None:
        """What is not a store's stays, and the folder with it."""
        self._writable()
        for namespace in _PLACES:
            while names := [stored.name for stored in islice(self.list(namespace), _GROUP_NAMES)]:
                self.delete(namespace, names)
        with self._channels.channel() as channel:
            places = [self._folder.below(namespace) for namespace in (*_PLACES, TEMPORARY)]
            for place, entries in zip(places, read_folders(self._folder, channel, places), strict=True):
                if place == places[-1]:
                    channel.ask(sftp.remove(place + b"/" + name) for name in entries)
                channel.ask(sftp.remove_folder(place + b"/" + name) for name in entries if is_nest(text(name)))
            channel.ask(sftp.remove_folder(path) for path in (*places, self._folder.path))
        self.close()

    def close(self) -> None:
        self._channels.close()

    def _writable(self) -> None:
        if self.read_only:
            raise StoreReadOnly(f"{self._folder.url} was opened for reading only")


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> SftpStore:
    """The store at `[USER@]HOST[:PORT]/PATH`: an absolute path, or `/~/PATH` for one relative to the home folder.

    HOST may be an alias of ~/.ssh/config (or of the file that $SPRAYDRY_SSH_CONFIG names), whose HostName, Port, User,
    IdentityFile, IdentitiesOnly and UserKnownHostsFile are heeded. Keys come from there, from ssh-agent or from ~/.ssh;
    there are no passwords, and a host that known_hosts does not know is refused.
    """
    host, path = find_folder(rest)
    channels = Channels(host)
    try:
        return SftpStore(channels, RemoteFolder(path, f"sftp://{rest}"), create=create, read_only=read_only)
    except BaseException:
        channels.close()
        raise
