"""What push, pull, clone and bundle tell of what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.transfer import Transferred

_TOLD = 10


def tell(done: Transferred, verb: str, where: str, dry_run: bool, json: bool) -> None:
    """Print what was transferred; `verb` says what that is called (`sent`), `where` where to (`there`)."""
    from spraydry.commands import terminal

    if json:
        terminal.print_json({**vars(done), "dry_run": dry_run})
        return
    size, plural = terminal.size, terminal.plural
    for version in done.versions[:_TOLD]:
        terminal.line(f"{'would be ' if dry_run else ''}{verb}: {version}")
    if len(done.versions) > _TOLD:
        terminal.line(f"... and {plural(len(done.versions) - _TOLD, 'more version')}")
    about = "about " if dry_run else ""
    if done.versions:
        terminal.line(f"{plural(len(done.versions), 'version')}, {about}{size(done.sent_bytes)}")
    elif done.sent_bytes and not done.hoards:
        terminal.line(f"{'would be ' if dry_run else ''}{verb}: {about}{size(done.sent_bytes)} that versions lacked")
    elif not any(one.keys or one.updated for one in done.hoards):
        terminal.line("nothing is missing")
    for one in done.hoards:
        if not (one.keys or one.updated or one.newer):
            continue
        what = plural(one.keys, "key") + (f", {one.updated:,} replaced" if one.updated else "")
        newer = f"; {one.newer:,} {where} came later, and stay" if one.newer else ""
        would = "would be " if dry_run else ""
        terminal.line(f"{would}{verb}: hoard {one.hoard}, {what}, {about}{size(one.sent_bytes)}{newer}")
    if done.existing:
        terminal.line(f"{plural(len(done.existing), 'version')} {where} already")
    for root, newest in done.behind.items():
        terminal.warn(
            f"{root} alone {'would mean' if dry_run else 'means'} what came last {where}, though {root}@{newest} is"
            " newer: name the version"
        )
    if done.removed:
        terminal.line(f"{plural(len(done.removed), 'version')} removed {where}, and not {verb} again")
