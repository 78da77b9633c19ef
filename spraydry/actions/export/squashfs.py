"""A squashfs image of a version, made by mksquashfs from a tar stream."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from typing import IO

from spraydry.actions.export.tar import write_tar
from spraydry.actions.export.target import Exported
from spraydry.actions.progress import Report, unheard
from spraydry.errors import StoreError, UsageError
from spraydry.format.entry import DIRECTORY
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository


class _UntilEnd:
    """Writes to a program that may end when it has read the end of the archive: what fills up the last record behind
    that need not be taken."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lost_bytes = 0

    def write(self, value: bytes) -> int:
        left = memoryview(value)
        try:
            while left and not self._lost_bytes:
                left = left[self._pipe.write(left) :]
        except BrokenPipeError:
            pass
        self._lost_bytes += len(left)
        if self._lost_bytes > tarfile.RECORDSIZE:
            raise BrokenPipeError
        return len(value)


def write_squashfs(
    repository: Repository, found: Found, path: str, level: int = 3, progress: Report = unheard
) -> Exported:
    """Write the image of what is found, a directory, into the file at `path`, with zstd at a level from 1 to 22.

    Raises UsageError, StoreError where mksquashfs is missing or fails, and what reading a file raises.
    """
    if found.entry.kind != DIRECTORY:
        raise UsageError("only of a directory can an image be made: --format tar takes single files")
    if (program := shutil.which("mksquashfs")) is None:
        raise StoreError("mksquashfs is missing: apt install squashfs-tools")
    top = found.entry  # mksquashfs does not take the root's attributes from the stream
    root = ["-root-mode", f"{top.mode:o}", "-root-uid", str(top.uid), "-root-gid", str(top.gid)]
    if 0 <= top.mtime_s < 1 << 32:
        root += ["-root-time", str(top.mtime_s)]
    options = ["-comp", "zstd", "-Xcompression-level", str(level), "-b", "128K", "-noappend", "-no-progress", "-quiet"]
    with subprocess.Popen(
        [program, "-", path, "-tar", *options, *root],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None and running.stderr is not None
        broken = False
        try:
            # Some versions of mksquashfs misread files with holes; the zeros take no room in the image anyway.
            done = write_tar(repository, found, running.stdin, progress, holes=False)
            running.stdin.close()
        except BrokenPipeError:  # it ended; it says why
            broken = True
        except BaseException:
            running.kill()
            running.wait()
            raise
        finally:
            with suppress(BrokenPipeError):  # of what was not written yet
                running.stdin.close()
        said = " ".join(running.stderr.read().decode(errors="replace").split())
        if running.wait() != 0 or broken:
            raise StoreError(f"mksquashfs failed: {said or running.returncode}")
    done.written_bytes = os.path.getsize(path)
    return done
