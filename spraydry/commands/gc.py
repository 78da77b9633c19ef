"""`spraydry gc`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from spraydry.commands import terminal
from spraydry.commands.progress import Progress
from spraydry.commands.session import open_repository

if TYPE_CHECKING:
    from spraydry.actions.collect import Collected


def gc(*, grace: str = "7d", below: str = "60%", dry_run: bool = False, json: bool = False) -> int:
    """Free the room of what no version and no key of a hoard names any more.

    What removed versions alone needed is given up at once: it can still be brought
    back with `spraydry undelete`, until the grace time is over and a later gc
    deletes it. What lives in frames of which little is left is stored in new ones.
    Dictionaries that no stored frame uses, and no new one would, go the same way.

    Ingests, mounts and transfers may go on meanwhile, and several gcs: what is
    given up under one of them it notices, and stores again. It may be stopped or
    killed at any time; the next one finishes it. Exit code 6: something stored is
    damaged, and was left alone.

    For example:
        spraydry gc --dry-run
        spraydry gc
        spraydry gc --grace 0 --below 100%

    Parameters
    ----------
    grace
        How long what was given up can be brought back: 12h, 7d; 0 deletes it in the same run.
    below
        Store in new frames what lives in those of which a smaller part than this does; 0% leaves them all.
    dry_run
        Print the numbers the run will have, change nothing.
    json
        Print one JSON document.
    """
    from spraydry.actions.collect import gc as run
    from spraydry.errors import FrameCorrupt

    grace_ns, part = parse_duration(grace), parse_part(below)
    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        done = run(repository, grace_ns=grace_ns, below=part, dry_run=dry_run, report=progress)
    for frame, why in done.damaged:
        terminal.warn(f"frame {frame.hex()} was left alone: {why}")
    if done.missing_chunks:
        terminal.warn(f"{done.missing_chunks:,} chunks that versions name are in no frame: see `spraydry verify`")
    if json:
        _print_json(done, dry_run)
    else:
        _print(done, dry_run)
    return FrameCorrupt.exit_code if done.damaged or done.missing_chunks else 0


def parse_duration(text: str) -> int:
    """Nanoseconds of `90s`, `30m`, `12h`, `7d`, `2w`, or `0`. Raises UsageError, also for other numbers without a unit:
    whoever writes 7 may mean days."""
    from spraydry.errors import UsageError

    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 0)
    try:
        value = float(number) * unit * 1e9
        if not 0 <= value < 1e27 or (not unit and float(number)):
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is no length of time: write one such as 12h or 7d") from None
    return int(value)


def parse_part(text: str) -> float:
    """A part of one: `60%`. Raises UsageError."""
    from spraydry.errors import UsageError

    try:
        part = float(text.removesuffix("%")) / 100
        if not (0 <= part <= 1 and text.endswith("%")):
            raise ValueError
    except ValueError:
        raise UsageError(f"{text!r} is no part: write one from 0% to 100%") from None
    return part


def _print_json(done: Collected, dry_run: bool) -> None:
    terminal.print_json(
        {
            "versions": done.versions,
            "hoards": done.hoards,
            "living_bytes": done.living_bytes,
            "dropped_bytes": done.dropped_bytes,
            "staying_bytes": done.staying_bytes,
            "condemned_frames": done.condemned_frames,
            "condemned_bytes": done.condemned_bytes,
            "deleted_frames": done.deleted_frames,
            "deleted_bytes": done.deleted_bytes,
            "waiting_frames": done.waiting_frames,
            "waiting_bytes": done.waiting_bytes,
            "waiting_until_ns": done.waiting_until_ns,
            "condemned_dictionaries": done.condemned_dictionaries,
            "condemned_dictionary_bytes": done.condemned_dictionary_bytes,
            "deleted_dictionaries": done.deleted_dictionaries,
            "deleted_dictionary_bytes": done.deleted_dictionary_bytes,
            "waiting_dictionaries": done.waiting_dictionaries,
            "waiting_dictionary_bytes": done.waiting_dictionary_bytes,
            "rewritten_frames": done.rewritten_frames,
            "rewritten_bytes": done.rewritten_bytes,
            "new_frames": done.new_frames,
            "new_bytes": done.new_bytes,
            "spared_frames": done.spared_frames,
            "leases": done.leases,
            "missing_chunks": done.missing_chunks,
            "damaged": [{"frame": frame.hex(), "why": why} for frame, why in done.damaged],
            "clock_behind": done.clock_behind,
            "full": done.full,
            "dry_run": dry_run,
        }
    )


def _print(done: Collected, dry_run: bool) -> None:
    size, plural = terminal.size, terminal.plural

    def line(what: str, told: str) -> None:
        terminal.line(f"  {'would be ' if dry_run and what != 'in use by' else ''}{what:<12}{told}")

    what = plural(done.versions, "version") + (f" and {plural(done.hoards, 'hoard')}" if done.hoards else "")
    terminal.line(f"{what} with {size(done.living_bytes)}; nothing names {size(done.dropped_bytes)}")
    if done.staying_bytes:
        line("left", f"{size(done.staying_bytes)}, in frames that are used otherwise")
    if done.rewritten_frames:
        into = "" if dry_run else f", stored in {size(done.new_bytes)}"
        line("rewritten", f"{plural(done.rewritten_frames, 'frame')}: {size(done.rewritten_bytes)} live{into}")

    def counted(frames: int, frame_bytes: int, dictionaries: int, dictionary_bytes: int) -> str:
        told = f"{plural(frames, 'frame')}, {size(frame_bytes)}"
        if dictionaries:
            told += f"; {plural(dictionaries, 'dictionary', 'dictionaries')}, {size(dictionary_bytes)}"
        return told

    given_up = (done.condemned_dictionaries, done.condemned_dictionary_bytes)
    line("given up", counted(done.condemned_frames, done.condemned_bytes, *given_up))
    deleted = (done.deleted_dictionaries, done.deleted_dictionary_bytes)
    line("deleted", counted(done.deleted_frames, done.deleted_bytes, *deleted))
    if done.waiting_frames or done.waiting_dictionaries:
        until = ""
        if done.waiting_until_ns is not None and not done.clock_behind:
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(done.waiting_until_ns // 10**9))
            until = f"; a gc after {day} deletes the first of it"
            if done.waiting_frames:
                until += ", until then `spraydry undelete` brings it back"
        waiting = (done.waiting_dictionaries, done.waiting_dictionary_bytes)
        line("waiting", counted(done.waiting_frames, done.waiting_bytes, *waiting) + until)
    if done.clock_behind:
        terminal.warn("this machine's clock is before the newest record of the log: nothing counts as old enough")
    if done.full:
        terminal.warn("there was no room to make more compact: run it again")
    for what in done.leases:
        line("in use by", terminal.printable(what.encode()))
