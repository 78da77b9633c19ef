"""`spraydry undelete`."""

from __future__ import annotations


def undelete(*versions: str, dry_run: bool = False, json: bool = False) -> None:
    """Bring versions back that were removed, as long as their bytes are there.

    `spraydry log --removed` shows what was removed. All that are named are brought
    back, or none.

    For example:
        spraydry undelete photos@v2
        spraydry log --removed photos

    Parameters
    ----------
    versions
        ROOT@VERSION
    dry_run
        Only tell what would be done.
    json
        Print a JSON array, an element for each version.
    """
    from spraydry.actions.remove import bring_back
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if not versions:
        raise UsageError("name a version: spraydry undelete ROOT@VERSION (`spraydry log --removed` shows which)")
    with open_repository(read_only=dry_run) as repository:
        done = bring_back(repository, versions, dry_run=dry_run)
    if json:
        terminal.print_json_list(
            {"version": str(one.version), "also": one.other_names, "dry_run": dry_run} for one in done
        )
        return
    for one in done:
        totals = one.version.record.entry.totals
        also = f"; it is there as {', '.join(one.other_names)}, too" if one.other_names else ""
        terminal.line(
            f"{'would bring' if dry_run else 'brought'} back {one.version}:"
            f" {terminal.plural(totals.files, 'file')}, {terminal.size(totals.size)}{also}"
        )
