"""What verbs tell of a version that was made of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.compose.compose import Made


def tell(made: Made, dry_run: bool, json: bool) -> None:
    """The version, what it was made of, and what that took."""
    from spraydry.commands import terminal

    if json:
        terminal.print_json(
            {
                "root": made.root,
                "version": made.version.name if made.version else None,
                "new": made.new,
                "named": made.named,
                "expression": made.expression,
                "files": made.files,
                "bytes": made.size,
                "incomplete": made.incomplete,
                "new_bytes": made.new_bytes,
                "stored_bytes": made.stored_bytes,
                "dry_run": dry_run,
            }
        )
        return
    expression = terminal.printable(made.expression)
    incomplete = ", incomplete as what it is made of" if made.incomplete else ""
    if dry_run:
        terminal.line(
            f"{made.root}: a new version would be made of {expression}{incomplete}"
            if made.new
            else f"{made.version} is the same: no new version would be made"
        )
    elif made.new:
        terminal.line(f"{made.version} is there, made of {expression}{incomplete}")
    elif made.named:
        terminal.line(f"{made.version} is there: another name of the newest version, which is the same")
    else:
        terminal.line(f"{made.version} is the same: no new version was made")
    terminal.line(f"  {terminal.plural(made.files, 'file')}, {terminal.size(made.size)}")
    terminal.line(f"  new           {terminal.size(made.new_bytes)}, stored in {terminal.size(made.stored_bytes)}")
