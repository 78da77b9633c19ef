"""Which engine serves a mount, and running it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

from spraydry.actions.image import cached_image, make_image
from spraydry.errors import ImageImpossible, StoreError
from spraydry.format.erofs_contents import device_slots
from spraydry.mount import erofs
from spraydry.mount.device import DeviceFs
from spraydry.mount.fetch import ChunkFetcher
from spraydry.mount.fs import VersionFs
from spraydry.mount.options import MountOptions
from spraydry.mount.session import raise_read_ahead
from spraydry.mount.session import serve as serve_session
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository

# As many inodes as an image is made of within 300 ms, measured on one core of 2.6 GHz.
AT_ONCE_INODES = 20_000

log = logging.getLogger("spraydry.mount")

# Called with the device number of the mount, and the engine in words.
Mounted = Callable[[int, str], None]


def serve(repository: Repository, found: Found | None, point: str, options: MountOptions, mounted: Mounted) -> None:
    """Mount with the engine the options name, serve until it is unmounted. Raises MountError, ErofsUnavailable."""
    why = ""
    to_make: Found | None = None
    if options.engine != "fuse":
        try:
            _serve_erofs(repository, found, point, options, mounted)
            return
        except (erofs.ErofsUnavailable, ImageImpossible) as error:
            if options.engine == "erofs":
                raise erofs.ErofsUnavailable(f"no erofs here: {error}; --engine fuse always works") from None
            why = f" (no erofs: {error})"
        except _NotYet as error:
            why = f" ({error})"
            to_make = error.found

    def mounted_now(device: int) -> None:
        mounted(device, "fuse" + why)
        if to_make is not None:
            _make_in_background(repository, to_make)

    fetch = ChunkFetcher(repository)
    serve_session(VersionFs(fetch, found, options.owner), fetch, point, options.fuse(), mounted_now)


class _NotYet(Exception):
    def __init__(self, found: Found) -> None:
        inodes = found.entry.totals.inodes
        super().__init__(f"the erofs image of its {inodes:,} entries is being made for the next mount")
        self.found = found


def _serve_erofs(
    repository: Repository, found: Found | None, point: str, options: MountOptions, mounted: Mounted
) -> None:
    erofs.check(point, options)
    if found is None:
        raise erofs.ErofsUnavailable("it shows one version, not every root")
    image, how = _image(repository, found, options)
    slots = device_slots(found.entry.totals.blocks)
    with closing(erofs.Inner(image, len(slots), point, options)) as inner:

        def cover(_: int) -> None:
            device = inner.cover()
            raise_read_ahead(device)
            mounted(device, f"erofs ({how})")

        fetch = ChunkFetcher(repository)
        private = MountOptions(options.cache_bytes).fuse()
        serve_session(DeviceFs(fetch, found.entry, slots), fetch, inner.folder, private, cover, inner.uncover)


def _image(repository: Repository, found: Found, options: MountOptions) -> tuple[str, str]:
    image = cached_image(repository, found)
    if image is not None:
        return image, "its image was there"
    inodes = found.entry.totals.inodes
    if options.engine == "auto" and inodes > AT_ONCE_INODES:
        raise _NotYet(found)
    try:
        return make_image(repository, found), f"the image of its {inodes:,} entries was made"
    except StoreError as error:  # no room for it, or no right to write there: another engine needs none
        raise erofs.ErofsUnavailable(str(error)) from None


def _make_in_background(repository: Repository, found: Found) -> None:
    """In a process of its own: this one has a mount to serve."""
    address = f"{found.version}:{os.fsdecode(found.path)}" if found.path else str(found.version)
    subprocess.Popen(
        [sys.executable, "-m", "spraydry.actions.image", repository.url, address],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
