"""`spraydry delete`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


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
    from spraydry.actions.hoard import Hoard
    from spraydry.actions.hoard.address import parse_key
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if not (keys or whole):
        raise UsageError("name a key: spraydry delete HOARD/KEY, or --all HOARD")
    named: dict[str, list[str]] = {}
    for address in map(parse_key, dict.fromkeys(keys)):
        named.setdefault(address.hoard, []).append(address.key)
    done: list[dict[str, object]] = []
    with open_repository(read_only=dry_run) as repository:
        for name, several in named.items():
            with Hoard(name, repository=repository).transaction() as change:
                for key in several:
                    change.delete(key)
                    done.append({"hoard": name, "key": key, "dry_run": dry_run})
                if dry_run:
                    change.abort()
        for name in whole or ():
            repository.log.hoards.existing(name)
            hoard = Hoard(name, repository=repository)
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
