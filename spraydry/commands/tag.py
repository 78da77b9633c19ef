"""`spraydry tag`."""

from __future__ import annotations


def tag(version: str, name: str, /, *, dry_run: bool = False, json: bool = False) -> None:
    """Give a version another name.

    The version then has both: either one names it everywhere, and it stays for as
    long as one of its names is there. `spraydry rm ROOT@NAME` takes a name away,
    `spraydry log` shows them all. A name is never used twice in a root.

    For example:
        spraydry tag photos@v3 before-the-move
        spraydry tag photos release-2           # the newest version

    Parameters
    ----------
    version
        ROOT[@VERSION]
    name
        The name it gets: letters, digits and . _ -
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions.tag import tag as action
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository:
        tagged = action(repository, version, name, dry_run=dry_run)
    if json:
        terminal.print_json(
            {"version": str(tagged), "root": tagged.root, "name": name, "made_in": tagged.made_in, "dry_run": dry_run}
        )
    else:
        terminal.line(f"{tagged} {'would be' if dry_run else 'is'} {tagged.root}@{name}, too")
