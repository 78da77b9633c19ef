"""Who is at the door: from the headers and address of a request to its grant."""

from __future__ import annotations

import binascii
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import Scope

from spraydry.web.grant import NOTHING, Grant, Refused, Right, Rule
from spraydry.web.guard import links
from spraydry.web.guard.tokenfile import Token
from spraydry.web.guard.tokens import Tokens

_SAFE = ("GET", "HEAD", "OPTIONS")
_LINK_RIGHTS: frozenset[Right] = frozenset({"list", "read"})
_LOCAL_HOST = re.compile(
    rb"(localhost|[a-z0-9-]+\.localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE
)


class Door:
    """Finds the grant of each request. For one thread.

    `repositories` are the names of what is served (one empty name where it is the only one), and whether each only is
    read. `anyone` are the rights of whoever brings no token. With `local` only names of this machine are taken as the
    server's: a web page elsewhere whose name was made to mean 127.0.0.1 gets nothing.
    """

    def __init__(
        self, repositories: Mapping[str, bool], tokens: Tokens | None, anyone: frozenset[Right], local: bool
    ) -> None:
        self._repositories = repositories
        self._single = "" in repositories
        self._tokens = tokens
        self._anyone = (Rule(anyone),) if anyone else ()
        self._local = local
        self._grants: dict[tuple[str, str], Grant] = {}
        self._generation = 0

    def sign(self, address: str, expires: int, by: str = "") -> str:
        """`address`, signed; as it is where the server has no tokens, and so no key."""
        if self._tokens is None:
            return address
        return links.sign(self._tokens.key, address, expires, by, self._secret_of(by) if by else "")

    def _secret_of(self, name: str) -> str:
        token = None if self._tokens is None else self._tokens.named(name)
        return "" if token is None else token.secret

    def quota_bytes(self, name: str) -> int | None:
        """How much may be uploaded with the token of that name; None for any amount."""
        token = self._tokens.named(name) if self._tokens is not None and name else None
        return None if token is None else token.quota_bytes

    def repository(self, path: str) -> str:
        """The name of the repository to which a path belongs, whether there is one or not."""
        return "" if self._single else path.split("/", 2)[1] if path.startswith("/") else path

    def grant(self, scope: Scope, headers: Mapping[bytes, bytes]) -> Grant:
        """What the sender of a request may do in the repository that its path names. Raises Refused where a token was
        given that is not good, or where the request is not what its sender meant to send."""
        if scope["method"] not in _SAFE and (origin := headers.get(b"origin")) is not None:
            _same_origin(origin, headers.get(b"host", b""))
        if self._local and not _LOCAL_HOST.fullmatch(headers.get(b"host", b"localhost")):
            raise Refused("without tokens this server answers to the names of this machine only", True)
        name = self.repository(scope["path"])
        authorization = headers.get(b"authorization")
        if (self._local or _of_browser(authorization)) and _embedded(headers):
            raise Refused("a page of another server must not show what is here", True)
        if authorization is not None and self._tokens is not None:
            token = self._tokens.find(_secret(authorization))
            if token is None:
                raise Refused("this token is not known here, or not any more", False)
            return self._given(token, name)
        if self._tokens is not None and b"signature=" in scope["query_string"] and scope["method"] in ("GET", "HEAD"):
            return self._linked(self._tokens, scope, name)
        return self._cached("", name, None)

    def _linked(self, tokens: Tokens, scope: Scope, name: str) -> Grant:
        """What a signed link gives: to look at what is at its address, as far as who signed it may."""
        by = links.check(tokens.key, scope["raw_path"], scope["query_string"], time.time(), self._secret_of)
        if by is None:
            raise Refused("this link has expired, or was changed", False)
        if not by:
            return Grant((Rule(_LINK_RIGHTS),), read_only=True)
        token = tokens.named(by)
        if token is None:
            raise Refused("this link is not good any more", False)
        whole = self._given(token, name)
        return Grant(whole.rules, by, read_only=True)

    def _given(self, token: Token, name: str) -> Grant:
        return self._cached(token.name, name, token)

    def _cached(self, key: str, name: str, token: Token | None) -> Grant:
        if self._tokens is not None and self._tokens.generation != self._generation:
            self._generation = self._tokens.generation
            self._grants.clear()
        known = self._grants.get((key, name))
        if known is None:
            known = self._made(token, name)
            if name in self._repositories:  # others can be called anything
                self._grants[key, name] = known
        return known

    def _made(self, token: Token | None, name: str) -> Grant:
        rules: tuple[Rule, ...] = self._anyone
        if token is not None:
            own = (given.rule() for given in token.given)
            rules += tuple(rule for rule in own if not rule.repositories or rule.matches[3](name))
        if token is None and not rules:
            return NOTHING
        return Grant(
            rules,
            token.name if token else "",
            token is not None or self._tokens is None,
            self._repositories.get(name, False),
        )


def _secret(authorization: bytes) -> bytes:
    """The secret in `Bearer SECRET`, or `Basic BASE64(anybody:SECRET)`, as browsers send it; else nothing."""
    scheme, _, rest = authorization.strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"bearer":
        return rest
    if scheme.lower() == b"basic":
        try:
            return binascii.a2b_base64(rest).partition(b":")[2]
        except binascii.Error:
            pass
    return b""


def _of_browser(authorization: bytes | None) -> bool:
    """Whether that is what a browser sends along by itself, whatever page makes it ask."""
    return authorization is not None and authorization[:6].lower() == b"basic "


def _embedded(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser says that it wants something for a page of another server: as a script that would run there, a
    picture, a style. A page of ours that was opened in a sandbox is a stranger to its browser, but not its Referer."""
    if headers.get(b"sec-fetch-site") not in (b"cross-site", b"same-site"):
        return False
    if headers.get(b"sec-fetch-dest") in (b"document", b"iframe", b"frame"):  # who may frame it our policy says
        return False
    return _place(headers.get(b"referer", b"")) != headers.get(b"host", b"").decode("latin-1").lower()


def _place(url: bytes) -> str:
    """The host and port of a URL in lower case; nothing where it has none."""
    try:
        return urlsplit(url.decode("latin-1")).netloc.lower()
    except ValueError:
        return ""


def _same_origin(origin: bytes, host: bytes) -> None:
    """Raises Refused where a browser sends what a page of another server made: it would send its password along."""
    if _place(origin) != host.decode("latin-1").lower():
        raise Refused("a page of another server must not change anything here", True)
