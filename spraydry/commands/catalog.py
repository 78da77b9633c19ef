"""`spraydry catalog rebuild`."""

from __future__ import annotations

from typing import Literal


def catalog(what: Literal["rebuild"], /, *, from_frames: bool = False, json: bool = False) -> None:
    """Make the catalog anew, which says in which frame each chunk lies.

    It is only an index: from the store's index runs it is there in seconds. From
    the frames themselves every frame is read and decoded once: for a store whose
    index is lost too.

    For example:
        spraydry catalog rebuild
        spraydry catalog rebuild --from-frames

    Parameters
    ----------
    what
        rebuild
    from_frames
        Take nothing but the frames.
    json
        Print one JSON document.
    """
    import time

    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    began_s = time.monotonic()
    with open_repository(read_only=False) as repository:
        count = repository.rebuild_catalog() if from_frames else repository.reindex()
        chunks, damaged = repository.catalog.chunks.rows_count(), dict(repository.damaged_runs)
    seconds = time.monotonic() - began_s
    for run, why in damaged.items():
        terminal.warn(f"index run {run[:16]}: {why}; --from-frames does without it")
    if json:
        terminal.print_json({"frames": count, "chunks": chunks, "damaged_runs": damaged, "seconds": round(seconds, 3)})
        return
    source = "frames" if from_frames else "index runs"
    terminal.line(
        f"the catalog was made anew from the {source}: {terminal.plural(chunks, 'chunk')} in"
        f" {terminal.plural(count, 'frame')}, {terminal.duration(seconds)}"
    )
