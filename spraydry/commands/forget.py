"""`spraydry forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.forget import Forgotten

_SHOWN = 20


def forget(address: str, /, *, prune: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Take a path out of every version of a root.

    Each version that holds the path is made again without it: v3 as v3-1, with
    the time of v3, tags likewise. Versions that do not hold it stay as they are;
    what was the newest version is the newest one afterwards. The old versions stay
    until --prune removes them; the bytes then go with `spraydry gc`. Until that
    `spraydry undelete` brings them back. Run it again if it was interrupted: in
    between the newest version may be one that is made again, but older.

    For example:
        spraydry forget photos:2024/private --dry-run
        spraydry forget photos:2024/private
        spraydry forget photos:2024/private --prune

    Parameters
    ----------
    address
        ROOT:PATH, a folder or a file.
    prune
        Remove the old versions.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions.forget import forget as run
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        done = run(repository, address, prune=prune, dry_run=dry_run, progress=progress)
    if json:
        terminal.print_json(
            {
                "root": done.root,
                "path": done.path,
                "versions": [
                    {
                        "old": [version.name for version in one.old],
                        "new": one.new,
                        "files": one.gone.files,
                        "bytes": one.gone.size,
                    }
                    for one in done.rewritten
                ],
                "newest": done.newest,
                "untouched": done.untouched,
                "pruned": prune and not dry_run,
                "dry_run": dry_run,
            }
        )
        return
    _tell(done, dry_run)


def _tell(done: Forgotten, dry_run: bool) -> None:
    from spraydry.commands import terminal

    path = terminal.printable(done.path)
    count = terminal.plural(len(done.rewritten), "version")
    held = f"; {terminal.plural(done.untouched, 'other does', 'others do')} not hold it" if done.untouched else ""
    terminal.line(f"{path} {'would be' if dry_run else 'is'} taken out of {count} of {done.root}{held}")
    for one in done.rewritten[:_SHOWN]:
        old = ", ".join(version.name for version in one.old)
        files, size = terminal.plural(one.gone.files, "file"), terminal.size(one.gone.size)
        terminal.line(f"  {old} -> {', '.join(one.new)}: without {files}, {size}")
    if len(done.rewritten) > _SHOWN:
        terminal.line(f"  and {len(done.rewritten) - _SHOWN:,} more")
    if done.newest is not None:
        terminal.line(f"the newest version did not hold it, and stays the newest as {done.newest}")
    if dry_run:
        terminal.line(f"the old versions would {'be removed' if done.pruned else 'stay until --prune removes them'}")
    elif done.pruned:
        gone = [str(version) for one in done.rewritten for version in one.old]
        shown = " ".join(gone[:3]) + (" ..." if len(gone) > 3 else "")
        terminal.line("the old versions are removed; their bytes go with `spraydry gc`")
        terminal.line(f"until they are collected they can be brought back: spraydry undelete {shown}")
    else:
        terminal.line("the old versions stay until it is run again with --prune; their bytes go with `spraydry gc`")
