"""`spraydry rm`."""

from __future__ import annotations


def rm(*versions: str, undo: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Remove versions, or second names of them.

    The bytes stay until they are collected, and until then a removal can be taken
    back with --undo. The name of a version is never used again.

    For example:
        spraydry rm photos@v2
        spraydry rm --undo photos@v2

    Parameters
    ----------
    versions
        ROOT@VERSION
    undo
        Take back a removal.
    dry_run
        Only tell what would be done.
    json
        Print a JSON array, an element for each version.
    """
    from spraydry.actions.remove import bring_back, remove
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if not versions:
        raise UsageError("name a version: spraydry rm ROOT@VERSION")
    action = bring_back if undo else remove
    with open_repository(read_only=dry_run) as repository:
        for address in versions:
            action(repository, address, dry_run=True)  # all or none: whatever is wrong with one is found first
        done = [action(repository, address, dry_run=dry_run) for address in versions]
    if json:
        terminal.print_json_list(
            {"version": str(one.version), "undo": undo, "dry_run": dry_run, "other_names": one.other_names}
            for one in done
        )
        return
    for one in done:
        totals = one.version.record.entry.totals
        verb = ("bring back" if undo else "remove") if dry_run else ("brought back" if undo else "removed")
        stays = f"; it stays as {', '.join(one.other_names)}" if one.other_names and not undo else ""
        terminal.line(
            f"{'would ' if dry_run else ''}{verb} {one.version}:"
            f" {terminal.plural(totals.files, 'file')}, {terminal.size(totals.size)}{stays}"
        )
        if not dry_run and not undo:
            terminal.line(f"take it back with: spraydry rm --undo {one.version}")
