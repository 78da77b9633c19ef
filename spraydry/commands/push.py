"""`spraydry push`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.repository.repository import Repository


def push(
    remote: str,
    /,
    *versions: str,
    root: str | None = None,
    hoard: list[str] | None = None,
    overwrite: bool = False,
    limit: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Copy versions and hoards to another repository.

    Only what is missing there is sent. Each version is there as soon as it is
    whole, the oldest first: what was sent before an interruption counts the next
    time. The other repository is made where there is none, in a folder that is
    there.

    A key of a hoard that names something else there is replaced if that is what it
    once named here, and stays if it came after what it names here; if neither knows
    the other's, nothing is sent. Keys that are only there stay.

    For example:
        spraydry push sftp://backup.example/srv/photos photos
        spraydry push s3://bucket/mine photos@v3 music --limit 2M
        spraydry push /mnt/usb/all.sqlite --dry-run
        spraydry push /mnt/usb/all.sqlite --hoard avatars

    Parameters
    ----------
    remote
        The other repository: a path (a SQLite file) or URL, as --repo takes it.
    versions
        ROOT (all its versions, under all their names) or ROOT@VERSION; without any, and no hoard, everything.
    root
        Another name, there, for the one root that is named.
    hoard
        A hoard, with all its keys; may be given several times.
    overwrite
        Replace what keys name there by what they name here.
    limit
        At most so many bytes a second, such as 2M.
    dry_run
        Only tell what would be sent.
    json
        Print one JSON document.
    """
    from spraydry.actions.transfer import check, transfer
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.commands.transferring import tell

    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        check(repository, versions, root, hoard or ())  # before anything is made there
        with _target(remote, limit, dry_run) as other:
            done = transfer(
                repository,
                other,
                versions,
                root=root,
                hoards=hoard or (),
                overwrite=overwrite,
                dry_run=dry_run,
                report=progress,
            )
    tell(done, "sent", "there", dry_run, json)


def _target(remote: str, limit: str | None, dry_run: bool) -> Repository:
    """The other repository; where there is none a new one, or for a dry run one that is nowhere."""
    from spraydry.actions.joining import check_folder
    from spraydry.commands import terminal
    from spraydry.commands.session import open_other
    from spraydry.errors import NotARepository, StoreNotFound

    try:
        return open_other(remote, read_only=dry_run, limit=limit)
    except StoreNotFound:
        check_folder(remote)
    except NotARepository:  # perhaps it was begun and not ended
        if dry_run:
            raise
        return open_other(remote, create=True, limit=limit)
    other = open_other("memory:", create=True) if dry_run else open_other(remote, create=True, limit=limit)
    terminal.warn(f"there was no repository at {remote}: a new one {'would be' if dry_run else 'is'} made")
    return other
