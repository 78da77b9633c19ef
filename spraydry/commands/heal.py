"""`spraydry heal`."""

from __future__ import annotations


def heal(*, read: bool = False, dry_run: bool = False, json: bool = False) -> int:
    """Bring everything to as many copies as it should have.

    Of a repository on several stores: delivers what a store missed while it did not
    answer, copies frames that lie on too few stores, replaces copies that are
    damaged (found by their sizes; with --read by their bytes), and empties stores
    that are drained. Caches in front of stores are passed by. Exit code 7:
    something could not be brought to its number of copies.

    For example:
        spraydry heal --dry-run
        spraydry heal
        spraydry heal --read    # once a month, or after `verify` told of damage

    Parameters
    ----------
    read
        Read every copy, and compare it with its name.
    dry_run
        Only tell what would be copied and removed.
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import heal as action
    from spraydry.commands.moving import run

    return run(
        lambda repository, progress: action(repository, progress, every_copy=read, dry_run=dry_run), dry_run, json
    )
