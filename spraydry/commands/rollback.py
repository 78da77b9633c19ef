"""`spraydry rollback`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def rollback(
    version: str,
    /,
    *,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Make an old version the newest one again.

    A new version is made, equal to the old one; the versions in between stay, and
    nothing is stored twice. If the newest version is equal already, none is made.

    For example:
        spraydry rollback photos@v3
        spraydry rollback photos@v3 --as as-it-was

    Parameters
    ----------
    version
        ROOT@VERSION
    as_
        Name of the new version; by default v1, v2, and so on.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions.rollback import rollback as action
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository:
        done = action(repository, version, name=as_, dry_run=dry_run)
    if json:
        terminal.print_json(
            {
                "from": str(done.old),
                "root": done.old.root,
                "version": done.version.name if done.version else None,
                "new": done.new,
                "named": done.named,
                "dry_run": dry_run,
            }
        )
        return
    totals = done.old.record.entry.totals
    holds = f"{terminal.plural(totals.files, 'file')}, {terminal.size(totals.size)}"
    if done.new:
        made = f"{done.version} is there" if done.version else f"a new version of {done.old.root} would be made"
        terminal.line(f"{made}, equal to {done.old}: {holds}")
    elif done.named:
        made = f"{done.old.root}@{as_} {'would be' if dry_run else 'is'} there"
        terminal.line(f"{made}: the newest version equals {done.old}, so it is another name of that")
    else:
        terminal.line(f"{done.version}, the newest, equals {done.old}: no new version was made")
