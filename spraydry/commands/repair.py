"""`spraydry repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spraydry.actions.repair import Repaired

_SHOWN = 50


def repair(
    *,
    write: bool = False,
    known: bool = False,
    from_: Annotated[list[str] | None, Parameter(name="--from")] = None,
    source: list[str] | None = None,
    json: bool = False,
) -> int:
    """Mend what is damaged or lost, as far as it can be had from anywhere.

    Reads every frame, as `verify` does, and shows what can be mended; with --write
    it is done. What is lost is had, in this order, from the other stores of the
    repository, from what damaged frames still give, from other repositories
    (--from), and from original files (--source), found by their digests alone. A
    root of which something stays lost gets a new version without exactly those
    files: it is marked incomplete, and its attribute user.spraydry.lacks names
    them. Older versions stay as they are.

    Nothing is deleted: damaged frames that nothing needs any more are condemned,
    for `spraydry gc` to delete. It can be interrupted at any time, and run again.
    Exit code 6: something stays lost, or was not understood.

    A folder of which the names are lost is in no original file: `spraydry ingest`
    of the original folder mends that, too, where nothing in it has changed.

    For example:
        spraydry repair                              # what could be done
        spraydry repair --write
        spraydry repair --from sftp://nas/backup --source ~/photos --write
        spraydry repair --known --write              # right after a verify

    Parameters
    ----------
    write
        Do it.
    known
        Do not read what `verify` proved: only what it found damaged, and what is gone.
    from_
        Another repository that may have what is lost; can be given several times.
    source
        A folder with original files; can be given several times.
    json
        Print one JSON document.
    """
    from spraydry.actions.repair import repair as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import CorruptData

    _mend_log(from_ or [], write)
    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        done = action(repository, write=write, known=known, remotes=from_ or (), sources=source or (), report=progress)
        seconds = progress.seconds
    code = 0 if done.whole else CorruptData.exit_code
    if json:
        terminal.print_json(_told(done, seconds))
        return code
    _tell_damage(done)
    _tell_cures(done)
    _tell_versions(done)
    looked = (
        f"looked at {terminal.plural(done.frames, 'frame')} and {terminal.plural(done.versions, 'version')}"
        f" in {terminal.duration(seconds)}"
    )
    if done.sound:
        terminal.line(f"nothing is to be repaired: {looked}")
    elif write:
        terminal.line(f"{'all that versions need is there' if done.whole else 'something stays lost'}: {looked}")
    else:
        terminal.line(f"nothing was changed: {looked}; with --write it is done (and --known spares reading all again)")
    return code


def _mend_log(remotes: list[str], write: bool) -> None:
    """Where the log is such that nothing can be opened, see to that first."""
    from spraydry.actions.repair import mend_log
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository, repository_url
    from spraydry.errors import CorruptData

    try:
        open_repository(read_only=not write).close()
    except CorruptData:
        mended = mend_log(repository_url(), remotes, write)
        if mended.lost:
            raise CorruptData(
                f"{_slots(mended.lost)} lost, and no other store of this repository and no copy of it (--from) has"
                " what was there: without that nothing can be read"
            ) from None
        if not mended.had:
            raise
        if not write:
            raise CorruptData(
                f"{_slots(mended.had)} damaged, and can be had: with --write it is done, and the rest is looked at"
            ) from None
        terminal.line(f"{_slots(mended.had)} mended, from copies of this repository")


def _slots(slots: Sequence[int]) -> str:
    return f"log slots {', '.join(map(str, slots))} are" if len(slots) > 1 else f"log slot {slots[0]} is"


def _tell_damage(done: Repaired) -> None:
    from spraydry.commands import terminal

    for frame in done.damaged_frames[:_SHOWN]:
        terminal.warn(f"frame {frame.frame}: {frame.reason}")
    if (more := len(done.damaged_frames) - _SHOWN) > 0:
        terminal.warn(f"and {terminal.plural(more, 'more damaged frame')}")
    for text in done.left_alone[:_SHOWN]:
        terminal.warn(text)
    for name in done.index.strange:
        terminal.warn(f"index run {name} is not of this format: it stays as it is")


def _tell_cures(done: Repaired) -> None:
    from spraydry.commands import terminal

    would = "" if done.written else "to be "
    rows = []
    for origin, had in done.had.items():
        rows.append(("had", f"{terminal.plural(had.chunks, 'chunk')}, {terminal.size(had.bytes)}, from {origin}"))
    for name, origin in done.dictionaries.items():
        rows.append(("had", f"dictionary {name[:12]} from {origin}"))
    if done.healed is not None and (done.healed.replaced or done.healed.copied):
        rows.append(("replaced", f"{done.healed.replaced + done.healed.copied:,} copies, from other stores"))
    for store, count in done.bad_copies.items():
        rows.append(("replaced", f"{terminal.plural(count, 'copy', 'copies')} on {store}, from other stores"))
    if done.index.named:
        rows.append(("indexed", f"{terminal.plural(done.index.named, 'frame')} that no index run named"))
    if done.index.damaged:
        rows.append(("put away", f"{terminal.plural(len(done.index.damaged), 'damaged index run')}"))
    if done.condemned:
        rows.append(("condemned", f"{terminal.plural(done.condemned, 'frame')}: nothing needs them any more"))
    if done.kept:
        rows.append(("kept", f"{terminal.plural(done.kept, 'damaged frame')}: versions need what was in them"))
    for verb, what in rows:
        lead = verb if verb == "kept" else would + verb
        terminal.line(f"  {lead:<{16 if would else 10}} {what}")


def _tell_versions(done: Repaired) -> None:
    from spraydry.commands import terminal

    replaced = {str(one.of) for one in done.without if one.entry is not None}
    for one in done.without:
        if one.entry is None:
            terminal.warn(
                f"{one.of}: nothing of it can be read; where the original folder is as it was, `spraydry ingest` of it"
                " brings it back"
            )
            continue
        for path, why in one.lacks[:_SHOWN]:
            terminal.warn(f"{one.of}:{terminal.printable(path)}: {_short(why)}")
        if (more := len(one.lacks) - _SHOWN) > 0:
            terminal.warn(f"{one.of}: and {terminal.plural(more, 'more path')}, which --json tells")
        lacks = f"without {terminal.plural(len(one.lacks), 'path')}" if one.lacks else "with its hardlinks counted anew"
        if one.made is not None:
            terminal.line(f"{one.made} is there: {one.of} {lacks}")
        elif done.written:
            terminal.warn(f"{one.of} is not the newest of its root any more: run it again")
        else:
            terminal.line(f"{one.of.root} would get a new version: {one.of} {lacks}")
    keys = sorted({one.where for one in done.damage if one.is_key})
    for key in keys[:_SHOWN]:
        terminal.warn(f"{terminal.printable(key)} cannot be read: put it again, or delete it")
    if len(keys) > _SHOWN:
        terminal.warn(f"and {terminal.plural(len(keys) - _SHOWN, 'more key')}, which --json tells")
    damage = [one for one in done.damage if not one.is_key]
    others = sorted({one.version for one in damage} - (set() if done.written else replaced))
    if others:
        paths = len({one.where for one in damage if one.version in others})
        terminal.line(
            f"{terminal.plural(paths, 'path')} of older versions cannot be read: {', '.join(others[:5])}"
            + (f" and {len(others) - 5:,} more" if len(others) > 5 else "")
        )


def _short(why: str) -> str:
    import re

    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", why)


def _told(done: Repaired, seconds: float) -> dict[str, object]:
    return {
        **{key: value for key, value in vars(done).items() if key not in ("without", "healed")},
        "sound": done.sound,
        "whole": done.whole,
        "without": [
            {
                "of": str(one.of),
                "version": str(one.made) if one.made else None,
                "lacks": [{"path": path, "why": why} for path, why in one.lacks],
            }
            for one in done.without
        ],
        "healed": vars(done.healed) if done.healed is not None else None,
        "seconds": round(seconds, 3),
    }
