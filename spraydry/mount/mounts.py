"""The mounts of this machine: what is mounted where, which daemon serves it, taking one down."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import select
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from spraydry.errors import MountError

_FUSE, _EROFS = "fuse.spraydry", "erofs"
_IMAGE = re.compile(r".*/spraydry/[0-9a-f]{32}/erofs-[0-9a-f]{32}(//deleted)?")  # as actions.image names them
_DETACH = 2  # MNT_DETACH
_ENDS_BY_ITSELF_S = 3.0
_END_WITHIN_S = 60.0  # longer than a busy store is waited for


@dataclass(frozen=True)
class Mounted:
    """One line of /proc/self/mountinfo: `device` is major:minor, `source` what is mounted, `owner` who mounted it, if
    it is FUSE."""

    device: str
    point: str
    fstype: str
    source: str
    owner: int | None

    @property
    def ours(self) -> bool:
        """Whether spraydry mounted it."""
        return self.fstype == _FUSE or (self.fstype == _EROFS and _IMAGE.fullmatch(self.source) is not None)


def absolute(point: str) -> str:
    """The path of a mount point with the symlinks above it resolved, without touching the mount itself, which may be
    dead."""
    head, tail = os.path.split(os.path.abspath(point))
    return os.path.join(os.path.realpath(head), tail)


def mounted_at(point: str) -> Mounted | None:
    """The topmost mount whose mount point is exactly this path."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            fields, rest = before.split(), after.split()
            if _unescaped(fields[4]) == point:
                owner = re.search(r"(?:^|,)user_id=(\d+)", rest[-1])
                found = Mounted(fields[2], point, rest[0], _unescaped(rest[1]), int(owner[1]) if owner else None)
    return found


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def check_fuse() -> None:
    """Raises MountError, naming what to install, where nothing can be mounted."""
    from importlib.util import find_spec

    for module in ("pyfuse3", "trio"):
        if find_spec(module) is None:
            raise MountError(f"mounting needs the Python package {module}: pip install 'spraydry[mount]'")
    if not os.path.exists("/dev/fuse"):
        raise MountError("there is no /dev/fuse: `apt install fuse3`, `modprobe fuse`; a container must be given it")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise MountError("no permission to open /dev/fuse; as root: chmod 666 /dev/fuse")
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing, without which only root can mount: apt install fuse3")


def check_point(point: str) -> None:
    """Make sure that something can be mounted there, cleaning up after a daemon that died. Raises MountError."""
    mounted = mounted_at(point)
    try:
        if mounted is not None and mounted.ours:
            os.statvfs(point)  # what `stat` says the kernel remembers beyond a daemon's death
            if mounted.fstype == _EROFS and _is_dead(mounted):
                raise OSError(errno.ENOTCONN, "")
            raise MountError(f"{point} is mounted already: `spraydry umount {point}` takes it down")
        mode = os.stat(point).st_mode
    except FileNotFoundError:
        raise MountError(f"{point} does not exist: make the directory first") from None
    except OSError as error:
        if error.errno != errno.ENOTCONN or mounted is None or not mounted.ours:
            raise MountError(f"{point}: {error.strerror}") from None
        unmount(point, detach=True)
        check_point(point)
        return
    if not stat.S_ISDIR(mode):
        raise MountError(f"{point} is not a directory")
    try:
        with os.scandir(point) as entries:
            if next(entries, None) is not None:
                raise MountError(f"{point} is not empty: mount on an empty directory")
    except PermissionError:
        raise MountError(f"{point}: permission denied") from None


def unmount(point: str, detach: bool = False) -> None:
    """Take the mount at a path down; `detach` also while files in it are in use. Raises MountError."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(point), _DETACH if detach else 0) == 0:
            return
        code = ctypes.get_errno()
        busy, reason = code == errno.EBUSY, os.strerror(code)
    else:
        if (fusermount := shutil.which("fusermount3")) is None:
            raise MountError("fusermount3 is missing: apt install fuse3")
        ran = subprocess.run(
            [fusermount, "-u", *(["-z"] if detach else []), "--", point], capture_output=True, text=True, check=False
        )
        if ran.returncode == 0:
            return
        busy, reason = "busy" in ran.stderr, " ".join(ran.stderr.split()) or "fusermount3 failed"
    if busy:
        raise MountError(f"{point} is in use: close what is open there, or use `spraydry umount --lazy {point}`")
    raise MountError(f"{point} cannot be unmounted: {reason}")


def take_down(point: str, lazy: bool = False) -> None:
    """Unmount and wait until the daemon has ended. Raises MountError."""
    point = absolute(point)
    mounted = mounted_at(point)
    if mounted is None and os.path.islink(point):
        point = os.path.realpath(point)
        mounted = mounted_at(point)
    if mounted is None or not mounted.ours:
        raise MountError(f"{point} is not a mount of spraydry")
    daemon = _daemon(mounted)
    try:
        unmount(point, detach=lazy)
        if daemon is not None and not lazy and not _ended(daemon, _ENDS_BY_ITSELF_S):
            # Another mount namespace (of a container, of a service) still has the mount; here it was to end.
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            if not _ended(daemon, _END_WITHIN_S):
                raise MountError(f"{point} is unmounted, but its daemon does not end: a store that does not answer?")
    finally:
        if daemon is not None:
            os.close(daemon)


def _ended(daemon: int, within_s: float) -> bool:
    return bool(select.select([daemon], [], [], within_s)[0])


# -- which process serves a mount: a small file for each, named by the device number, in a folder only its user writes


def _folder(uid: int) -> str:
    base = f"/run/user/{uid}"
    if uid == os.geteuid():
        base = os.environ.get("XDG_RUNTIME_DIR") or base
    return os.path.join(base, "spraydry") if os.path.isdir(base) else f"/tmp/spraydry-{uid}"


def _usable(folder: str, uid: int) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022


def own_folder() -> str:
    """The folder for this user's mounts, made if it is missing. Raises MountError."""
    uid = os.geteuid()
    folder = _folder(uid)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise MountError(f"{folder} cannot be made: {error.strerror}") from None
    if not _usable(folder, uid):
        raise MountError(f"{folder} is not a folder that only this user can write: remove it")
    return folder


def write_record(device: int) -> str | None:
    """Note that this process serves the mount with that device number; the path of the note, None if none can be made
    (then `umount` does not wait)."""
    try:
        folder = own_folder()
        path = os.path.join(folder, f"mount-{os.major(device)}-{os.minor(device)}")
        with _alone(folder):
            with open(path + ".new", "w", encoding="ascii") as file:
                json.dump({"pid": os.getpid(), "started": _started(os.getpid())}, file)
            os.replace(path + ".new", path)
    except (OSError, MountError):
        return None
    return path


def remove_record(path: str) -> None:
    """Take away what this process noted. Its mount is gone, so another may have got the device number, and its process
    have written there."""
    with suppress(OSError, ValueError), _alone(os.path.dirname(path)):
        with open(path, encoding="ascii") as file:
            if json.load(file)["pid"] != os.getpid():
                return
        os.unlink(path)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _started(pid: int) -> int:
    """When a process was started, in clock ticks: with the pid that names it for good."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def _record_path(mounted: Mounted) -> str:
    uid = os.geteuid() if mounted.owner is None else mounted.owner
    return os.path.join(_folder(uid), "mount-" + mounted.device.replace(":", "-"))


def _is_dead(mounted: Mounted) -> bool:
    """Whether the process that served a mount has ended, as far as is known."""
    daemon = _daemon(mounted)
    if daemon is None:
        return os.path.exists(_record_path(mounted))
    try:
        return _ended(daemon, 0)
    finally:
        os.close(daemon)


def _daemon(mounted: Mounted) -> int | None:
    """A descriptor of the process that serves a mount, readable once it has ended; None if it is not known. Whatever
    its user wrote into the record, it is a process of that user."""
    uid = os.geteuid() if mounted.owner is None else mounted.owner
    if not _usable(_folder(uid), uid):
        return None
    try:
        with open(_record_path(mounted), encoding="ascii") as file:
            record = json.load(file)
        daemon = os.pidfd_open(record["pid"])
        if os.stat(f"/proc/{record['pid']}").st_uid == uid and _started(record["pid"]) == record["started"]:
            return daemon
        os.close(daemon)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
