"""The process that serves a mount: started in the background, telling its parent when the mount answers or why not."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from spraydry.errors import ExpressionError, MountError, SprayDryError
from spraydry.malloc import large_apart
from spraydry.mount import mounts
from spraydry.mount.options import MountOptions

if TYPE_CHECKING:
    from spraydry.repository.address import Found
    from spraydry.repository.repository import Repository

# trio, pyfuse3 and the repository are imported by the serving process only: they are half of the time a mount takes,
# and none of them may be carried over a fork.

log = logging.getLogger("spraydry.mount")

# Called with the engine that was taken, and why, in words.
Ready = Callable[[str], None]


def mount(url: str, address: str | None, point: str, options: MountOptions) -> str:
    """Mount what `address` names (None: every root and version) and return when the mount answers; a process in the
    background serves it. What engine it is and why. Raises what went wrong there, MountError and others."""
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
    told_us = json.loads(message)
    if "engine" not in told_us:
        raise _failure(told_us)
    return str(told_us["engine"])


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
    if "expression" in failure:
        error: SprayDryError = ExpressionError(
            str(failure["text"]), str(failure["expression"]), int(str(failure["place"]))
        )
    else:
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

        def tell(message: dict[str, object]) -> None:
            os.write(writing, json.dumps(message).encode())
            os.close(writing)

        told = False
        where: dict[str, object] = {}

        def ready(engine: str) -> None:
            nonlocal told
            told = True
            tell({"engine": engine})

        try:
            _log_to(options, front=False)
            _serve(url, address, point, options, ready)
        except SprayDryError as error:
            code = error.exit_code
            text = str(error)
            if isinstance(error, ExpressionError):
                where = {"expression": error.expression, "place": error.place}
        except BaseException as error:
            code, text = 1, f"unexpected {type(error).__name__}: {error}; {_log_path(options)} says more"
            log.exception("the daemon ends")
        if code and not told:
            tell({"exit_code": code, "text": text, **where})
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

    # Measured after a `tar` of 94,000 files: 141 MB at most instead of 177.
    large_apart(256 << 10, one_heap=True)
    os.umask(0o077)
    url = url if ":" in url.partition("/")[0] else os.path.abspath(url)
    os.chdir("/")
    with Repository.open(url, cache_bytes=options.cache_bytes) as repository:
        for where in repository.store.locations():
            if os.path.realpath(where).startswith(point + "/"):
                raise MountError(f"the repository {where} lies inside the mount point {point}: mount somewhere else")
        _serve_repository(repository, address, point, options, ready)


def _serve_repository(
    repository: Repository, address: str | None, point: str, options: MountOptions, ready: Ready
) -> None:
    from spraydry.actions.compose.evaluate import found_by
    from spraydry.repository.leases import hold

    # Until it is known what to pin, everything is. What was collected before the lease was there, the log says.
    with hold(repository, f"mount on {point}", since=repository.log.head[0]) as lease:
        repository.refresh()
        if address is None:
            _serve_found(repository, None, address, point, options, ready)
            return
        with found_by(repository, address) as (found, slots):
            lease.pin(slots)
            _serve_found(repository, found, address, point, options, ready)


def _serve_found(
    repository: Repository, found: Found | None, address: str | None, point: str, options: MountOptions, ready: Ready
) -> None:
    from spraydry.format.entry import Subtree
    from spraydry.mount import engines

    if found is not None and not isinstance(found.entry.content, Subtree):
        raise MountError(f"{address} is not a directory: `spraydry cat` and `restore` take single files")
    record: str | None = None

    def mounted(device: int, engine: str) -> None:
        nonlocal record
        record = mounts.write_record(device)
        log.info("%s is mounted on %s, engine %s", address or "every root", point, engine)
        ready(engine)

    try:
        engines.serve(repository, found, point, options, mounted)
    finally:
        if record is not None:
            mounts.remove_record(record)
        log.info("%s is unmounted", point)
