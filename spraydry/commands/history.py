"""`spraydry history`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spraydry.actions.history import Event


def history(address: str, /, *, json: bool = False) -> None:
    """Show what happened to a path: when it appeared, changed, vanished.

    A line for each version that changed it, the oldest first, with its size and the
    beginning of its digest as of then. Of a folder, content is what is in it.

    For example:
        spraydry history photos:albums.json
        spraydry history photos:2024
        spraydry history --json photos:albums.json   # with whole digests

    Parameters
    ----------
    address
        ROOT:PATH
    json
        Print a JSON array, an element for each event.
    """
    from spraydry.actions.history import history as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository() as repository, Progress(quiet=json) as progress:
        events = list(action(repository, address, progress))
    if json:
        terminal.print_json_list(map(_document, events))
        return
    terminal.table(
        ("version", "made", "what", "size", "digest", ""),
        (
            (
                str(event.version),
                terminal.moment(event.version.record.made_ns // 10**9),
                event.what,
                "-" if event.entry is None else terminal.size(event.entry.totals.size),
                (_digest(event) or "-")[:12],
                _notes(event),
            )
            for event in events
        ),
        right=(3,),
    )


def _digest(event: Event) -> str | None:
    """Of a file that of its bytes, of a folder that of all in it."""
    from spraydry.format.entry import Subtree

    entry = event.entry
    if entry is None:
        return None
    name = entry.content.digest if isinstance(entry.content, Subtree) else entry.file_digest
    return name.hex() if name else None


def _notes(event: Event) -> str:
    """What else there is to say: what it is, if no file, and what changed."""
    from spraydry.actions.describe import KINDS
    from spraydry.commands import terminal
    from spraydry.format.entry import FILE, SYMLINK

    notes = list(event.aspects)
    entry = event.entry
    if entry is not None and entry.kind != FILE and (event.what == "appeared" or "kind" in notes):
        notes.insert(0, KINDS[entry.kind])
    if entry is not None and entry.kind == SYMLINK and isinstance(entry.content, bytes):
        notes.append(f"-> {terminal.printable(entry.content)}")
    if event.what == "vanished" and event.version.record.incomplete:
        notes.append("the version is incomplete: it may have been unreadable")
    return ", ".join(notes)


def _document(event: Event) -> dict[str, Any]:
    from dataclasses import fields

    from spraydry.actions.describe import Described, describe
    from spraydry.repository.address import Found

    version, entry = event.version, event.entry
    nothing = dict.fromkeys(field.name for field in fields(Described))
    told = nothing if entry is None else vars(describe(Found(version, b"", entry, 0), b""))
    return {
        "version": str(version),
        "made_ns": version.record.made_ns,
        "incomplete": version.record.incomplete,
        "what": event.what,
        "aspects": event.aspects,
        **{name: value for name, value in told.items() if name != "path"},
        "digest": _digest(event),
    }
