"""How a page is made: gathered and rendered in a thread, which ends where nobody waits for it any more."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import trio
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from spraydry.actions.progress import Done
from spraydry.errors import SprayDryError
from spraydry.repository.repository import Repository
from spraydry.web.failures import said, status_of
from spraydry.web.grant import Grant, grant_of
from spraydry.web.pages import shown
from spraydry.web.pages.links import Links, below_of, decoded, encoded
from spraydry.web.served import Served
from spraydry.wording import plural, printable, safe, size

log = logging.getLogger(__name__)

QUICK_S = 10.0  # a page is not worth waiting for any longer
_GRACE_S = 5.0  # for what does not look at the time
_AT_ONCE = 4  # pages that may take long; others, and everything else, have threads of their own
_MAX_QUERY_BYTES = 16 << 10


class OutOfTime(SprayDryError):
    """What a page needs takes longer than one waits for a page, or nobody waits any more."""

    retryable = True


class Patience:
    """How long work for a page may take. Actions report to it, and it stops those that take longer. For any thread."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = monotonic() + seconds
        self._gone = False
        self.ended = False  # whether some work was told that time is over

    def leave(self) -> None:
        """Nobody waits any more."""
        self._gone = True

    def over(self) -> bool:
        """Whether work is to stop where it is and tell what it has."""
        over = self._gone or monotonic() >= self._end
        self.ended = self.ended or over
        return over

    def __call__(self, _: Done) -> None:
        """A Report. Raises OutOfTime where time is over."""
        if self.over():
            raise self.late()

    def late(self) -> OutOfTime:
        """The error that says so."""
        return OutOfTime(f"this takes longer than {self.seconds:g} s, which is too long for a page")


@dataclass
class Ask:
    """A request for a page: what it says, who asks, and how long the work may take. `rest` is what of the path follows
    the page's own, percent-encoded."""

    served: Served
    path: bytes
    query: Mapping[str, str]
    grant: Grant
    rest: bytes = b""
    patience: Patience = field(default_factory=lambda: Patience(QUICK_S))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def links(self) -> Links:
        return Links(self.served.prefix)

    def get(self, name: str, default: str = "") -> str:
        return self.query.get(name, default)

    def path_of(self, name: str) -> bytes:
        """A path or name in the query."""
        return decoded(self.get(name)).strip(b"/")

    def number(self, name: str, most: int = 1 << 40) -> int:
        """A whole number in the query; 0 for what is none."""
        text = self.get(name)
        return min(int(text), most) if text.isascii() and text.isdecimal() and len(text) < 16 else 0

    @cached_property
    def address(self) -> tuple[str, bytes]:
        """ROOT[@VERSION] and the path in it, that follow the page's own path."""
        front, _, path = self.rest.partition(b"/")
        return decoded(front).decode(errors="replace"), b"/".join(p for p in decoded(path).split(b"/") if p)


@dataclass(frozen=True)
class Page:
    """A template and what it shows."""

    template: str
    context: Mapping[str, Any]
    status: int = 200


@dataclass(frozen=True)
class Elsewhere:
    """Another address to go to."""

    url: str


Make = Callable[[Repository, Ask], Page | Elsewhere]


def asked(request: Request, served: Served, own: str = "") -> Ask:
    """What a request for a page asks, whose paths begin with `own`."""
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    path = path.partition(b"?")[0]
    rest = path.removeprefix(f"{served.prefix}{own}".encode())
    fields = parse_qs(request.scope["query_string"][:_MAX_QUERY_BYTES].decode("latin-1"))
    query = {name: values[-1].replace("\0", "") for name, values in fields.items()}
    return Ask(served, path, query, grant_of(request), rest)


def wanted(request: Request) -> bool:
    """Whether it is a browser that asks, for something to look at."""
    return "text/html" in request.headers.get("accept", "")


async def answered(request: Request, ask: Ask, make: Make, *, seconds: float = QUICK_S) -> Response:
    """The page that `make` gathers, in a thread; one that says what is wrong where it raises a SprayDryError."""
    ask.patience = Patience(seconds)
    limiter = ask.served.limiter if seconds <= QUICK_S else _long_work()
    answer: Response | None = None

    def work(repository: Repository) -> Response:
        try:
            return _response(ask, make(repository, ask))
        except SprayDryError as error:
            return trouble(ask, error)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        ask.patience.leave()

    try:
        repository = await ask.served.fresh()
    except SprayDryError as error:
        return trouble(ask, error)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.move_on_after(seconds + _GRACE_S):
            # A store that does not answer is not waited for; the thread is free again when it does.
            answer = await trio.to_thread.run_sync(work, repository, limiter=limiter, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    return trouble(ask, ask.patience.late()) if answer is None else answer


@cache
def _long_work() -> trio.CapacityLimiter:
    return trio.CapacityLimiter(_AT_ONCE)


def trouble(ask: Ask, error: SprayDryError) -> Response:
    """A page that says what is wrong."""
    status = status_of(error)
    if status >= 500 and not isinstance(error, OutOfTime):
        log.warning("%s: %s: %s", printable(ask.path), type(error).__name__, error)
    text = spoken(ask.served.repository, said(error, ask.grant))
    response = _response(ask, Page("trouble.html", {"status": status, "text": text}, status))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="spraydry", charset="UTF-8"'
    return response


def spoken(repository: Repository, text: str) -> str:
    """What an error says, without where stores lie, which is told to nobody who only looks."""
    configuration = repository.opened.configuration
    urls = [repository.url, *(one.url for one in (configuration.store if configuration else ()))]
    for part in sorted({part for url in urls for part in (url, url.partition(":")[2]) if len(part) > 3}, key=len)[::-1]:
        text = text.replace(part, "a store")
    return safe(text)


def _response(ask: Ask, page: Page | Elsewhere) -> Response:
    if isinstance(page, Elsewhere):
        return RedirectResponse(page.url, 303, headers={"Cache-Control": "no-store"})
    html = _environment().get_template(page.template).render(ask=ask, links=ask.links, **page.context)
    return HTMLResponse(html, page.status, headers=_headers(ask.nonce))


def _headers(nonce: str) -> dict[str, str]:
    """Only what we name ourselves may style or script a page: nothing of a repository, wherever it might get in."""
    own = f"'nonce-{nonce}'"
    policy = (
        f"default-src 'none'; script-src {own}; style-src {own}; img-src 'self'; media-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
    }


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("spraydry.web.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        shown=shown.shown,
        line=shown.line_shown,
        size=size,
        count=lambda number: f"{number:,}",
        moment=shown.moment,
        plain=printable,
        icon=shown.icon,
        icon_of=shown.icon_of,
        encoded=encoded,
    )
    made.globals.update(plural=plural, exact=shown.exact, ago=shown.ago, below_of=below_of)
    return made
