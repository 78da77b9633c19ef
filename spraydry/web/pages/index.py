"""The page of a server of several repositories, which leads to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from spraydry.repository.repository import Repository
from spraydry.web.grant import Grant, Refused
from spraydry.web.guard.door import Door
from spraydry.web.pages.page import Ask, Page, answered, asked
from spraydry.web.served import Served


@dataclass(frozen=True)
class Shelf:
    """A repository: where it is, and how many roots and versions of it may be seen."""

    name: str
    url: str
    roots: int
    versions: int


def index(served: Sequence[Served]) -> BaseRoute:
    """The route of `/`, where no repository is: those that whoever asks has a right to."""

    async def show(request: Request) -> Response:
        door: Door = request.scope["spraydry.door"]
        headers = dict(request.scope["headers"])
        given = [(one, door.grant({**request.scope, "path": f"{one.prefix}/"}, headers)) for one in served]
        given = [(one, grant) for one, grant in given if grant.anything]
        if not given:
            raise Refused("this token does not give any right to what is here", True)
        for one, _ in given:
            await one.fresh()

        def make(_: Repository, ask: Ask) -> Page:
            return Page("index.html", {"shelves": [_shelf(one, grant) for one, grant in given]})

        return await answered(request, asked(request, given[0][0]), make)

    return Route("/", show, methods=["GET"])


def _shelf(one: Served, grant: Grant) -> Shelf:
    repository = one.repository
    roots = [root for root in repository.roots() if grant.allows("list", root=root)]
    versions = sum(len({version.made_in for version in repository.log.versions(root)}) for root in roots)
    return Shelf(one.name, f"{one.prefix}/", len(roots), versions)
