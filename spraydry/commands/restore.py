"""`spraydry restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.restore import Plan, Restored


def restore(
    address: str, directory: str, /, *, overwrite: bool = False, dry_run: bool = False, json: bool = False
) -> int | None:
    """Put what an address names into a directory, with every attribute, verified.

    A directory's contents go into DIRECTORY, anything else goes there under its
    name. DIRECTORY is made if it is missing; nothing is written outside it. A file
    whose stored bytes are damaged is left out and told, the rest is restored.

    For example:
        spraydry restore photos@v2:2024 ~/again
        spraydry restore photos:2024/a.jpg .  --overwrite

    Parameters
    ----------
    address
        ROOT[@VERSION][:PATH]
    directory
        Where to put it.
    overwrite
        Also into a directory that holds something: what is in the way is replaced, the rest stays.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions import restore as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import CorruptData, RestoreError

    with open_repository() as repository:
        found = repository.resolve(address)
        if dry_run:
            plan = action.plan(repository, found, directory, overwrite=overwrite)
            if json:
                terminal.print_json({"dry_run": True, **vars(plan)})
            else:
                terminal.line("would restore " + _sum(plan))
            return None
        with Progress(quiet=json) as progress:
            done = action.restore(repository, found, directory, overwrite=overwrite, report=progress)
            seconds = progress.seconds
    if json:
        terminal.print_json({"dry_run": False, **vars(done), "seconds": round(seconds, 3)})
    else:
        terminal.line(f"restored {_sum(done)} in {terminal.duration(seconds)}")
        for note, count in done.notes.items():
            terminal.warn(f"{note} ({count:,})")
        for problem in done.problems:
            terminal.warn(f"{terminal.printable(problem.path) or '/'}: {problem.reason}")
        if done.problem_count > len(done.problems):
            terminal.warn(f"... and {done.problem_count - len(done.problems):,} more")
    if done.problem_count:
        return CorruptData.exit_code if done.damaged else RestoreError.exit_code
    return None


def _sum(counts: Plan | Restored) -> str:
    from spraydry.commands import terminal

    parts = [terminal.plural(counts.files, "file"), terminal.plural(counts.directories, "directory", "directories")]
    if counts.others:
        parts.append(terminal.plural(counts.others, "other entry", "other entries"))
    replaced = f", replacing {counts.replaced:,}" if counts.replaced else ""
    return f"{', '.join(parts)}, {terminal.size(counts.bytes)}{replaced}"
