"""What verbs tell of a repository's stores: a table of them, and what a change to their list changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.stores import StoreState
    from spraydry.repository.configuration import Configuration, StoreEntry
    from spraydry.repository.repository import Repository

_BAR = 12


def tell_stores(states: Sequence[StoreState], configuration: Configuration) -> None:
    """A row for each store, and what is wrong with it."""
    from spraydry.commands import terminal

    terminal.table(("store", "weight", "values", "holds", "free", "full", "url"), map(_row, states), right=(1, 2, 3, 4))
    for one in states:
        if one.trouble is not None:
            terminal.warn(f"{one.name} does not answer: {one.trouble}")
        if one.waiting:
            terminal.line(f"{one.name} {_missed(one.waiting)}")
        if limits := "".join(_limits(one)):
            terminal.line(f"{one.name} has {limits.removeprefix(', ')}")
        if one.cache_trouble is not None:
            terminal.warn(f"the cache of {one.name} is not used: {one.cache_trouble}")
    terminal.line(f"copies of each frame: {_copies(configuration)}; * owns the log")
    takers = sum(one.weight > 0 for one in configuration.store)
    if max(configuration.copies, *configuration.copies_of.values(), 1) > takers:
        terminal.warn(
            f"only {terminal.plural(takers, 'store takes', 'stores take')} new frames, so there are no more copies than"
            " that: give another one a weight, or add one"
        )


def missing_stores(repository: Repository) -> list[str]:
    """A line for each store that does not answer, and missed what is to be on it."""
    spread = repository.opened.spread
    if spread is None:
        return []
    return [
        f"{one.name} does not answer, and {_missed(one.waiting)}: {one.error or 'it was not opened'}"
        for one in spread.members
        if one.waiting and not one.answers
    ]


def _missed(values: int) -> str:
    from spraydry.commands import terminal

    return f"missed {terminal.plural(values, 'value')}, which it gets from the first command that can write to it"


def _row(state: StoreState) -> tuple[str, ...]:
    from spraydry.commands import terminal

    full = ""
    if state.bytes is not None and state.free_bytes is not None:
        share = state.bytes / max(state.bytes + state.free_bytes, 1)
        full = f"{'#' * round(share * _BAR):-<{_BAR}} {share:.0%}"
    return (
        state.name + "*" * state.owner,
        f"{state.weight:g}",
        "-" if state.values is None else f"{state.values:,}",
        "-" if state.bytes is None else terminal.size(state.bytes),
        "-" if state.free_bytes is None else terminal.size(state.free_bytes),
        full,
        terminal.printable(state.url),
    )


def _limits(one: StoreState) -> Iterator[str]:
    if one.cache:
        yield f", a cache at {one.cache}"
    for limit, way in ((one.up, "up"), (one.down, "down")):
        if limit:
            yield f", at most {limit} a second {way}"
    if one.latency_ms:
        yield f", {one.latency_ms:g} ms of added latency"


def _copies(configuration: Configuration) -> str:
    classes = "".join(f", {number} of {key}" for key, number in sorted(configuration.copies_of.items()))
    return f"{configuration.copies}{classes}"


def tell_change(before: Configuration, after: Configuration, dry_run: bool, json: bool) -> None:
    """What a change changed, a line for each store, or for the copies or the log; as JSON, the list as it is then."""
    from spraydry.commands import terminal

    if json:
        from msgspec.structs import asdict

        stores = [asdict(one) for one in after.store]
        terminal.print_json({"dry_run": dry_run, **asdict(after), "store": stores})
        return
    found = [*_changes(before, after)]
    for text in found:
        terminal.line(f"{terminal.safe(text)}{' (a dry run: nothing was changed)' if dry_run else ''}")
    if not found:
        terminal.line("nothing was to be changed")


def _changes(before: Configuration, after: Configuration) -> Iterator[str]:
    old = {one.id: one for one in before.store}
    total = sum(one.weight for one in after.store)
    for one in after.store:
        if one.id not in old:
            share = f"{one.weight / total:.0%} of new frames go there" if total else "nothing new goes there"
            rest = "; `spraydry store rebalance` moves what is there" if one.weight else ""
            yield f"{one.name} added ({one.url}), weight {one.weight:g}: {share}{rest}"
        elif changed := "; ".join(_fields(old.pop(one.id), one)):
            yield f"{one.name}: {changed}"
        else:
            old.pop(one.id, None)
    for one in old.values():
        yield f"{one.name} is off the list; what lies at {one.url} stays there, and can be removed by hand"
    if (owner := after.entry(after.owner)).id != before.entry(before.owner).id:
        yield f"{owner.name} owns the log: name the repository by its URL from now on, {owner.url}"
    if (before.copies, before.copies_of) != (after.copies, after.copies_of):
        yield (
            f"copies of each frame: {_copies(after)} (before: {_copies(before)});"
            " `spraydry heal` makes it so for what is there"
        )


def _fields(before: StoreEntry, after: StoreEntry) -> Iterator[str]:
    for field, kind in (("name", "called"), ("url", "url"), ("weight", "weight")):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield f"{kind} {_value(new)} (before: {_value(old)})"
    if (before.cache, before.cache_size) != (after.cache, after.cache_size):
        yield f"cache {_cache(after)} (before: {_cache(before)})"
        if before.cache and before.cache != after.cache:
            yield f"what {before.cache} holds can be removed by hand"
    for field, kind in (("up", "bytes a second up"), ("down", "bytes a second down"), ("latency_ms", "latency in ms")):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield f"{kind} {_value(new)} (before: {_value(old)})"


def _cache(entry: StoreEntry) -> str:
    return f"{entry.cache}, up to {entry.cache_size}" if entry.cache else "none"


def _value(value: str | float) -> str:
    return f"{value:g}" if isinstance(value, float) else value or "none"
