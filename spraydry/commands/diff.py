"""`spraydry diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spraydry.actions.diff import Change, Side, Summary
    from spraydry.format.entry import Entry


def diff(*addresses: str, tree: bool = False, totals: bool = False, patch: bool = False, json: bool = False) -> None:
    """Show what differs between two versions: every path, also inside new folders.

    A line says what happened (added, removed, changed, renamed), where, and what
    differs: content, kind, mode, owner, mtime, xattrs, links. Folders of which only
    what is in them changed are not told. A file is renamed where the same content
    was at another path before. Nothing is read of what is equal.

    ROOT@VERSION alone is compared with the newest version; ROOT alone shows what
    its newest version changed. The exit code is 0, whatever differs.

    For example:
        spraydry diff photos@v1 photos@v2
        spraydry diff photos@v1 photos@v2 :2024     # only below 2024
        spraydry diff --totals photos@v1            # since v1
        spraydry diff --patch photos                # by the newest version
        spraydry diff laptop:docs desktop:documents

    Parameters
    ----------
    addresses
        ROOT[@VERSION][:PATH], once or twice, and :PATH for both.
    tree
        Print a tree: names below the folders they are in.
    totals
        Print only how many, and how many bytes.
    patch
        Print a unified diff of what is text.
    json
        Print a JSON array, an element for each path; with --totals one document.
    """
    from spraydry.actions import diff as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if tree + totals + patch > 1 or (json and (tree or patch)):
        raise UsageError("choose one of --tree, --totals, --patch, and --json only with --totals")
    with open_repository() as repository, Progress(quiet=json) as progress:
        before, after = action.sides(repository, addresses)
        for side in (before, after):
            if side.version.record.incomplete:
                terminal.warn(f"{side.version} is incomplete: what it lacks may have been there, and unreadable")
        changes = action.diff(repository, before, after, progress)
        if totals:
            _totals(action.summed(changes), json)
        elif json:
            terminal.print_json_list(_document(change, before, after) for change in changes)
        elif patch:
            for change in changes:
                terminal.text(action.patch(repository, change))
        else:
            _list(_tree(changes) if tree else map(_line, changes), before, after)


def _list(lines: Iterable[str], before: Side, after: Side) -> None:
    from spraydry.commands import terminal

    any_line = False
    for line in lines:
        terminal.line(line)
        any_line = True
    if not any_line:
        terminal.warn(f"{before} and {after} are the same")


def _line(change: Change) -> str:
    """What, where, and what differs."""
    was = f"{_name(change.was, change.before)} -> " if change.was is not None else ""
    return f"{change.what:<8} {was}{_name(change.path, change.after or change.before)}{_detail(change)}"


def _name(path: bytes, entry: Entry | None) -> str:
    from spraydry.commands import terminal
    from spraydry.format.entry import DIRECTORY

    return (terminal.printable(path) or ".") + "/" * (entry is not None and entry.kind == DIRECTORY)


def _detail(change: Change) -> str:
    """What differs; of what came or went, its size."""
    from spraydry.actions.describe import KINDS
    from spraydry.commands import terminal
    from spraydry.format.entry import FILE

    before, after = change.before, change.after
    if before is not None and after is not None:
        words = ", ".join(aspect for aspect in change.aspects if aspect != "kind")
        if before.kind != after.kind:
            words = f"{KINDS[before.kind]} -> {KINDS[after.kind]}" + (f", {words}" if words else "")
        return f"  {words}" if words else ""
    one = after or before
    return f"  {terminal.size(one.size)}" if one is not None and one.kind == FILE else ""


_MARKS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">"}


def _tree(changes: Iterable[Change]) -> Iterator[str]:
    """A line for each change, behind lines for the folders above it that were not told before."""
    from spraydry.commands import terminal

    above: list[bytes] = []  # names of the folders that were told last, from the top
    for change in changes:
        names = change.path.split(b"/") if change.path else []
        common = 0
        while common < min(len(above), len(names) - 1) and above[common] == names[common]:
            common += 1
        for depth in range(common, len(names) - 1):
            yield f"{'  ' * depth}  {terminal.printable(names[depth])}/"
        above = names
        entry = change.after or change.before
        was = f"  <- {terminal.printable(change.was)}" if change.was is not None else ""
        indent = "  " * max(len(names) - 1, 0)
        yield f"{indent}{_MARKS[change.what]} {_name(names[-1] if names else b'', entry)}{was}{_detail(change)}"


def _totals(summary: Summary, json: bool) -> None:
    from spraydry.commands import terminal

    if json:
        terminal.print_json(summary)
        return
    grown = summary.changed.bytes - summary.before_bytes
    rows = {
        "added": (summary.added, ""),
        "removed": (summary.removed, ""),
        "renamed": (summary.renamed, ""),
        "changed": (summary.changed, f"{'-' if grown < 0 else '+'}{terminal.size(abs(grown))}" if grown else ""),
        "attributes only": (summary.attributes, ""),
    }
    terminal.table(
        ("", "files", "folders", "others", "size", "grown"),
        (
            (
                name,
                f"{counted.files:,}",
                f"{counted.directories:,}",
                f"{counted.others:,}",
                terminal.size(counted.bytes),
                more,
            )
            for name, (counted, more) in rows.items()
        ),
        right=(1, 2, 3, 4, 5),
    )


def _document(change: Change, before: Side, after: Side) -> dict[str, Any]:
    """A change for machines: everything about both sides."""
    return {
        "what": change.what,
        "path": change.path,
        "was": change.was,
        "aspects": change.aspects,
        "before": _described(before, change.before),
        "after": _described(after, change.after),
    }


def _described(side: Side, entry: Entry | None) -> dict[str, Any] | None:
    from spraydry.actions.describe import describe
    from spraydry.repository.address import Found

    if entry is None:
        return None
    one = vars(describe(Found(side.version, b"", entry, 0), b""))
    return {name: value for name, value in one.items() if name != "path"}
