"""`spraydry log`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spraydry.repository.log import Version


def log(root: str | None = None, /, *, json: bool = False) -> None:
    """Show the versions of a root, oldest first: when, how large, and what each one added.

    `new` are the plain bytes a version added that were nowhere before, `stored`
    what they took once compressed.

    For example:
        spraydry log photos
        spraydry log                # of all roots

    Parameters
    ----------
    root
        The name of a root; without it all are shown.
    json
        Print a JSON array, an element for each version.
    """
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
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
