"""`spraydry undelete`."""

from __future__ import annotations


def undelete(*versions: str, dry_run: bool = False, json: bool = False) -> None:
    """Bring versions or keys of hoards back, as long as their bytes are there.

    `spraydry log --removed` shows which versions were removed, `spraydry keys HOARD
    --history KEY` what became of a key: it names again what it did before it was
    deleted, or overwritten. All versions that are named are brought back, or none.

    For example:
        spraydry undelete photos@v2
        spraydry log --removed photos
        spraydry undelete avatars/alice.png

    Parameters
    ----------
    versions
        ROOT@VERSION, or HOARD/KEY
    dry_run
        Only tell what would be done.
    json
        Print a JSON array, an element for each version.
    """
    from spraydry.actions.hoard.address import parse_key
    from spraydry.actions.remove import bring_back
    from spraydry.commands import terminal
    from spraydry.commands.session import open_hoard, open_repository
    from spraydry.errors import UsageError

    if not versions:
        raise UsageError("name a version: spraydry undelete ROOT@VERSION (`spraydry log --removed` shows which)")
    keys = [one for one in versions if "/" in one.partition("@")[0].partition(":")[0]]
    named = [one for one in versions if one not in keys]
    done, revived = [], []
    if named:
        with open_repository(read_only=dry_run) as repository:
            done = bring_back(repository, named, dry_run=dry_run)
    for key in keys:
        address = parse_key(key)
        with open_hoard(address.hoard, read_only=dry_run) as hoard:
            revived.append((key, hoard.undelete(address.key, dry_run=dry_run)))
    if json:
        terminal.print_json_list(
            [
                *({"version": str(one.version), "also": one.other_names, "dry_run": dry_run} for one in done),
                *({"key": key, "size": kept.size, "dry_run": dry_run} for key, kept in revived),
            ]
        )
        return
    for key, kept in revived:
        what = f"{terminal.printable(key.encode())}: {terminal.size(kept.size)}"
        terminal.line(f"{'would bring' if dry_run else 'brought'} back {what}")
    for one in done:
        totals = one.version.record.entry.totals
        also = f"; it is there as {', '.join(one.other_names)}, too" if one.other_names else ""
        terminal.line(
            f"{'would bring' if dry_run else 'brought'} back {one.version}:"
            f" {terminal.plural(totals.files, 'file')}, {terminal.size(totals.size)}{also}"
        )
