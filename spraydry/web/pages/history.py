"""The page of a path's history: when it appeared, changed and vanished."""

from __future__ import annotations

from spraydry.actions.history import Event
from spraydry.actions.history import history as events_of
from spraydry.repository.address import Address
from spraydry.repository.repository import Repository
from spraydry.web.pages.browse import crumbs
from spraydry.web.pages.page import Ask, OutOfTime, Page

_MOST = 500


def history(repository: Repository, ask: Ask) -> Page:
    """The events of a path through all versions of its root, the newest first."""
    root, path = ask.address
    root = root.partition("@")[0]
    ask.grant.require("list", root=root)
    events: list[Event] = []
    stopped = False
    try:
        for event in events_of(repository, str(Address(root, None, path)), ask.patience):
            events.append(event)
    except OutOfTime:
        stopped = True
    befores = [None, *events[:-1]]
    pairs = [*zip(events, befores, strict=True)][::-1] if events else []
    return Page(
        "history.html",
        {
            "root": root,
            "path": path,
            "crumbs": crumbs(path),
            "pairs": pairs[:_MOST],
            "more": max(len(pairs) - _MOST, 0),
            "stopped": stopped,
            "digests": ask.grant.allows("read", root=root),
            "newest": repository.log.find(root),
        },
    )
