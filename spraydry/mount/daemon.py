"""The process that serves a mount: started in the background, telling its parent when the mount answers or why not."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from spraydry.errors import MountError, SprayDryError
from spraydry.mount import mounts
from spraydry.mount.options import MountOptions

if TYPE_CHECKING:
    from spraydry.repository.repository import Repository

# trio, pyfuse3 and the repository are imported by the serving process only: they are half of the time a mount takes,
# and none of them may be carried over a fork.

_FINISH_WITHIN_S = 1.0
_TASKS = 32  # requests that can wait for a store at the same time
_READ_AHEAD_KB = 1024
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # glibc's numbers for mallopt

log = logging.getLogger("spraydry.mount")

Ready = Callable[[], None]


def mount(url: str, address: str | None, point: str, options: MountOptions) -> None:
    """Mount what `address` names (None: every root and version) and return when the mount answers; a process in the
    background serves it. Raises what went wrong there, MountError and others."""
    point = _prepared(point)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _detach(url, address, point, options, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        os.waitpid(child, 0)
        message = told.read()
    if not message:
        raise MountError(f"the daemon ended before the mount answered; {_log_path(options)} may say why")
    failure = json.loads(message)
    if failure:
        raise _failure(failure)


def serve_in_front(url: str, address: str | None, point: str, options: MountOptions, ready: Ready) -> None:
    """Mount, call `ready`, and serve in this process until it is unmounted or told to end by a signal."""
    point = _prepared(point)
    _log_to(options, front=True)
    _serve(url, address, point, options, ready)


def _prepared(point: str) -> str:
    mounts.check_fuse()
    point = mounts.absolute(point)
    mounts.check_point(point)
    return os.path.realpath(point)


class _Told(SprayDryError):
    """An error of the daemon, told by its parent."""


def _failure(failure: dict[str, object]) -> SprayDryError:
    error = _Told(str(failure["text"]))
    error.exit_code = int(str(failure["exit_code"]))
    return error


def _detach(url: str, address: str | None, point: str, options: MountOptions, writing: int) -> NoReturn:
    """In the child: fork again, so that the daemon belongs to no terminal and no parent, serve, never return."""
    code = 0
    try:
        os.setsid()
        if os.fork():
            os._exit(0)

        def tell(failure: dict[str, object]) -> None:
            os.write(writing, json.dumps(failure).encode())
            os.close(writing)

        told = False

        def ready() -> None:
            nonlocal told
            told = True
            tell({})

        try:
            _log_to(options, front=False)
            _serve(url, address, point, options, ready)
        except SprayDryError as error:
            code = error.exit_code
            text = str(error)
        except BaseException as error:
            code, text = 1, f"unexpected {type(error).__name__}: {error}; {_log_path(options)} says more"
            log.exception("the daemon ends")
        if code and not told:
            tell({"exit_code": code, "text": text})
    except BaseException:
        code = code or 1
    finally:
        os._exit(code)


def _log_path(options: MountOptions) -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return options.log or os.path.join(state, "spraydry", "mount.log")


def _log_to(options: MountOptions, front: bool) -> None:
    """Set up the log, and with it what libraries print: of a daemon, both go to the log file."""
    path = _log_path(options)
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if options.log is not None:
            raise MountError(f"{path} cannot be written: {error.strerror}") from None
        descriptor = os.open(os.devnull, os.O_WRONLY)
    if not front:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(null)
    elif options.log is not None:
        handlers.append(logging.FileHandler(path, encoding="utf-8"))
    os.close(descriptor)
    logging.basicConfig(
        level=logging.INFO,
        handlers=handlers,
        format=f"%(asctime)s spraydry[{os.getpid()}] %(levelname)s %(message)s",
        force=True,
    )


def _serve(url: str, address: str | None, point: str, options: MountOptions, ready: Ready) -> None:
    from spraydry.repository.repository import Repository

    _tame_malloc()
    os.umask(0o077)
    url = url if ":" in url.partition("/")[0] else os.path.abspath(url)
    os.chdir("/")
    with Repository.open(url, cache_bytes=options.cache_bytes) as repository:
        where = repository.store.location()
        if where is not None and os.path.realpath(where).startswith(point + "/"):
            raise MountError(f"the repository {where} lies inside the mount point {point}: mount somewhere else")
        _serve_repository(repository, address, point, options, ready)


def _serve_repository(
    repository: Repository, address: str | None, point: str, options: MountOptions, ready: Ready
) -> None:
    import pyfuse3
    import trio

    from spraydry.format.tree import Subtree
    from spraydry.mount.fetch import ChunkFetcher
    from spraydry.mount.fs import VersionFs
    from spraydry.mount.requests import Requests, fuse_descriptor
    from spraydry.repository.address import resolve

    found = None if address is None else resolve(repository, address)
    if found is not None and not isinstance(found.entry.content, Subtree):
        raise MountError(f"{address} is not a directory: `spraydry cat` and `restore` take single files")
    before = os.stat(point).st_dev
    fetch = ChunkFetcher(repository)
    operations = VersionFs(fetch, found, options.owner)
    with _explained(point):
        pyfuse3.init(operations, point, options.fuse())

    requests = Requests(fuse_descriptor())
    requests.install()
    fetch.pending, fetch.begin_waiting, fetch.end_waiting = (
        requests.pending,
        requests.begin_waiting,
        requests.end_waiting,
    )
    record: str | None = None
    nursery: trio.Nursery

    async def announce() -> None:
        nonlocal record
        device = (await trio.to_thread.run_sync(os.stat, point)).st_dev
        if device == before:
            raise MountError(f"{point} was not mounted")
        record = mounts.write_record(device)
        _raise_read_ahead(device)
        log.info("%s is mounted on %s", address or "every root", point)
        ready()

    async def until_signalled() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                log.info("%s: unmounting %s", signal.Signals(number).name, point)
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
        if record is not None:
            with suppress(OSError):
                os.unlink(record)
        log.info("%s is unmounted", point)


def _tame_malloc() -> None:
    """One heap for all threads, and frames outside of it, so that what the cache gives up goes back to the system.
    Measured after a `tar` of 94,000 files: 141 MB at most instead of 177."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 256 << 10)


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


def _raise_read_ahead(device: int) -> None:
    """Let the kernel ask for more at once of files read in sequence (128 KiB otherwise), where this process may."""
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(_READ_AHEAD_KB))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS):
            log.warning("%s: %s", path, error.strerror)
