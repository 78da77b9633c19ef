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

import pyfuse3
import trio

from spraydry.errors import MountError
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.requests import Requests, fuse_descriptor

_FINISH_WITHIN_S = 1.0
_TASKS = 32  # requests that can wait for a store at the same time
_READ_AHEAD_KB = 1024

log = logging.getLogger("spraydry.mount")


def serve(
    operations: pyfuse3.Operations,
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
        pyfuse3.init(operations, point, fuse_options)
    requests = Requests(fuse_descriptor())
    requests.install()
    fetch.pending, fetch.begin_waiting, fetch.end_waiting = (
        requests.pending,
        requests.begin_waiting,
        requests.end_waiting,
    )
    nursery: trio.Nursery

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
                pyfuse3.terminate()
                requests.end()
                await trio.sleep(_FINISH_WITHIN_S)  # requests that wait for a store that does not answer are given up
                nursery.cancel_scope.cancel()

    async def main() -> None:
        nonlocal nursery
        async with trio.open_nursery() as nursery:
            fetch.read_ahead_in(nursery)
            nursery.start_soon(until_signalled)
            nursery.start_soon(announce)
            await pyfuse3.main(_TASKS, _TASKS)
            nursery.cancel_scope.cancel()

    gc.freeze()  # modules are never garbage
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from None
    finally:
        pyfuse3.close(unmount=True)


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
