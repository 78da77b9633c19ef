"""`spraydry pull`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spraydry.actions.progress import Report
    from spraydry.actions.transfer import Transferred


def pull(
    remote: str = "origin",
    /,
    *versions: str,
    root: str | None = None,
    hoard: list[str] | None = None,
    overwrite: bool = False,
    lazy: bool = False,
    limit: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Copy versions and hoards from another repository into this one.

    Only what is missing here is fetched, and all of it is verified. Each version is
    there as soon as it is whole, the oldest first: what was fetched before an
    interruption counts the next time. A repository is made where there is none.

    A key of a hoard that names something else here is replaced if that is what it
    once named there, and stays if it came after what it names there; if neither
    knows the other's, nothing is fetched. Keys that are only here stay.

    In a lazy clone, `origin` (or nothing) means what it was cloned from: new
    versions are fetched, and all that is not here yet; with --lazy only new
    versions and trees.

    For example:
        spraydry pull sftp://backup.example/srv/photos
        spraydry pull https://example.org/photos photos@v3
        spraydry pull /mnt/usb/all.sqlite photos --root photos-old --dry-run
        spraydry pull --lazy

    Parameters
    ----------
    remote
        The other repository: a path (a SQLite file) or URL, as --repo takes it.
    versions
        ROOT (all its versions, under all their names) or ROOT@VERSION; without any, and no hoard, everything.
    root
        Another name, here, for the one root that is named.
    hoard
        A hoard, with all its keys; may be given several times.
    overwrite
        Replace what keys name here by what they name there.
    lazy
        In a lazy clone: leave what files hold at its origin.
    limit
        At most so many bytes a second, such as 2M.
    dry_run
        Only tell what would be fetched.
    json
        Print one JSON document.
    """
    from spraydry.commands.progress import Progress
    from spraydry.commands.transferring import tell
    from spraydry.errors import UsageError

    with Progress(quiet=json) as progress:
        if remote == "origin":
            if root is not None or hoard or overwrite:
                raise UsageError("--root, --hoard and --overwrite are for another REMOTE than a clone's origin")
            done = _from_origin(versions, lazy, limit, dry_run, progress)
        elif lazy:
            raise UsageError("--lazy is for a lazy clone and its origin: `spraydry clone --lazy REMOTE NEW` makes one")
        else:
            done = _from_remote(remote, versions, root, hoard or (), overwrite, limit, dry_run, progress)
    tell(done, "fetched", "here", dry_run, json)


def _from_origin(versions: Sequence[str], lazy: bool, limit: str | None, dry_run: bool, report: Report) -> Transferred:
    from spraydry.actions.transfer import complete, update
    from spraydry.commands.session import open_other, open_repository
    from spraydry.errors import UsageError

    with open_repository(read_only=dry_run) as repository:
        origin = repository.opened.origin
        if origin is None:
            raise UsageError("this is no lazy clone: name a REMOTE to pull from")
        with open_other(origin.url, read_only=dry_run, limit=limit) as other:
            return (update if lazy else complete)(other, repository, versions, dry_run=dry_run, report=report)


def _from_remote(
    remote: str,
    versions: Sequence[str],
    root: str | None,
    hoards: Sequence[str],
    overwrite: bool,
    limit: str | None,
    dry_run: bool,
    report: Report,
) -> Transferred:
    from spraydry.actions.transfer import check, transfer
    from spraydry.commands.session import open_other, open_repository
    from spraydry.errors import StoreNotFound

    with open_other(remote, read_only=dry_run, limit=limit) as other:
        check(other, versions, root, hoards)  # before anything is made here
        try:
            repository = open_repository(create=not dry_run, read_only=dry_run)
        except StoreNotFound:
            if not dry_run:
                raise
            repository = open_other("memory:", create=True)
        with repository:
            return transfer(
                other,
                repository,
                versions,
                root=root,
                hoards=hoards,
                overwrite=overwrite,
                dry_run=dry_run,
                report=report,
            )
