"""`spraydry store drain` and `rebalance`, and what these and `heal` tell of what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from spraydry.actions.progress import Report
    from spraydry.repository.repository import Repository
    from spraydry.stores.over.indexes import Healed


def drain(name: str, /, *, dry_run: bool = False, json: bool = False) -> int:
    """Bring all that lies on a store to the others, and give it nothing new.

    For example:
        spraydry store drain old --dry-run
        spraydry store drain old && spraydry store remove old

    Parameters
    ----------
    name
        The store.
    dry_run
        Only tell what would be copied and removed.
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import drain as action

    return run(lambda repository, progress: action(repository, name, progress, dry_run=dry_run), dry_run, json)


def rebalance(*, dry_run: bool = False, json: bool = False) -> int:
    """Move frames until each store has its share by weight.

    For example:
        spraydry store rebalance --dry-run

    Parameters
    ----------
    dry_run
        Only tell what would be copied and removed.
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import rebalance as action

    return run(lambda repository, progress: action(repository, progress, dry_run=dry_run), dry_run, json)


def run(work: Callable[[Repository, Report], Healed], dry_run: bool, json: bool) -> int:
    """Do that, with its progress; tell what was done, or would be. The exit code."""
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import StoreError

    # Also of a dry run: what would be copied depends on which stores can be written.
    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        healed = work(repository, progress)
    if json:
        terminal.print_json({"dry_run": dry_run, **vars(healed)})
    else:
        _tell(healed, dry_run)
    return StoreError.exit_code if healed.failed else 0


def _tell(healed: Healed, dry_run: bool) -> None:
    from spraydry.commands import terminal

    size, plural = terminal.size, terminal.plural
    would = "to be " if dry_run else ""
    terminal.line(f"{plural(healed.checked, 'value')} looked at")
    rows = []
    if healed.delivered.values:
        rows.append(("delivered", f"{healed.delivered.values:,} that stores had missed"))
    if healed.copied:
        rows.append(("copied", f"{healed.copied:,} ({size(healed.copied_bytes)})"))
    if healed.replaced:
        rows.append(("replaced", f"{healed.replaced:,} that were damaged"))
    if healed.indexed:
        rows.append(("indexed", f"{healed.indexed:,} that their store's index did not name"))
    if healed.removed:
        rows.append(
            ("removed", f"{plural(healed.removed, 'surplus copy', 'surplus copies')} ({size(healed.removed_bytes)})")
        )
    for done, what in rows:
        terminal.line(f"  {would + done:<{16 if dry_run else 10}} {what}")
    if not rows and not healed.failed:
        terminal.line("  nothing was to be done")
    for reason, (count, example) in healed.failed.items():
        terminal.warn(f"{reason}{f' ({count:,}, such as {example[:16]})' if example else ''}")
