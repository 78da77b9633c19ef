"""`spraydry recompress`."""

from __future__ import annotations

from spraydry.commands import terminal
from spraydry.commands.progress import Progress
from spraydry.commands.session import open_repository


def recompress(*, level: int = 3, budget: str | None = None, dry_run: bool = False, json: bool = False) -> int:
    """Encode what is stored anew, with the dictionaries in use now, where that makes it smaller.

    Small pieces that many small versions left are put together. Nothing is
    renamed: every digest stays as it is, and mounts go on reading. It may be
    stopped at any time and goes on from there the next time; what did not get
    smaller is not tried again until the level or a dictionary changes. Exit code
    6: something stored is damaged, and was left alone.

    For example:
        spraydry recompress
        spraydry recompress --level 19 --budget 1G

    Parameters
    ----------
    level
        zstd level, -7 to 22; what is stored with a higher one keeps that.
    budget
        Stop after so many bytes (before compression), such as 1G; the next run goes on from there.
    dry_run
        Try everything, change nothing.
    json
        Print one JSON document.
    """
    from spraydry.actions.recompress import recompress as run
    from spraydry.errors import FrameCorrupt
    from spraydry.format.chunker import parse_bytes

    budget_bytes = parse_bytes(budget) if budget is not None else None
    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        done = run(repository, level=level, budget_bytes=budget_bytes, dry_run=dry_run, report=progress)
    for frame, why in done.damaged:
        terminal.warn(f"frame {frame.hex()} was left alone: {why}")
    if json:
        terminal.print_json(
            {
                "tried_bytes": done.tried_bytes,
                "old_frames": done.old_frames,
                "old_bytes": done.old_bytes,
                "new_frames": done.new_frames,
                "new_bytes": done.new_bytes,
                "saved_bytes": done.saved_bytes,
                "recovered_frames": done.recovered,
                "complete": done.complete,
                "damaged": [{"frame": frame.hex(), "why": why} for frame, why in done.damaged],
                "dry_run": dry_run,
            }
        )
    else:
        size, plural = terminal.size, terminal.plural
        if done.recovered:
            terminal.line(f"finished a run that was stopped: {plural(done.recovered, 'frame')} removed")
        if done.old_frames:
            verb = "would replace" if dry_run else "replaced"
            share = done.saved_bytes / done.old_bytes
            terminal.line(
                f"{verb} {plural(done.old_frames, 'frame')} of {size(done.old_bytes)} by {done.new_frames:,} of"
                f" {size(done.new_bytes)}: {size(done.saved_bytes)} ({share:.1%}) saved"
            )
        else:
            terminal.line(f"nothing {'would get' if dry_run else 'got'} smaller ({size(done.tried_bytes)} tried)")
        if not done.complete:
            terminal.line("the budget is spent: run it again to go on")
    return FrameCorrupt.exit_code if done.damaged else 0
