"""`spraydry delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from spraydry.actions.hoard import Hoard


def delete(
    *keys: str,
    whole: Annotated[list[str] | None, Parameter(name="--all", negative=())] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Delete keys of a hoard, or all it has.

    Of one hoard all that are named are deleted, or none. Their bytes stay until gc
    has deleted them: `spraydry undelete HOARD/KEY` brings them back until then.

    For example:
        spraydry delete avatars/alice.png avatars/bob.png
        spraydry delete --all avatars

    Parameters
    ----------
    keys
        HOARD/KEY, or the digest that `spraydry put FILE` printed.
    whole
        A hoard, to be emptied.
    dry_run
        Only tell what would be done.
    json
        Print a JSON array, an element for each key, or hoard.
    """
    from spraydry.actions.hoard.address import parse_key
    from spraydry.commands import terminal
    from spraydry.commands.session import open_hoard
    from spraydry.errors import UsageError

    if not (keys or whole):
        raise UsageError("name a key: spraydry delete HOARD/KEY, or --all HOARD")
    named: dict[str, list[str]] = {}
    for address in map(parse_key, dict.fromkeys(keys)):
        named.setdefault(address.hoard, []).append(address.key)
    done: list[dict[str, object]] = []
    for name, several in named.items():
        with open_hoard(name, read_only=dry_run) as hoard:
            if dry_run:
                _check_all(hoard, several)
            else:
                with hoard.transaction() as change:
                    for key in several:
                        change.delete(key)
        done += ({"hoard": name, "key": key, "dry_run": dry_run} for key in several)
    for name in whole or ():
        with open_hoard(name, read_only=dry_run) as hoard:
            hoard.check_there()
            done.append({"hoard": name, "key": None, "keys": len(hoard), "dry_run": dry_run})
            if not dry_run:
                hoard.clear()
    if json:
        terminal.print_json_list(done)
        return
    would = "would delete" if dry_run else "deleted"
    for one in done:
        if one["key"] is None:
            terminal.line(f"{would} all of {one['hoard']}: {terminal.plural(int(str(one['keys'])), 'key')}")
        else:
            key = terminal.printable(str(one["key"]).encode())
            terminal.line(f"{would} {one['hoard']}/{key}")


def _check_all(hoard: Hoard, keys: list[str]) -> None:
    """Raises KeyNotFound unless all are there."""
    from spraydry.errors import KeyNotFound

    for key in keys:
        if not hoard.has(key):
            raise KeyNotFound(f"{hoard.name}/{key} is not there")
