"""`spraydry info`."""

from __future__ import annotations


def info(*, json: bool = False) -> None:
    """Show what a repository holds and what that takes.

    For example:
        spraydry info
        spraydry info --repo /backup/photos.sqlite --json

    Parameters
    ----------
    json
        Print one JSON document.
    """
    from spraydry.actions.info import info as action
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        found = action(repository)
    if json:
        terminal.print_json(found)
        return
    taken = found.file_bytes if found.file_bytes is not None else found.stored_bytes
    times = f" ({found.logical_bytes / taken:.1f} times as much)" if taken and found.logical_bytes else ""
    keys = terminal.plural(sum(hoard.keys for hoard in found.hoards), "key")
    hoards = f"{', '.join(hoard.name for hoard in found.hoards[:5])} with {keys}"
    rows = [
        ("repository", terminal.printable(found.url)),
        ("id", found.repository),
        ("holds", f"{terminal.plural(len(found.roots), 'root')}, {terminal.plural(found.versions, 'version')}"),
        *([("hoards", hoards)] if found.hoards else []),
        ("all of it" if found.hoards else "all versions", f"{terminal.size(found.logical_bytes)}{times}"),
        ("deduplicated", f"{terminal.size(found.plain_bytes)} in {terminal.plural(found.chunks, 'chunk')}"),
        ("compressed", f"{terminal.size(found.stored_bytes)} in {terminal.plural(found.frames, 'frame')}"),
    ]
    if found.file_bytes is not None:
        rows.append(("file", terminal.size(found.file_bytes)))
    if found.builds_on:
        rows.append(("builds on", ", ".join(found.builds_on)))
    if found.origin is not None:
        rows.append(("lazy clone of", terminal.printable(found.origin)))
        rows.append(("fetched", f"{found.frames_here:,} of {terminal.plural(found.frames, 'frame')}"))
    for name, value in rows:
        terminal.line(f"{name + ':':<13} {value}")
    if found.classes:
        terminal.line()
        terminal.table(
            ("class", "dictionary", "frames", "plain", "stored", "ratio"),
            (
                (
                    usage.frame_class,
                    usage.dictionary[:12] if usage.dictionary else "-",
                    f"{usage.frames:,}",
                    terminal.size(usage.plain_bytes),
                    terminal.size(usage.stored_bytes),
                    f"{usage.plain_bytes / usage.stored_bytes:.2f}" if usage.stored_bytes else "-",
                )
                for usage in found.classes
            ),
            right=(2, 3, 4, 5),
        )
