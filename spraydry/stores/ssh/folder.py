"""A store's folder on a server: the paths of its files, and what the server's refusals mean there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spraydry.errors import StoreError, StoreFull, StoreNotFound, StoreReadOnly
from spraydry.stores.shared.nesting import nested
from spraydry.stores.ssh import protocol as sftp
from spraydry.stores.ssh.channel import SftpChannel
from spraydry.stores.ssh.protocol import Reply

DEPTHS = {"frames": 1}  # of nesting, as in the layout of a `dir:` store: only these get many values
TEMPORARY = "tmp"
_READ_ONLY = 1  # a flag of statvfs
# With less free room a failure is a full disk: what other channels could not write is removed while this is asked.
_FULL_BYTES = 16 << 20


@dataclass(frozen=True)
class RemoteFolder:
    """The folder at `path`, in messages `url`."""

    path: bytes
    url: str

    def below(self, *parts: str) -> bytes:
        """The path of something in it."""
        return b"/".join([self.path, *(part.encode() for part in parts)])

    def file(self, namespace: str, name: str) -> bytes:
        """The path of a value."""
        return self.below(namespace, *nest_of(namespace, name), name)

    def show(self, path: bytes) -> str:
        """A path as messages have it."""
        return path[len(self.path) + 1 :].decode()

    def check(self, channel: SftpChannel, replies: Iterable[Reply]) -> None:
        """Raises StoreErrors for the first reply that tells a failure."""
        for reply in replies:
            if reply.status != sftp.OK:
                raise self.failure(channel, reply)

    def failure(self, channel: SftpChannel, reply: Reply) -> StoreError:
        """The error for a status; servers have one for most that can go wrong, and do not say what it was."""
        if reply.status == sftp.FAILURE:
            numbers = self._file_system(channel)
            if numbers and numbers[9] & _READ_ONLY:
                return StoreReadOnly(f"{self.url} lies on a read-only file system")
            if numbers and numbers[1] * numbers[4] < _FULL_BYTES:
                return StoreFull(f"no room is left at {self.url}: free some space and run the command again")
        if reply.status == sftp.PERMISSION_DENIED:
            return StoreReadOnly(f"{self.url}: permission denied: its files must belong to the user that logs in")
        if reply.status == sftp.NO_SUCH_FILE:
            return StoreNotFound(f"{self.url} is gone: is its disk mounted?")
        return StoreError(f"{self.url}: the server says: {reply.text or f'status {reply.status}'}")

    def free_bytes(self, channel: SftpChannel) -> int | None:
        """How much more its file system takes; None where the server does not say."""
        numbers = self._file_system(channel)
        return numbers[1] * numbers[4] if numbers else None

    def _file_system(self, channel: SftpChannel) -> tuple[int, ...]:
        """The eleven numbers of `statvfs`; nothing where the server does not tell them."""
        if b"statvfs@openssh.com" not in channel.extensions:
            return ()
        (reply,) = channel.ask([sftp.statvfs(self.path)])
        numbers = reply.numbers() if reply.status == sftp.OK else ()
        return numbers if len(numbers) >= 11 else ()


def nest_of(namespace: str, name: str) -> tuple[str, ...]:
    """The folders between a namespace's and a value."""
    return nested(name, DEPTHS.get(namespace.rstrip("~"), 0))


def text(name: bytes) -> str:
    """A file's name; what is not ASCII is no name of ours."""
    return name.decode("ascii", "replace")
