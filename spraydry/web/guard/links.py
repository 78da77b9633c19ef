"""Signed links: addresses that need no token until they expire, good for reading exactly what they name."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from urllib.parse import urlencode

_PARAMETERS = re.compile(rb"(?:^|&)expires=([0-9]{1,12})(?:&by=([A-Za-z0-9_.@-]{1,100}))?&signature=([0-9a-f]{64})$")


def sign(key: bytes, address: str, expires: int, by: str = "", secret: str = "") -> str:
    """`address` (a path as it stands in a request, escaped, perhaps with a query) with a signature good until `expires`
    (seconds since 1970). It gives no more than the token named `by` does, and nothing once that is revoked, also where
    another one gets its name: `secret` is the digest of its secret. Without, whatever is at the address may be read."""
    path, _, query = address.partition("?")
    told = {"expires": str(expires)} | ({"by": by} if by else {})
    return (
        path
        + "?"
        + (f"{query}&" if query else "")
        + urlencode(told)
        + "&signature="
        + _signature(key, path.encode(), query.encode(), expires, by.encode(), secret)
    )


def check(
    key: bytes, path: bytes, query: bytes, now: float, secret_of: Callable[[str], str] = lambda by: ""
) -> str | None:
    """The name of the token by which a link was signed, empty for none; None where it is not signed, not by this key,
    or not any more. Path and query as they were sent; `secret_of` gives the digest of a token's secret."""
    found = _PARAMETERS.search(query)
    if found is None:
        return None
    expires, by, signature = int(found[1]), found[2] or b"", found[3]
    proper = _signature(key, path, query[: found.start()], expires, by, secret_of(by.decode()) if by else "")
    if not hmac.compare_digest(proper.encode(), signature) or expires <= now:
        return None
    return by.decode()


def _signature(key: bytes, path: bytes, query: bytes, expires: int, by: bytes, secret: str) -> str:
    signed = b"\0".join((b"spraydry link", path, query, b"%d" % expires, by, *([secret.encode()] if by else [])))
    return hmac.digest(key, signed, "sha256").hex()
