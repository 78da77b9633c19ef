"""The pages of hoards: what keys one has, so many at a time, and what one of them names and named."""

from __future__ import annotations

from itertools import islice

from spraydry.actions.hoard import Event, key_history
from spraydry.actions.spread import spread
from spraydry.errors import KeyNotFound, SprayDryError
from spraydry.repository.keys import Keys
from spraydry.repository.repository import Repository
from spraydry.web.pages.links import decoded
from spraydry.web.pages.page import Ask, OutOfTime, Page, spoken
from spraydry.web.pages.view import MOST_CHUNKS, preview

_A_PAGE = 250
_MOST_EVENTS = 200


def hoard(repository: Repository, ask: Ask) -> Page:
    """The keys of a hoard, or what is known of the one that the path names."""
    name, path = ask.address
    if path:
        return _key(repository, ask, name, path)
    ask.grant.require("list", hoard=name)
    keys = Keys(repository.log.hoards.existing(name), repository.tree)
    prefix, after = ask.get("prefix"), decoded(ask.get("after")).decode(errors="replace")
    found = list(islice(keys.list(prefix, after), _A_PAGE + 1))
    count, size = keys.totals()
    return Page(
        "hoard.html",
        {
            "hoard": name,
            "keys": found[:_A_PAGE],
            "more": len(found) > _A_PAGE,
            "prefix": prefix,
            "after": after,
            "count": count,
            "bytes": size,
            "largest": max((one.size for one in found), default=0) or 1,
        },
    )


def _key(repository: Repository, ask: Ask, name: str, path: bytes) -> Page:
    key = path.decode(errors="surrogateescape")
    ask.grant.require("read", hoard=name)
    entry = Keys(repository.log.hoards.existing(name), repository.tree).find(key)
    events: list[Event] = []
    stopped = False
    try:
        for event in key_history(repository, name, key):
            events.append(event)
            if ask.patience.over():
                stopped = True
                break
    except OutOfTime:
        stopped = True
    except KeyNotFound:
        if entry is None:
            raise
    shown: dict[str, object] = {}
    problem = located = None
    if entry is not None:
        try:
            shown = preview(repository, entry, path.rpartition(b"/")[2])
            located = spread(repository, entry, MOST_CHUNKS, ask.patience)
        except SprayDryError as error:
            problem = spoken(repository, str(error))
    nothing: dict[str, object] = {"kind": "", "lines": [], "painted": None, "language": "", "clipped": False}
    return Page(
        "key.html",
        {
            "hoard": name,
            "key": key,
            "path": path,
            "entry": entry,
            "events": events[::-1][:_MOST_EVENTS],
            "stopped": stopped,
            "spread": located,
            "problem": problem,
            **{**nothing, **shown},
        },
        200 if entry is not None else 404,
    )
