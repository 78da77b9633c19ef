"""The erofs engine: the kernel's EROFS mounted on an image of a version's metadata, contents from one FUSE file."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from spraydry.errors import MountError
from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, Entry
from spraydry.format.erofs import Source, write_image
from spraydry.format.erofs_contents import device_slots
from spraydry.format.links import Links
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.tree_page import Page
from spraydry.mount import mounts
from spraydry.mount.options import MountOptions

_READ_ONLY, _NO_SUID, _NO_DEV = 1, 2, 4  # MS_ flags of mount(2)
_LEAST_KERNEL = (6, 12)  # mounts files, without a loop device
PROBE_BLOCKS = 32

log = logging.getLogger("spraydry.mount")


class ErofsUnavailable(MountError):
    """Why the erofs engine cannot be used for a mount; another engine can."""


def check(point: str, options: MountOptions) -> None:
    """Raises ErofsUnavailable where this kernel, user, place or option has no erofs engine."""
    if os.geteuid() != 0:
        raise ErofsUnavailable("only root can mount it")
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is None or (int(release[1]), int(release[2])) < _LEAST_KERNEL:
        raise ErofsUnavailable("it needs Linux {}.{} or newer".format(*_LEAST_KERNEL))
    if options.owner is not None:
        raise ErofsUnavailable("it cannot show other owners (--owner)")
    if not options.allow_other and not _private(point):
        raise ErofsUnavailable(
            f"it would show {point} to every user, as modes allow: say --allow-other, or mount below a folder that"
            " only root can enter"
        )


def _private(point: str) -> bool:
    """Whether a folder above `point` is closed to everyone but root."""
    while point != "/":
        point = os.path.dirname(point)
        status = os.stat(point)
        if status.st_uid == 0 and not status.st_mode & 0o011:
            return True
    return False


def mount_image(image: str, devices: Sequence[str], point: str, options: MountOptions) -> None:
    """mount(2): mount(8) would put a loop device under the image. Raises ErofsUnavailable."""
    flags = _READ_ONLY | (0 if options.suid else _NO_SUID) | (0 if options.dev else _NO_DEV)
    data = ",".join(f"device={device}" for device in devices)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(image), os.fsencode(point), b"erofs", flags, data.encode()) != 0:
        code = ctypes.get_errno()
        why = "this kernel has no erofs that mounts files" if code in _NOT_THERE else os.strerror(code)
        raise ErofsUnavailable(f"the image could not be mounted on {point}: {why}")


_NOT_THERE = {errno.ENODEV, errno.ENOTBLK, errno.EPERM}


class Inner:
    """The FUSE mount of the device, at a place of its own where nobody finds it, and the erofs mount over it.

    Blocks; made before the FUSE session, which runs in between."""

    def __init__(self, image: str, slots: int, point: str, options: MountOptions) -> None:
        self._image = image
        self._slots = slots
        self._point = point
        self._options = options
        self._over = False
        self.folder = tempfile.mkdtemp(prefix="device-", dir=mounts.own_folder())

    def cover(self) -> int:
        """Once the FUSE mount answers: try the kernel, mount erofs, take the FUSE mount out of sight; the device number
        of the erofs mount. Raises ErofsUnavailable."""
        probe(os.path.join(self.folder, "probe"))
        devices = [os.path.join(self.folder, str(slot)) for slot in range(self._slots)]
        mount_image(self._image, devices, self._point, self._options)
        self._over = True
        mounts.unmount(self.folder, detach=True)  # what erofs has opened of it stays; when it goes, the session ends
        return os.stat(self._point).st_dev

    def uncover(self) -> None:
        """Take the erofs mount away, also while files in it are open."""
        mounted = mounts.mounted_at(self._point)
        if self._over and mounted is not None and mounted.source == self._image:
            with suppress(MountError):
                mounts.unmount(self._point, detach=True)

    def close(self) -> None:
        """Leave nothing behind."""
        self.uncover()
        if mounts.mounted_at(self.folder) is not None:
            with suppress(MountError):
                mounts.unmount(self.folder, detach=True)
        with suppress(OSError):
            os.rmdir(self.folder)


def probe(device: str) -> None:
    """Make sure that an error of the device reaches the reader: kernels before early 2026 may give zeros instead.

    `device` is a file whose first block can be read and whose others fail. Raises ErofsUnavailable.
    """
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="probe-", dir=mounts.own_folder())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        image, point = os.path.join(folder, "image"), os.path.join(folder, "mnt")
        os.mkdir(point)
        with open(image, "wb") as file:
            _probe_image(lambda at, plain: os.pwrite(file.fileno(), plain, at))
        mount_image(image, [device], point, MountOptions(cache_bytes=0))
        stack.callback(mounts.unmount, point, detach=True)
        with open(os.path.join(point, "file"), "rb", buffering=0) as file:
            try:
                plain = file.read(PROBE_BLOCKS * 4096)
                more = file.read(4096)
            except OSError as error:
                if error.errno == errno.EIO:
                    return
                raise ErofsUnavailable(f"this kernel's answers {error.strerror} for a failing device") from None
        if more or len(plain) > 4096:
            raise ErofsUnavailable("this kernel's turns errors of its device into zeros: take a newer one")
        raise ErofsUnavailable("this kernel's ends files where its device fails: take a newer one")


def _probe_image(write: Callable[[int, bytes], object]) -> None:
    pages: dict[bytes, bytes] = {}
    builder = TreeBuilder(lambda name, plain: pages.update({name: plain}))
    builder.add(Entry(b"file", FILE, 0o400, 0, 0, 0, 0, PROBE_BLOCKS * 4096, digest(b"probe"), (), None))
    root = Entry(b"", DIRECTORY, 0o500, 0, 0, 0, 0, 0, builder.finish(), (), None)
    links = Links(None, pages.__getitem__)
    source = Source(root, lambda name: Page(pages[name]), links, lambda entry: (), lambda entry: iter(()))
    write_image(source, write, lambda entry: 0, slots=device_slots(PROBE_BLOCKS))
