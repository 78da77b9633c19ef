"""What this machine keeps of a repository: its catalog, and the folder for what can be made again."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

from spraydry.repository.catalog import Catalog
from spraydry.repository.opening import Opened
from spraydry.stores.database.database import Database
from spraydry.stores.sqlite import SqliteStore


def open_catalog(opened: Opened) -> Catalog:
    """The catalog in the file of the store that owns the log where that is SQLite, else one in the cache directory of
    this machine: not that of a server on this machine, for a client that writes has its own locked while it waits for
    that."""
    if isinstance(opened.owner, SqliteStore):
        catalog = Catalog(opened.owner.database)
        if catalog.usable:
            return catalog
    if not opened.store.lasting:
        folder = tempfile.mkdtemp(prefix="spraydry-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    else:
        folder = cache_folder(opened.config.repository)
    served = opened.owner is not None and opened.owner.served
    return Catalog(Database(os.path.join(folder, "served.sqlite" if served else "catalog.sqlite"), "", create=True))


def cache_folder(repository: bytes) -> str:
    """The folder of this machine for what can be made again about a repository (under $XDG_CACHE_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "spraydry", repository.hex())
