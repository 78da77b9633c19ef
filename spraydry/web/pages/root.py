"""A root's page: its versions on a time line, with what each of them added."""

from __future__ import annotations

from dataclasses import dataclass

from spraydry.actions.history import distinct
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.web.pages.page import Ask, Page

_A_PAGE = 60
_BARS = 120
BAR_HEIGHT = 64


@dataclass(frozen=True)
class Step:
    """A version on the time line. `names` are all it has, `files` and `bytes` what it holds more than the one `before`
    (negative: less), `share` what it added as a part of the most that any here did."""

    version: Version
    names: list[str]
    before: Version | None
    files: int
    bytes: int
    share: float


def root(repository: Repository, ask: Ask) -> Page:
    """The versions of a root, the newest first, so many on a page."""
    name, _ = ask.address
    ask.grant.require("list", root=name)
    versions = distinct(repository, name)
    names: dict[int, list[str]] = {}
    for version in repository.versions(name):
        names.setdefault(version.made_in, []).append(version.name)
    most = max((version.record.new_bytes for version in versions), default=0) or 1
    steps = []
    for place, version in enumerate(versions):
        before = versions[place - 1] if place else None
        now = version.record.entry.totals
        files = now.files - (before.record.entry.totals.files if before else 0)
        size = now.size - (before.record.entry.totals.size if before else 0)
        share = version.record.new_bytes / most
        steps.append(Step(version, names[version.made_in], before, files, size, share))
    steps.reverse()
    pages = -(-len(steps) // _A_PAGE)
    page = min(max(ask.number("page"), 1), pages)
    records = [step.version.record for step in steps]
    return Page(
        "root.html",
        {
            "root": name,
            "steps": steps[(page - 1) * _A_PAGE : page * _A_PAGE],
            "bars": steps[:_BARS][::-1],
            "height": BAR_HEIGHT,
            "page": page,
            "pages": pages,
            "versions": len(steps),
            "newest": steps[0],
            "added_bytes": sum(record.new_bytes for record in records),
            "stored_bytes": sum(record.stored_bytes for record in records),
            "apparent_bytes": sum(record.entry.totals.size for record in records),
        },
    )
