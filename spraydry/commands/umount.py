"""`spraydry umount`."""

from __future__ import annotations


def umount(*directories: str, lazy: bool = False) -> None:
    """Unmount, and return when the daemon has ended.

    For example:
        spraydry umount /mnt/x
        spraydry umount --lazy ~/before ~/now

    Parameters
    ----------
    directories
        Where something is mounted.
    lazy
        Take the mount away at once, although files in it are in use; it is served until they are closed.
    """
    from spraydry.errors import UsageError
    from spraydry.mount.mounts import take_down

    if not directories:
        raise UsageError("name the directory to unmount: spraydry umount DIR")
    for directory in directories:
        take_down(directory, lazy)
