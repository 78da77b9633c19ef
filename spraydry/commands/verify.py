"""`spraydry verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.verify import Damage


def verify(*, sample: str | None = None, seed: int = 0, rebuild: bool = False, json: bool = False) -> int | None:
    """Check that everything stored is whole, and that every version has all it needs.

    Reads and decodes every frame (of several stores, each copy), compares it with
    its name and with the catalog, then walks all versions down to the digest of
    each file. Damage is told with the paths that need what is damaged, and the exit
    code is 6.

    Caches in front of stores are passed by, and not checked: what they give is
    compared with its name whenever it is read, and fetched again if it differs.

    For example:
        spraydry verify
        spraydry verify --sample 5% --seed 7    # a twentieth of the frames
        spraydry verify --rebuild               # make the catalog anew first

    Parameters
    ----------
    sample
        Check only a random part of the frames, such as 5%.
    seed
        Chooses which part.
    rebuild
        Make the catalog anew from the frames, then check.
    json
        Print one JSON document.
    """
    from spraydry.actions.verify import verify as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import CorruptData

    fraction = None if sample is None else _fraction(sample)
    with open_repository(read_only=not rebuild) as repository, Progress(quiet=json) as progress:
        rebuilt = repository.rebuild_catalog() if rebuild else None
        if rebuilt is not None:
            progress.note(f"the catalog was made anew from {terminal.plural(rebuilt, 'frame')}")
        found = action(repository, sample=fraction, seed=seed, report=progress)
        seconds = progress.seconds
    if json:
        terminal.print_json({"sound": found.sound, **vars(found), "rebuilt": rebuilt, "seconds": round(seconds, 3)})
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
    if found.unreferenced:
        frames = terminal.plural(found.unreferenced, "frame")
        terminal.line(f"{frames} of an interrupted ingest belong to no version")
    if not found.listed:
        terminal.line("only frames that the index names were looked for: the store cannot list others")
    looked = (
        f"{terminal.plural(found.frames, 'frame')}, {terminal.plural(found.chunks, 'chunk')},"
        f" {terminal.size(found.plain_bytes)}, {terminal.plural(found.versions, 'version')}"
        f" in {terminal.duration(seconds)}"
    )
    terminal.line(f"{'all is whole' if found.sound else 'there is damage'}: checked {looked}")
    if paths := len({(one.version, one.path) for one in found.damage}):
        terminal.line(f"{terminal.plural(paths, 'path')} may have lost bytes; `spraydry restore` saves what it can")
    return None if found.sound else CorruptData.exit_code


def _tell(damage: list[Damage]) -> None:
    """A line for each path, with the first reason; digests are shortened to what tells them apart."""
    import re
    from itertools import groupby

    from spraydry.commands import terminal

    for (version, path), reasons in groupby(damage, lambda one: (one.version, one.path)):
        first, *more = (re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", one.reason) for one in reasons)
        terminal.warn(f"{version}:{terminal.printable(path)}: {first}{f', and {len(more):,} more' if more else ''}")


def _fraction(text: str) -> float:
    from spraydry.errors import UsageError

    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UsageError(f"not a part: {text!r} (write a percentage, such as 5%)") from None
