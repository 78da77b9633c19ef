"""`spraydry bundle`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def bundle(
    out: str,
    /,
    *versions: str,
    hoard: list[str] | None = None,
    since: list[str] | None = None,
    having: Annotated[str | None, Parameter(name="--for")] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Write versions and hoards to one file, to carry them elsewhere.

    The file is a repository itself: it can be listed and mounted with --repo, and
    `spraydry pull FILE` takes it in. With --since or --for it leaves out what the
    other side has: then it is small, and only `spraydry pull` there gives it all.

    For example:
        spraydry bundle photos.bundle photos
        spraydry bundle monday.bundle photos@v8 --since photos@v7
        spraydry bundle news.bundle photos music --for /mnt/usb/all.sqlite
        spraydry mount --repo photos.bundle photos /mnt/x
        spraydry pull photos.bundle

    Parameters
    ----------
    out
        The file; nothing may be there yet.
    versions
        ROOT (all its versions, under all their names) or ROOT@VERSION.
    hoard
        A hoard, with all its keys; may be given several times.
    since
        ROOT or ROOT@VERSION that the other side has; may be given several times.
    having
        The repository it is for: what both have is left out.
    dry_run
        Only tell what would be in it.
    json
        Print one JSON document.
    """
    from contextlib import ExitStack

    from spraydry.actions.transfer import bundle as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_other, open_repository

    with ExitStack() as stack:
        repository = stack.enter_context(open_repository(read_only=dry_run))
        other = stack.enter_context(open_other(having, read_only=True)) if having is not None else None
        progress = stack.enter_context(Progress(quiet=json))
        made = action(
            repository,
            out,
            versions,
            hoards=hoard or (),
            since=since or (),
            having=other,
            dry_run=dry_run,
            report=progress,
        )
    done = made.transferred
    if json:
        told = {"versions": done.versions, "prerequisites": made.prerequisites, "frames": done.frames}
        terminal.print_json(
            told
            | {"chunks": done.chunks, "sent_bytes": done.sent_bytes, "file_bytes": made.file_bytes}
            | {"dry_run": dry_run}
        )
        return
    plural = terminal.plural
    count = plural(len(done.versions), "version")
    if done.hoards:
        count += f", {plural(len(done.hoards), 'hoard')} with {plural(sum(one.keys for one in done.hoards), 'key')}"
    if made.file_bytes is None:
        terminal.line(f"would hold {count}, about {terminal.size(done.sent_bytes)}")
    else:
        terminal.line(f"{out} holds {count}: {terminal.size(made.file_bytes)}")
    if made.prerequisites:
        some = ", ".join(made.prerequisites[-3:]) + (" and others" if len(made.prerequisites) > 3 else "")
        terminal.line(f"it builds on {some}, which the other side must have")
