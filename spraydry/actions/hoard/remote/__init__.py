"""Hoards behind servers, for those who put and get single files: without a catalog of the repository."""

from spraydry.actions.hoard.remote.hoard import RemoteHoard, hoard_at, servers_at

__all__ = ["RemoteHoard", "hoard_at", "servers_at"]
