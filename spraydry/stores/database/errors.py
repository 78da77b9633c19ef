"""The errors of SQLite and of making its files, as ours, in one line each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from spraydry.errors import (
    CorruptData,
    NotARepository,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

_KINDS: dict[int, type[StoreError]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EROFS: StoreReadOnly,
}


@contextmanager
def translated(path: str) -> Iterator[None]:
    """SQLite's errors as ours, in one line each."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError):
        raise StoreUnavailable(f"{path} is locked by another process; try again when it has finished") from None
    except apsw.FullError:
        raise StoreFull(f"no room is left for {path}: free some space and run the command again") from None
    except (apsw.ReadOnlyError, apsw.PermissionsError):
        raise StoreReadOnly(f"{path} cannot be written (permissions, or a read-only medium)") from None
    except apsw.NotADBError:
        raise NotARepository(f"{path} is not a spraydry repository") from None
    except (apsw.CorruptError, apsw.FormatError, apsw.SchemaChangeError, apsw.ConstraintError) as error:
        raise CorruptData(f"{path} is damaged: {error}") from None
    except apsw.CantOpenError as error:
        if os.path.exists(path) and not os.access(path, os.R_OK):
            raise StoreError(f"{path} cannot be opened: no permission to read it") from None
        raise StoreError(f"{path} cannot be opened: {error}") from None
    except apsw.IOError as error:
        if _is_full(path):  # of its shared memory, SQLite does not say that the disk is full
            raise StoreFull(f"no room is left for {path}: free some space and run the command again") from None
        raise StoreError(f"{path} cannot be read or written: {error}") from None
    except (apsw.Error, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: {type(error).__name__}: {error}") from None


def of_os(error: OSError, path: str) -> SprayDryError:
    """An error of making the file `path`."""
    if isinstance(error, PermissionError):
        return StoreReadOnly(f"{path} cannot be made: no permission")
    return _KINDS.get(error.errno or 0, StoreError)(f"{path} cannot be made: {error.strerror}")


def _is_full(path: str) -> bool:
    try:
        found = os.statvfs(os.path.dirname(path))
    except (OSError, AttributeError):
        return False
    return found.f_bavail * found.f_frsize < 64 << 10
