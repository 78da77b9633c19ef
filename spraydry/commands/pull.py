"""`spraydry pull`."""

from __future__ import annotations


def pull(
    remote: str,
    /,
    *versions: str,
    root: str | None = None,
    limit: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Copy versions from another repository into this one.

    Only what is missing here is fetched, and all of it is verified. Each version is
    there as soon as it is whole, the oldest first: what was fetched before an
    interruption counts the next time. A repository is made where there is none.

    For example:
        spraydry pull sftp://backup.example/srv/photos
        spraydry pull https://example.org/photos photos@v3
        spraydry pull /mnt/usb/all.sqlite photos --root photos-old --dry-run

    Parameters
    ----------
    remote
        The other repository: a path (a SQLite file) or URL, as --repo takes it.
    versions
        ROOT (all its versions, under all their names) or ROOT@VERSION; without any, everything.
    root
        Another name, here, for the one root that is named.
    limit
        At most so many bytes a second, such as 2M.
    dry_run
        Only tell what would be fetched.
    json
        Print one JSON document.
    """
    from spraydry.actions.transfer import check, transfer
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_remote, open_repository
    from spraydry.commands.transferring import tell
    from spraydry.errors import StoreNotFound

    with open_remote(remote, limit=limit) as other, Progress(quiet=json) as progress:
        check(other, versions, root)  # before anything is made here
        try:
            repository = open_repository(create=not dry_run, read_only=dry_run)
        except StoreNotFound:
            if not dry_run:
                raise
            repository = open_remote("memory:", create=True, read_only=False)
        with repository:
            done = transfer(other, repository, versions, root=root, dry_run=dry_run, report=progress)
    tell(done, "fetched", dry_run, json)
