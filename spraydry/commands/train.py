"""`spraydry train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from spraydry.commands import terminal
from spraydry.commands.progress import Progress
from spraydry.commands.session import open_repository

if TYPE_CHECKING:
    from spraydry.actions.train import Trained
    from spraydry.repository.repository import Repository


def train(
    *roots: str,
    from_: Annotated[list[str] | None, Parameter(name="--from", negative=())] = None,
    size: str = "110K",
    memory: str = "64M",
    undo: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Make dictionaries that shrink what is stored, and prove it first.

    Files are sampled by class (their type, told from the name), and a dictionary
    is made for each. It is measured on stored frames that were held out, against
    no dictionary, the one in use and the one shipped with spraydry, and used from
    now on only if it saves more than it takes itself, and at least one part in a
    hundred. What is stored already changes when `spraydry recompress` is run.
    Dictionaries pay most where frames are small: many small versions.

    For example:
        spraydry train
        spraydry train photos@v3:2024 --dry-run
        spraydry train --from ~/src --size 64K
        spraydry train --undo

    Parameters
    ----------
    roots
        ROOT[@VERSION][:PATH] to take samples from; by default the newest version of every root.
    from_
        A folder outside to take samples from; may be given several times. Then no root is sampled unless named.
    size
        The most a dictionary may have.
    memory
        Roughly the most memory to use for samples.
    undo
        Go back to the dictionaries in use before the last change.
    dry_run
        Measure, but adopt nothing.
    json
        Print one JSON document.
    """
    from spraydry.actions.train import train as run
    from spraydry.errors import UsageError
    from spraydry.format.chunker import parse_bytes

    if undo:
        if roots or from_ or dry_run:
            raise UsageError("--undo comes alone: spraydry train --undo")
        with open_repository(read_only=False) as repository:
            _undo(repository, json)
        return
    size_bytes, memory_bytes = parse_bytes(size), parse_bytes(memory)
    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        result = run(
            repository,
            roots,
            from_ or (),
            size_bytes=size_bytes,
            memory_bytes=memory_bytes,
            dry_run=dry_run,
            report=progress,
        )
    if json:
        _print_json(result, dry_run)
    else:
        _print(result, dry_run)


def _undo(repository: Repository, json: bool) -> None:
    from spraydry.actions.train import undo

    _, before = undo(repository)
    if json:
        terminal.print_json({"in_use": {name: digest.hex() for name, digest in sorted(before.items())}})
    else:
        used = ", ".join(f"{name} {digest.hex()[:12]}" for name, digest in sorted(before.items())) or "none"
        terminal.line(f"dictionaries in use again: {used} (--undo once more takes this back)")


def _print_json(result: Trained, dry_run: bool) -> None:
    rows = [
        {
            "class": gain.frame_class,
            "stored_bytes": gain.stored_bytes,
            "sampled_bytes": gain.sampled_bytes,
            "held_out_bytes": gain.held_out_bytes,
            "without_bytes": gain.plainly_bytes,
            "before_bytes": gain.before_bytes,
            "after_bytes": gain.after_bytes,
            "candidate": gain.candidate,
            "dictionary": gain.dictionary.hex() if gain.dictionary else None,
            "cost_bytes": gain.cost_bytes,
            "saving_bytes": gain.saving_bytes,
            "gain": round(gain.gain, 6),
            "pays": gain.pays,
            "reason": gain.reason,
        }
        for gain in result.gains
    ]
    terminal.print_json({"classes": rows, "slot": result.slot, "dry_run": dry_run})


def _print(result: Trained, dry_run: bool) -> None:
    size = terminal.size
    rows = []
    for gain in result.gains:
        measured = gain.plainly_bytes > 0
        rows.append(
            (
                gain.frame_class,
                size(gain.stored_bytes),
                size(gain.sampled_bytes) if measured else "",
                size(gain.held_out_bytes) if measured else "",
                size(gain.plainly_bytes) if measured else "",
                size(gain.before_bytes) if measured else "",
                size(gain.after_bytes) if measured else "",
                gain.candidate,
                f"{gain.gain:z.1%}" if measured else "",
                size(gain.saving_bytes) if measured else "",
                ("would be adopted" if dry_run else "adopted") if gain.pays else f"no: {gain.reason}",
            )
        )
    heads = ("class", "stored", "sampled", "held out", "without", "now", "best", "with", "gain", "saves", "adopted")
    terminal.table(heads, rows, right=(1, 2, 3, 4, 5, 6, 8, 9))
    terminal.line()
    terminal.line(
        "without, now, best: what the held-out part takes without dictionary, as until now, and with the best."
    )
    terminal.line(
        "gain, saves: for all that is stored of the class, less the dictionary itself, once it is recompressed."
    )
    if dry_run:
        terminal.line("nothing was adopted (--dry-run)")
    elif result.slot is None:
        terminal.line("nothing was adopted")
    else:
        terminal.line("adopted: new versions use it from now on; `spraydry recompress` shrinks what is stored")
        terminal.line("take it back with: spraydry train --undo")
