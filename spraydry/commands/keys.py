"""`spraydry keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from spraydry.actions.hoard import Event
    from spraydry.repository.keys import Kept
    from spraydry.repository.repository import Repository


def keys(
    hoard: str | None = None,
    prefix: str = "",
    /,
    *,
    long: Annotated[bool, Parameter(alias="-l")] = False,
    history: str | None = None,
    json: bool = False,
) -> None:
    """List the hoards, the keys of one, or what happened to a key.

    For example:
        spraydry keys                           # the hoards
        spraydry keys --long avatars 2026/      # its keys that begin so
        spraydry keys avatars --history alice.png

    Parameters
    ----------
    hoard
        Without it the hoards are listed.
    prefix
        List the keys that begin with it.
    long
        Also the size, when it was put, and the first digits of its digest.
    history
        A key, of which every put and deletion is listed, the oldest first.
    json
        Print a JSON array, an element for each line.
    """
    from spraydry.commands import terminal
    from spraydry.commands.session import open_hoard, open_repository
    from spraydry.errors import UsageError

    if hoard is None:
        with open_repository() as repository:
            _hoards(repository, json)
        return
    if "/" in hoard:
        name, _, rest = hoard.partition("/")
        raise UsageError(f"{hoard!r} is no hoard: write `spraydry keys {name} {rest or 'PREFIX'}`")
    with open_hoard(hoard) as opened:
        if history is not None:
            events = opened.history(history)
            if json:
                terminal.print_json_list(map(_event_json, events))
            else:
                terminal.table(("slot", "when", "size", "digest", "by"), map(_event, events), right=(0, 2))
            return
        opened.check_there()
        found = opened.list(prefix)
        if json:
            terminal.print_json_list(map(_kept_json, found))
            return
        for one in found:
            key = terminal.printable(one.key.encode())
            if long:
                moment = terminal.moment(one.put_ns // 10**9)
                key = f"{one.size:>13,}  {moment}  {_digest(one.digest)[:16]:<16}  {key}"
            terminal.line(key)


def _digest(digest: bytes | None) -> str:
    return "" if digest is None else digest.hex()


def _kept_json(kept: Kept) -> dict[str, object]:
    return {"key": kept.key, "size": kept.size, "digest": _digest(kept.digest) or None, "put_ns": kept.put_ns}


def _event(event: Event) -> tuple[str, ...]:
    from spraydry.commands import terminal

    entry = event.entry
    size, digest = ("deleted", "") if entry is None else (f"{entry.size:,}", _digest(entry.file_digest)[:16])
    made_by = terminal.printable(event.made_by.encode())
    return f"{event.slot:,}", terminal.moment(event.made_ns // 10**9), size, digest, made_by


def _event_json(event: Event) -> dict[str, object]:
    entry = event.entry
    return {
        "slot": event.slot,
        "made_ns": event.made_ns,
        "made_by": event.made_by,
        "deleted": entry is None,
        "size": None if entry is None else entry.size,
        "digest": None if entry is None else _digest(entry.file_digest) or None,
    }


def _hoards(repository: Repository, json: bool) -> None:
    from spraydry.actions.hoard import hoards
    from spraydry.commands import terminal

    found = hoards(repository)
    if json:
        terminal.print_json_list(found)
    elif found:
        rows = ((one.name, f"{one.keys:,}", terminal.size(one.bytes)) for one in found)
        terminal.table(("hoard", "keys", "size"), rows, right=(1, 2))
    else:
        terminal.warn("there is no hoard yet: `spraydry put FILE HOARD/KEY` makes the first")
