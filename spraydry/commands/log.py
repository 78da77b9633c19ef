"""`spraydry log`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spraydry.repository.repository import Repository
    from spraydry.repository.versions import Version


def log(root: str | None = None, /, *, removed: bool = False, hoard: str | None = None, json: bool = False) -> None:
    """Show the versions of a root, oldest first, and what each one added.

    `new` are the plain bytes a version added that were nowhere before, `stored`
    what they took once compressed. Second names of a version stand at the end.

    For example:
        spraydry log photos
        spraydry log                    # of all roots
        spraydry log --removed photos
        spraydry log --hoard avatars    # what was put and deleted, day by day

    Parameters
    ----------
    root
        The name of a root; without it all are shown.
    removed
        Show instead which versions, and other names of them, were removed, and when.
    hoard
        Show instead what was done to a hoard, a line for each day.
    json
        Print a JSON array, an element for each version, or day.
    """
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        if hoard is not None:
            _tell_days(repository, hoard, json)
            return
        if removed:
            _tell_removed(repository, root, json)
            return
        names = [root] if root is not None else repository.roots()
        rows = [row for name in names for row in _rows(repository.versions(name))]
    if json:
        terminal.print_json_list(rows)
        return
    if not rows:
        terminal.warn("there is nothing yet: `spraydry ingest DIR` makes the first version")
        return
    terminal.table(
        ("version", "made", "files", "size", "new", "stored", ""),
        (
            (
                row["version"],
                terminal.moment(row["made_ns"] // 10**9),
                f"{row['files']:,}",
                terminal.size(row["bytes"]),
                terminal.size(row["new_bytes"]),
                terminal.size(row["stored_bytes"]),
                _notes(row),
            )
            for row in rows
        ),
        right=(2, 3, 4, 5),
    )


def _tell_days(repository: Repository, hoard: str, json: bool) -> None:
    from spraydry.actions.hoard import days
    from spraydry.commands import terminal

    found = days(repository, hoard)
    if json:
        terminal.print_json_list(found)
        return
    terminal.table(
        ("day", "slots", "put", "size", "deleted"),
        (
            (
                one.day,
                f"{one.first:,}" if one.first == one.last else f"{one.first:,} to {one.last:,}",
                f"{one.puts:,}",
                terminal.size(one.put_bytes),
                f"{one.deletions:,}" + (f", and all {terminal.plural(one.cleared, 'time')}" if one.cleared else ""),
            )
            for one in found
        ),
        right=(2, 3),
    )


def _tell_removed(repository: Repository, root: str | None, json: bool) -> None:
    from spraydry.actions.remove import removed
    from spraydry.commands import terminal

    rows: list[dict[str, Any]] = [
        {
            "version": str(past.version),
            "root": past.version.root,
            "name": past.version.name,
            "slot": past.version.made_in,
            "made_ns": past.version.record.made_ns,
            "removed_ns": past.removed_ns,
            "files": past.version.record.entry.totals.files,
            "bytes": past.version.record.entry.totals.size,
        }
        for past in removed(repository, root)
    ]
    if json:
        terminal.print_json_list(rows)
    elif rows:
        terminal.table(
            ("version", "made", "removed", "files", "size"),
            (
                (
                    row["version"],
                    terminal.moment(row["made_ns"] // 10**9),
                    terminal.moment(row["removed_ns"] // 10**9),
                    f"{row['files']:,}",
                    terminal.size(row["bytes"]),
                )
                for row in rows
            ),
            right=(3, 4),
        )
    else:
        terminal.warn("nothing was removed")


def _rows(versions: list[Version]) -> list[dict[str, Any]]:
    """One for each version, its other names with it."""
    first: dict[int, dict[str, Any]] = {}
    for version in versions:
        if version.made_in in first:
            first[version.made_in]["also"].append(version.name)
            continue
        record = version.record
        totals = record.entry.totals
        first[version.made_in] = {
            "version": str(version),
            "root": version.root,
            "name": version.name,
            "also": [],
            "slot": version.made_in,
            "made_ns": record.made_ns,
            "made_by": record.made_by,
            "files": totals.files,
            "inodes": totals.inodes + 1,
            "bytes": totals.size,
            "new_bytes": record.new_bytes,
            "stored_bytes": record.stored_bytes,
            "incomplete": record.incomplete,
            "chunker": record.spec,
        }
    return list(first.values())


def _notes(row: dict[str, Any]) -> str:
    notes = [f"also {', '.join(row['also'])}"] if row["also"] else []
    return "; ".join(notes + ["incomplete"] * row["incomplete"])
