"""EROFS images of what a version holds, made when first wanted and kept in this machine's cache."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator

from spraydry.actions.compose.evaluate import found_by
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import ImageImpossible, StoreError, StoreFull
from spraydry.format.digest import DIGEST_BYTES, digest, hasher
from spraydry.format.entry import DIRECTORY, Entry, Xattrs, encode_entry
from spraydry.format.erofs import Source, write_image
from spraydry.format.erofs_contents import Addresses, device_slots
from spraydry.repository.address import Found
from spraydry.repository.local import cache_folder
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from spraydry.repository.xattrs import as_listed, xattrs_of

DEFAULT_LIMIT_BYTES = 2 << 30
_MADE_AS = b"erofs image 1"  # another way of making them must give them other names
_PIECE_BYTES = 4 << 20


def source_of(repository: Repository, found: Found) -> Source:
    """What the image of an entry is made from. Raises ImageImpossible for what is no directory."""
    if found.entry.kind != DIRECTORY:
        raise ImageImpossible("only of a directory can an image be made")

    def xattrs(entry: Entry) -> Xattrs:
        return as_listed(xattrs_of(entry, repository.read_chunk))

    def filled(entry: Entry) -> Iterator[tuple[int, int]]:
        for span in spans(entry, repository.read_chunk):
            if span.chunk is not None:
                yield span.offset, span.offset + span.length

    return Source(found.entry, repository.page, repository.links(found.version.record.links), xattrs, filled)


def image_path(repository: Repository, found: Found) -> str:
    """Where the image of an entry lies once it is made: named by all that it is made from."""
    key = digest(_MADE_AS + (found.version.record.links or b"") + encode_entry(found.entry))
    return os.path.join(cache_folder(repository.config.repository), f"erofs-{key[:16].hex()}")


def cached_image(repository: Repository, found: Found) -> str | None:
    """The path of the image of an entry, if it was made before and is whole: its digest is compared (4 GB/s)."""
    path = image_path(repository, found)
    try:
        if _is_whole(path):
            os.utime(path)  # used last: kept longest
            return path
        os.unlink(path)
    except OSError:
        pass  # it is not there
    return None


def make_image(
    repository: Repository, found: Found, limit_bytes: int = DEFAULT_LIMIT_BYTES, progress: Report = unheard
) -> str:
    """Make the image of an entry and keep it; its path. Images used longest ago go while all have over `limit_bytes`.

    It holds all metadata; contents lie on devices that follow it (`format.erofs`). Raises ImageImpossible, StoreFull,
    StoreError, CorruptData.
    """
    path = image_path(repository, found)
    folder = os.path.dirname(path)
    total = found.entry.totals
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="erofs-new-", delete=False) as file:
            try:
                image = write_image(
                    source_of(repository, found),
                    lambda at, plain: write_at(file.fileno(), at, plain),
                    Addresses(),
                    slots=device_slots(total.blocks),
                    uuid=digest(encode_entry(found.entry))[:16],
                    tick=lambda inodes: progress(
                        Done("making the image", inodes, total_files=total.inodes, counted="entries")
                    ),
                )
                file.seek(image.size)
                file.write(_digest(file.name, image.size))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"no image can be made in {folder}: {error.strerror}") from None
    _remove_old(folder, path, limit_bytes)
    return path


def write_at(descriptor: int, at: int, plain: bytes | memoryview) -> None:
    """Write all of it at an offset of an open file. Raises OSError."""
    view = memoryview(plain)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count


def _digest(path: str, size: int) -> bytes:
    whole = hasher(large=True)
    with open(path, "rb", buffering=0) as file:
        while size > 0 and (piece := file.read(min(size, _PIECE_BYTES))):
            whole.update(piece)
            size -= len(piece)
    return whole.digest()


def _is_whole(path: str) -> bool:
    """Whether the last 32 bytes of a file are the digest of those before."""
    size = os.path.getsize(path) - DIGEST_BYTES
    with open(path, "rb") as file:
        file.seek(max(size, 0))
        return file.read() == _digest(path, size)


def _remove_old(folder: str, newest: str, limit_bytes: int) -> None:
    """What is mounted stays usable: the kernel holds it open."""
    images = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("erofs-") and entry.path != newest:
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    images.append((status.st_mtime_ns, status.st_size, entry.path))
    held = os.path.getsize(newest)
    for _, size, path in sorted(images, reverse=True):
        held += size
        if held > limit_bytes:
            with contextlib.suppress(OSError):
                os.unlink(path)


if __name__ == "__main__":  # `python -m spraydry.actions.image REPOSITORY WHAT`: what a mount starts beside itself
    os.nice(10)
    with Repository.open(sys.argv[1], read_only=True) as opened, found_by(opened, sys.argv[2]) as (named, _):
        make_image(opened, named)
