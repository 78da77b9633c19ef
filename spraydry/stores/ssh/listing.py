"""Listing folders of a server: many reads of many folders under way at once."""

from __future__ import annotations

import stat as modes
from collections.abc import Iterator, Sequence
from itertools import islice

from spraydry.stores.base import Stored, is_key
from spraydry.stores.shared.nesting import is_nest, letters
from spraydry.stores.ssh import protocol as sftp
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.channels import Channels
from spraydry.stores.ssh.folder import RemoteFolder, nest_of, text

_GROUP_FOLDERS, _MOST_FOLDERS, _GROUP_ENTRIES = 8, 64, 32_000  # listed together
_READS_AHEAD = 2  # of a folder, then twice as many each time; OpenSSH gives a hundred names at a time
_MOST_READS_AHEAD = 32

Entries = dict[bytes, sftp.Attributes]


def list_values(folder: RemoteFolder, channels: Channels, namespace: str, after: str) -> Iterator[Stored]:
    """The values of a namespace behind `after`, in order. Nests are read whole, several at a time: that bounds
    memory."""
    path = folder.below(namespace)
    (entries,) = channels.reading(lambda channel: read_folders(folder, channel, [path]))
    beside = [stored for stored in _values(namespace, (), entries) if stored.name > after]
    nests = sorted(name for name in map(text, entries) if nest_of(namespace, name) and is_nest(name))
    nests = [nest for nest in nests if letters(nest) >= after[: len(letters(nest))]]
    at, together = iter(nests), _GROUP_FOLDERS
    while group := list(islice(at, together)):
        paths = [folder.below(namespace, nest) for nest in group]
        found = channels.reading(lambda channel, paths=paths: read_folders(folder, channel, paths))  # type: ignore[misc]
        together = max(1, min(_MOST_FOLDERS, _GROUP_ENTRIES // max(1, *map(len, found))))
        for nest, entries in zip(group, found, strict=True):
            while beside and beside[0].name < letters(nest):
                yield beside.pop(0)
            yield from (stored for stored in _values(namespace, (nest,), entries) if stored.name > after)
    yield from beside


def _values(namespace: str, nest: tuple[str, ...], entries: Entries) -> list[Stored]:
    """What lies in a folder, sorted; other things than values may lie there."""
    return sorted(
        Stored(name, attributes.size)
        for name, attributes in ((text(raw), attributes) for raw, attributes in entries.items())
        if is_key(namespace, name) and modes.S_ISREG(attributes.mode) and nest_of(namespace, name) == nest
    )


def read_folders(folder: RemoteFolder, channel: SftpChannel, paths: Sequence[bytes]) -> list[Entries]:
    """What lies in each of several folders; nothing in one that is not there."""
    entries: list[Entries] = [{} for _ in paths]
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
    folder.check(channel, failed)
    return entries
