"""A content-addressed, deduplicating, versioned file system that one mounts read-only.

`spraydry.open()` gives a Repository: its roots, versions, entries, files as streams. `spraydry.put()` stores a stream,
`spraydry.Hoard` keeps single files under keys, `spraydry.actions` holds what else one can do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from spraydry.actions.hoard.hoard import Hoard
    from spraydry.repository.repository import Repository
    from spraydry.repository.versions import Version

__version__ = "0.1.0"
__all__ = ["Hoard", "__version__", "default_url", "open", "put"]


def __getattr__(name: str) -> object:
    if name == "Hoard":  # with all it needs it takes longer to import than the rest of a quick command
        from spraydry.actions.hoard.hoard import Hoard

        return Hoard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def default_url() -> str:
    """Where the repository lies when nobody says: $SPRAYDRY_REPO, else a SQLite file in the XDG data directory."""
    if url := os.environ.get("SPRAYDRY_REPO"):
        return url
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "spraydry", "repository.sqlite")


def open(url: str | os.PathLike[str] | None = None, *, create: bool = False, read_only: bool = False) -> Repository:
    """The repository at a path (a SQLite file) or URL, by default the one the command line uses.

    With `create` one is made where there is nothing. It is to be closed (`with` does). Raises StoreNotFound,
    NotARepository, FormatTooNew, StoreUnavailable and other errors of `spraydry.errors`.
    """
    from spraydry.repository.repository import Repository

    return Repository.open(default_url() if url is None else os.fspath(url), create=create, read_only=read_only)


def put(repository: Repository, root: str, path: str | bytes, stream: BinaryIO, *, name: str | None = None) -> Version:
    """Store a binary stream as the file at `path` of a root, and commit that as its newest version.

    `spraydry.actions.put.put_stream` takes more options and tells what is raised.
    """
    from spraydry.actions.put import put_stream

    return put_stream(repository, root, path, stream, name=name)
