"""One FUSE session of this process: from mounting to the end, whoever ends it."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import pyfuse3
import trio

from spraydry.errors import MountError
from spraydry.mount.channel import Channel, Handlers, fuse_descriptor
from spraydry.mount.fetch import ChunkFetcher

_FINISH_WITHIN_S = 1.0
_READ_AHEAD_KB = 1024

log = logging.getLogger("spraydry.mount")


def serve(
    handlers: Handlers,
    fetch: ChunkFetcher,
    point: str,
    fuse_options: set[str],
    mounted: Callable[[int], None],
    unmounting: Callable[[], None] = lambda: None,
) -> None:
    """Mount on `point`, serve until it is unmounted or a signal comes, unmount.

    In worker threads, `mounted(device number)` is called once the mount answers, `unmounting()` when a signal came.
    What `mounted` raises ends the session and is raised. Raises MountError.
    """
    before = os.stat(point).st_dev
    with _explained(point):
        pyfuse3.init(_Rest(), point, fuse_options)
    channel = Channel(handlers, fetch, fuse_descriptor())
    fetch.pending = channel.pending
    reading = trio.CancelScope()

    async def announce() -> None:
        device = (await trio.to_thread.run_sync(os.stat, point)).st_dev
        if device == before:
            raise MountError(f"{point} was not mounted")
        raise_read_ahead(device)
        await trio.to_thread.run_sync(mounted, device)

    async def until_signalled() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                log.info("%s: unmounting", signal.Signals(number).name)
                await trio.to_thread.run_sync(unmounting)
                reading.cancel()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fetch.read_ahead_in(nursery)
            nursery.start_soon(until_signalled)
            nursery.start_soon(announce)
            nursery.start_soon(pyfuse3.main)
            nursery.start_soon(channel.pass_back)
            async with trio.open_nursery() as answering:
                with reading:
                    await channel.serve(answering)
                # Requests that wait for a store that does not answer are given up; those of a mount that is gone, all.
                within_s = _FINISH_WITHIN_S if reading.cancelled_caught else 0
                answering.cancel_scope.deadline = trio.current_time() + within_s
            nursery.cancel_scope.cancel()

    gc.freeze()  # modules are never garbage
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        channel.close()
        pyfuse3.close(unmount=True)


class _Rest(pyfuse3.Operations):
    """What libfuse asks: every attempt to write is refused, of the rest it says itself that there is nothing of it."""

    supports_dot_lookup = True  # `.` and `..` of any inode: for NFS, which knows files by number only
    enable_acl = True  # without it the group bits of a file with an ACL, which are its mask, would count for the group
    enable_writeback_cache = False

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise pyfuse3.FUSEError(errno.EROFS)

    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = _refuse
    write = create = setxattr = removexattr = _refuse


def _first(error: BaseException) -> BaseException:
    """The error itself, out of the groups that nurseries put it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _explained(point: str) -> Iterator[None]:
    """What libfuse and fusermount3 print while they mount, as the text of a MountError."""
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            yield
        except RuntimeError as error:
            printed.seek(0)
            text = " ".join(printed.read().decode(errors="replace").split()) or str(error)
            if "user_allow_other" in text:
                text = "--allow-other needs the line user_allow_other in /etc/fuse.conf, or root"
            raise MountError(f"{point} cannot be mounted: {text}") from None
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def raise_read_ahead(device: int) -> None:
    """Let the kernel ask for more at once of files read in sequence (128 KiB otherwise), where this process may."""
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(_READ_AHEAD_KB))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS):
            log.warning("%s: %s", path, error.strerror)
