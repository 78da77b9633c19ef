"""`spraydry clone`."""

from __future__ import annotations


def clone(
    remote: str,
    new: str,
    /,
    *versions: str,
    lazy: bool = False,
    limit: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Make a new repository of what another one holds.

    With --lazy only versions and trees are fetched: everything can be listed and
    mounted at once. What files hold is fetched from the other repository when it is
    read, and kept, so that what was read once is there without it. `spraydry pull`
    in the clone fetches all that is left.

    For example:
        spraydry clone sftp://backup.example/srv/photos photos.sqlite
        spraydry clone --lazy s3://bucket/mine here.sqlite photos
        spraydry pull --repo here.sqlite

    Parameters
    ----------
    remote
        The other repository: a path (a SQLite file) or URL, as --repo takes it.
    new
        Where the new one goes: a path or URL; a lazy one lies on this machine.
    versions
        ROOT (all its versions, under all their names) or ROOT@VERSION; without any, everything.
    lazy
        Fetch what files hold only when it is read.
    limit
        At most so many bytes a second, such as 2M.
    dry_run
        Only tell what would be fetched.
    json
        Print one JSON document.
    """
    from spraydry.actions.transfer import check, clone_lazily, transfer
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_other
    from spraydry.commands.transferring import tell
    from spraydry.errors import StoreNotFound, UsageError
    from spraydry.repository.places import forget

    with open_other(remote, limit=limit) as other, Progress(quiet=json) as progress:
        check(other, versions)  # before anything is made
        try:
            open_other(new).close()
        except StoreNotFound:
            if not dry_run:
                forget(new)
        else:
            raise UsageError(f"there is a repository at {new} already: `spraydry pull {remote}` fetches what it lacks")
        with open_other("memory:" if dry_run else new, create=True) as repository:
            if dry_run:
                done = transfer(other, repository, versions, contents=not lazy, dry_run=True, report=progress)
            elif lazy:
                done = clone_lazily(other, repository, versions, report=progress)
            else:
                done = transfer(other, repository, versions, report=progress)
    tell(done, "fetched", "here", dry_run, json)
    if lazy and not json and not dry_run:
        terminal.line("what files hold is fetched when it is read: `spraydry pull` fetches the rest")
