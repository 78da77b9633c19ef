"""The addresses of the pages."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from spraydry.errors import NotFound
from spraydry.repository.address import Address
from spraydry.repository.repository import Repository
from spraydry.web.pages.compare import compare
from spraydry.web.pages.history import history
from spraydry.web.pages.hoards import hoard
from spraydry.web.pages.overview import overview
from spraydry.web.pages.page import QUICK_S, Ask, Elsewhere, Make, Page, answered, asked, trouble
from spraydry.web.pages.root import root
from spraydry.web.pages.savings import savings
from spraydry.web.pages.search import SECONDS as SEARCH_S
from spraydry.web.pages.search import search
from spraydry.web.pages.space import SECONDS as SPACE_S
from spraydry.web.pages.space import space
from spraydry.web.pages.stores import stores
from spraydry.web.pages.view import view
from spraydry.web.served import Served

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class _Anything(Convertor[str]):
    """What is left of a path, with any characters, also line feeds. The bytes are taken from the raw path."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


def routes(served: Served) -> list[BaseRoute]:
    """All pages of one repository, but for its directories, which `browse` shows."""

    def page(path: str, own: str, make: Make, seconds: float = QUICK_S) -> BaseRoute:
        return Route(path, partial(_page, served, own, make, seconds), methods=["GET"])

    return [
        page("/", "/", overview),
        page("/-/roots/{rest:anything}", "/-/roots/", root),
        page("/-/view/{rest:anything}", "/-/view/", view),
        page("/-/history/{rest:anything}", "/-/history/", history, SEARCH_S),
        page("/-/space/{rest:anything}", "/-/space/", space, SPACE_S),
        page("/-/hoards/{rest:anything}", "/-/hoards/", hoard),
        page("/-/compare", "/-/compare", compare, SEARCH_S),
        page("/-/search", "/-/search", search, SEARCH_S),
        page("/-/savings", "/-/savings", savings),
        page("/-/stores", "/-/stores", stores),
        page("/-/go", "/-/go", go),
        Route("/-/static/{name}", _static, methods=["GET"]),
        Route("/-/{rest:anything}", partial(_nothing, served), methods=["GET"]),
    ]


async def _page(served: Served, own: str, make: Make, seconds: float, request: Request) -> Response:
    return await answered(request, asked(request, served, own), make, seconds=seconds)


def go(repository: Repository, ask: Ask) -> Page | Elsewhere:
    """From one version of what is shown to another one, as a form asks for."""
    address = Address(ask.get("root"), ask.get("version") or None, ask.path_of("path"))
    ask.grant.require("list", root=address.root)
    version = repository.log.find(address.root, address.version)
    if ask.get("to") == "view":
        return Elsewhere(ask.links.view(version, address.path))
    if ask.get("to") == "space":
        return Elsewhere(ask.links.space(version, address.path))
    return Elsewhere(ask.links.folder(version, address.path))


async def _static(request: Request) -> Response:
    """One of our own files; its address changes with what is in it."""
    name = request.path_params["name"]
    kind = _TYPES.get(name.rpartition(".")[2])
    if kind is None or name not in _names():
        return Response(status_code=404)
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response((files("spraydry.web.pages") / "static" / name).read_bytes(), media_type=kind, headers=headers)


def _names() -> set[str]:
    return {one.name for one in (files("spraydry.web.pages") / "static").iterdir()}


async def _nothing(served: Served, request: Request) -> Response:
    return trouble(asked(request, served), NotFound("there is no such page"))
