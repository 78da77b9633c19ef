"""The stores' page: how full each is, what share of new frames it takes, and whether it is well."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.actions.stores import StoreState, configuration_of, state_of
from spraydry.repository.repository import Repository
from spraydry.web.pages.page import Ask, Page


@dataclass(frozen=True)
class Row:
    """A store. `kind` is how it is reached, its address is told to nobody; `fill` the part of its room that is taken,
    `share` its part of all weights."""

    state: StoreState
    kind: str
    fill: float | None
    share: float


def stores(repository: Repository, ask: Ask) -> Page:
    """All stores, as they are now."""
    ask.grant.require("list", namespace="config")
    configuration = configuration_of(repository)
    states = state_of(repository)
    weights = sum(state.weight for state in states) or 1.0
    rows = []
    for state in states:
        fill = None
        if state.bytes is not None and state.free_bytes is not None:
            fill = state.bytes / max(state.bytes + state.free_bytes, 1)
        scheme, colon, _ = state.url.partition("://")
        kind = scheme if colon else state.url.partition(":")[0] if ":" in state.url[:12] else "file"
        rows.append(Row(state, kind, fill, state.weight / weights))
    takers = sum(state.weight > 0 for state in states)
    most = max(configuration.copies, *configuration.copies_of.values(), 1)
    return Page(
        "stores.html",
        {
            "rows": rows,
            "copies": configuration.copies,
            "copies_of": sorted(configuration.copies_of.items()),
            "too_few": most > takers,
            "takers": takers,
            "behind": repository.behind,
            "trouble": any(row.state.trouble or row.state.cache_trouble for row in rows),
        },
    )
