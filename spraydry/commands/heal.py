"""`spraydry heal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.stores.over.indexes import Healed


def heal(*, json: bool = False) -> int:
    """Bring everything to as many copies as it should have.

    Of a repository on several stores: delivers what a store missed while it did not
    answer, copies frames that lie on too few stores, replaces copies that are
    damaged, and empties stores that are drained. Exit code 7: something could not
    be brought to its number of copies.

    For example:
        spraydry heal

    Parameters
    ----------
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import heal as action
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        return tell(action(repository, progress), json)


def tell(healed: Healed, json: bool) -> int:
    """What was done, and the exit code."""
    from spraydry.commands import terminal
    from spraydry.errors import StoreError

    code = StoreError.exit_code if healed.failed else 0
    if json:
        terminal.print_json(healed)
        return code
    size, plural = terminal.size, terminal.plural
    terminal.line(f"{plural(healed.checked, 'value')} looked at")
    if healed.delivered.values:
        terminal.line(f"  delivered  {healed.delivered.values:,} that stores had missed")
    if healed.copied or healed.replaced:
        terminal.line(f"  copied     {healed.copied:,} ({size(healed.copied_bytes)}); {healed.replaced:,} were damaged")
    if healed.indexed:
        terminal.line(f"  indexed    {healed.indexed:,} that their store's index did not name")
    if healed.removed:
        terminal.line(f"  removed    {healed.removed:,} surplus copies ({size(healed.removed_bytes)})")
    for reason, (count, example) in healed.failed.items():
        terminal.warn(f"{reason}{f' ({count:,}, such as {example[:16]})' if example else ''}")
    return code
