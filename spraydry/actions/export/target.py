"""The file an export is written to: there when it is complete, not before."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from spraydry.errors import StoreError, StoreFull, UsageError


@dataclass
class Exported:
    """What was written: counts of entries and files, the `size` of these together, and of what was made of them.
    `left_out` says what the format cannot hold, as (path, why)."""

    entries: int = 0
    files: int = 0
    size: int = 0
    written_bytes: int = 0
    left_out: list[tuple[bytes, str]] = field(default_factory=list)


@contextlib.contextmanager
def new_file(path: str, overwrite: bool) -> Iterator[str]:
    """The path of a file to write into, which is renamed to `path` at the end, and gone after an error. Raises
    UsageError where there is something already, StoreError, StoreFull."""
    path = os.path.abspath(path)
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{path} exists: name another file, or add --overwrite")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory: name a file")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".spraydry-export-")
        try:
            os.close(descriptor)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        kind = StoreFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StoreError
        raise kind(f"{path} cannot be written: {error.strerror}") from None
