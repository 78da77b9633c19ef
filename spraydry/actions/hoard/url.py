"""Addresses of single files, for programs that know nothing of spraydry."""

from __future__ import annotations

from urllib.parse import urlsplit

from spraydry.errors import KeyNotFound, UsageError
from spraydry.repository.keys import Kept
from spraydry.repository.repository import Repository
from spraydry.stores.remote.hoards import public_path


def address_of(
    repository: Repository, hoard: str, key: str, kept: Kept | None, server: str | None, expires_s: float | None
) -> str:
    """Where the file of a key can be read: as Hoard.url."""
    if kept is None:
        raise KeyNotFound(f"{hoard}/{key} is not there")
    if server is None:
        raise UsageError("a link leads to a server: run `spraydry serve`, and give its address with --server")
    return on_server(server, public_path(hoard, key))


def on_server(server: str, path: str) -> str:
    """A path on a server with that address. Raises UsageError where it is none."""
    try:
        parts = urlsplit(server)
        _ = parts.port  # raises where that is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{server!r} is not the address of a server: it is to be http://HOST[:PORT]")
    return server.rstrip("/") + path
