"""The middleware in front of all handlers: who asks, whether that is too much, and what is told of it afterwards."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spraydry.errors import SprayDryError
from spraydry.web.failures import answer_to, failure
from spraydry.web.grant import NOTHING, Grant, Refused
from spraydry.web.guard.door import Door
from spraydry.web.guard.limits import Body, Limits, Rates, too_large
from spraydry.web.guard.quotas import Counted, Quotas, Upload

OPEN = ("/healthz",)  # what whoever asks is told
_BODILESS = ("GET", "HEAD", "OPTIONS")
GONE = 499  # in the log: the client hung up before there was an answer

log = logging.getLogger(__name__)


class Exchange:
    """One request and its answer, as far as they have come; what `Guard` tells when it is over."""

    __slots__ = ("_send", "began", "bytes", "grant", "scope", "status", "upload")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.grant: Grant = NOTHING
        self.began = time.perf_counter()
        self.status = 0
        self.bytes = 0
        self.upload: Upload | None = None
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass a message on, and remember what it says."""
        if message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class Guard:
    """Puts the grant of each request where `grant_of` finds it, and refuses what is refused whatever it asks for:
    unknown tokens, senders without any right, too many requests, bodies too large or too slow.

    The path becomes text as `os.fsdecode` makes it, so that names which are no UTF-8 survive. Each of `heard` gets
    every exchange when it is over, and must be quick.
    """

    def __init__(
        self,
        app: ASGIApp,
        door: Door,
        limits: Limits,
        quotas: Quotas,
        heard: Sequence[Callable[[Exchange], None]] = (),
    ) -> None:
        self._app = app
        self._door = door
        self._limits = limits
        self._rates = Rates(limits.rate_s) if limits.rate_s else None
        self._quotas = quotas
        self._heard = heard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            else:
                await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        try:
            await self._answer(exchange, receive)
        except Exception as error:
            if _hung_up(error):
                exchange.status = exchange.status or GONE
            else:
                log.exception("%s %s", scope["method"], scope["raw_path"].decode("latin-1"))
                exchange.status = exchange.status or 500
                raise
        finally:
            if exchange.upload is not None:
                exchange.upload.end(200 <= exchange.status < 300)
            if scope["method"] == "HEAD":
                exchange.bytes = 0
            for hear in self._heard:
                hear(exchange)

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        scope = exchange.scope
        raw = scope["raw_path"]
        if b"%" in raw:
            scope["path"] = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
        if not raw.startswith(b"/"):
            await failure(400, "a path begins with a slash")(scope, receive, exchange.send)
            return
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # A proxy in front may have ended the body somewhere else: what follows would be another request to it.
            answer = failure(400, "a body has a length or is sent in chunks, not both")
            answer.headers["Connection"] = "close"
            await answer(scope, receive, exchange.send)
            return
        if self._limits.proxies and (address_of(scope) or "unix") in self._limits.proxies:
            _forwarded(scope, headers)
        scope["spraydry.door"] = self._door
        try:
            exchange.grant = self._admit(scope, headers)
            declared = headers.get(b"content-length", b"0")
            if not declared.isdigit() or int(declared) > self._limits.body_bytes:
                raise too_large(self._limits.body_bytes)
            if scope["method"] not in _BODILESS:
                name = exchange.grant.name
                upload = self._quotas.watch(name, self._door.quota_bytes(name), int(declared))
                if upload is not None:
                    exchange.upload = upload
                    exchange.grant = Counted(**vars(exchange.grant), upload=upload)
                receive = Body(receive, self._limits.body_bytes, None if upload is None else upload.grow).receive
        except SprayDryError as error:
            await answer_to(error)(scope, receive, exchange.send)
            return
        scope["spraydry.grant"] = exchange.grant
        await self._app(scope, receive, exchange.send)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> Grant:
        """The grant of a request. Raises Refused, TooMany."""
        if scope["path"] in OPEN:
            return NOTHING
        try:
            grant = self._door.grant(scope, headers)
        except Refused:
            self._count(scope, "")
            raise
        self._count(scope, grant.name)
        if not grant.anything:
            grant.require("list")
        return grant

    def _count(self, scope: Scope, name: str) -> None:
        if self._rates is not None:
            self._rates.take(name or sender_of(address_of(scope)))


def _hung_up(error: Exception) -> bool:
    """Whether all that went wrong is that the client did not wait for its answer."""
    gone = (ClientDisconnect, ConnectionError)
    return error.split(gone)[1] is None if isinstance(error, ExceptionGroup) else isinstance(error, gone)


def address_of(scope: Scope) -> str:
    """The address of whoever sent a request, without its port; empty over a unix socket."""
    return scope["client"][0] if scope["client"] else ""


def sender_of(address: str) -> str:
    """Those addresses that one sender may choose from: of IPv6 a whole network of 64 bits."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))


def _forwarded(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Take the sender's address from what a trusted proxy says, which is the last it added."""
    told = headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip().decode("latin-1")
    try:
        scope["client"] = (str(ipaddress.ip_address(told)), 0)
    except ValueError:
        pass


def is_local(address: str) -> bool:
    """Whether an address as `address_of` gives it is of this machine."""
    return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback
