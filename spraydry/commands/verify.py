"""`spraydry verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.verify import Damage, Verified


def verify(*, sample: str | None = None, rebuild: bool = False, json: bool = False) -> int | None:
    """Check that everything stored is whole, and versions and hoards have all they need.

    Reads and decodes every frame (of several stores, each copy), compares it with
    its name and with the catalog, then walks all versions and hoards down to the
    digest of each file. Damage is told with the paths, or keys, that need what is
    damaged, and the exit code is 6; `spraydry repair` mends what can be mended.

    The catalog remembers when each frame was looked at. A sample goes on where the
    last run stopped: the oldest proof first. So `spraydry verify --sample 4%` each
    day is a proof of everything each month.

    Caches in front of stores are passed by, and not checked: what they give is
    compared with its name whenever it is read, and fetched again if it differs.

    For example:
        spraydry verify
        spraydry verify --sample 5%       # a twentieth, those looked at longest ago
        spraydry verify --sample 30min    # what can be read in half an hour
        spraydry verify --rebuild         # make the catalog anew first

    Parameters
    ----------
    sample
        Look only at a part of the frames: 5%, an amount such as 2G, or a time such
        as 30min.
    rebuild
        Make the catalog anew from the frames, then check.
    json
        Print one JSON document.
    """
    from spraydry.actions.verify import Sample
    from spraydry.actions.verify import verify as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import CorruptData

    part = None if sample is None else Sample.parse(sample)
    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        rebuilt = repository.rebuild_catalog() if rebuild else None
        if rebuilt is not None:
            progress.note(f"the catalog was made anew from {terminal.plural(rebuilt, 'frame')}")
        found = action(repository, sample=part, report=progress)
        seconds = progress.seconds
    if json:
        never = {"proofs": {**vars(found.proofs), "never": found.proofs.never}}
        told = {"sound": found.sound, **vars(found), **never, "rebuilt": rebuilt, "seconds": round(seconds, 3)}
        terminal.print_json(told)
        return None if found.sound else CorruptData.exit_code
    for frame in found.damaged_frames:
        terminal.warn(f"frame {frame.frame}: {frame.reason}")
    for store, count in found.bad_copies.items():
        copies = f"{terminal.plural(count, 'copy', 'copies')} on {store} {'is' if count == 1 else 'are'} damaged"
        terminal.warn(f"{copies}, others are sound: `spraydry heal --read` replaces what is damaged")
    for store, why in found.silent.items():
        terminal.warn(f"{store} does not answer, what lies there was not looked at: {why}")
    _tell(found.damage)
    for text in found.other:
        terminal.warn(text)
    if found.unindexed:
        chunks = terminal.plural(found.unindexed, "chunk")
        terminal.warn(f"the catalog misses {chunks}: `spraydry verify --rebuild` makes it anew")
    if found.known_damaged:
        frames = terminal.plural(found.known_damaged, "frame")
        terminal.warn(f"{frames} found damaged before were not looked at now: `spraydry verify` looks at all")
    if found.unreferenced:
        frames = terminal.plural(found.unreferenced, "frame")
        terminal.line(f"{frames} of an interrupted ingest belong to no version")
    if found.at_origin:
        terminal.line(f"{terminal.plural(found.at_origin, 'frame')} are only at the origin, and were not looked at")
    if not found.listed:
        terminal.line("only frames that the index names were looked for: the store cannot list others")
    looked = (
        f"{terminal.plural(found.frames, 'frame')}, {terminal.plural(found.chunks, 'chunk')},"
        f" {terminal.size(found.plain_bytes)}, {terminal.plural(found.versions, 'version')}"
        + (f", {terminal.plural(found.hoards, 'hoard')}" if found.hoards else "")
        + f" in {terminal.duration(seconds)}"
    )
    terminal.line(f"{'all is whole' if found.sound else 'there is damage'}: checked {looked}")
    _tell_proofs(found)
    if paths := len({one.where for one in found.damage}):
        terminal.line(f"{terminal.plural(paths, 'path')} lost bytes: `spraydry repair` shows what can be mended")
    return None if found.sound else CorruptData.exit_code


def _tell(damage: list[Damage]) -> None:
    """A line for each path, with the first reason; digests are shortened to what tells them apart."""
    import re
    from itertools import groupby

    from spraydry.commands import terminal

    for where, reasons in groupby(damage, lambda one: one.where):
        first, *more = (re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", one.reason) for one in reasons)
        terminal.warn(f"{terminal.printable(where)}: {first}{f', and {len(more):,} more' if more else ''}")


def _tell_proofs(found: Verified) -> None:
    from spraydry.commands import terminal

    proofs = found.proofs
    if not found.remembered:
        terminal.line("when these were looked at is not remembered: the catalog cannot be written")
    elif proofs.oldest_s is not None:
        rest = "" if proofs.proved == proofs.frames else f" of {proofs.frames:,}"
        terminal.line(
            f"{terminal.plural(proofs.proved, 'frame')}{rest} proved since {terminal.moment(proofs.oldest_s)}"
            + (f", {proofs.never:,} never yet" if proofs.never else "")
        )
