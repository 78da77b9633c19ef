"""The first page: the roots, with what their newest versions hold and what everything takes."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.actions.hoard.overview import hoards
from spraydry.actions.info import RootUsage, info
from spraydry.repository.repository import Repository
from spraydry.web.pages.page import Ask, Page


@dataclass(frozen=True)
class Shown:
    """A root, and what it ever added to the repository."""

    usage: RootUsage
    added_bytes: int
    stored_bytes: int


def visible(repository: Repository, ask: Ask) -> list[str]:
    """The roots that who asks may know of."""
    return [root for root in repository.roots() if ask.grant.allows("list", root=root)]


def overview(repository: Repository, ask: Ask) -> Page:
    """The roots; and the sums over everything, for those who may see everything."""
    told = info(repository)
    roots = [one for one in told.roots if ask.grant.allows("list", root=one.root)]
    found = []
    for one in roots:
        records = {version.made_in: version.record for version in repository.log.versions(one.root)}.values()
        found.append(
            Shown(one, sum(record.new_bytes for record in records), sum(record.stored_bytes for record in records))
        )
    found.sort(key=lambda one: -one.usage.made_ns)
    whole = len(roots) == len(told.roots)
    kept = [one for one in hoards(repository) if ask.grant.allows("list", hoard=one.name)]
    context = {"roots": found, "hoards": kept, "told": told if whole else None, "behind": repository.behind}
    return Page("overview.html", context)
