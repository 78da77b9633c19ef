"""Signed links: addresses that need no token until they expire, good for reading exactly what they name."""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlencode

_PARAMETERS = re.compile(rb"(?:^|&)expires=([0-9]{1,12})(?:&by=([A-Za-z0-9_.@-]{1,100}))?&signature=([0-9a-f]{64})$")


def sign(key: bytes, address: str, expires: int, by: str = "") -> str:
    """`address` (a path as it stands in a request, escaped, perhaps with a query) with a signature good until `expires`
    (seconds since 1970). It gives no more than the token named `by` does, and nothing once that is revoked; without,
    whatever is at the address may be read."""
    path, _, query = address.partition("?")
    told = {"expires": str(expires)} | ({"by": by} if by else {})
    return (
        path
        + "?"
        + (f"{query}&" if query else "")
        + urlencode(told)
        + "&signature="
        + _signature(key, path.encode(), query.encode(), expires, by.encode())
    )


def check(key: bytes, path: bytes, query: bytes, now: float) -> str | None:
    """The name of the token by which a link was signed, empty for none; None where it is not signed, not by this key,
    or not any more. Path and query as they were sent."""
    found = _PARAMETERS.search(query)
    if found is None:
        return None
    expires, by, signature = int(found[1]), found[2] or b"", found[3]
    proper = _signature(key, path, query[: found.start()], expires, by)
    if not hmac.compare_digest(proper.encode(), signature) or expires <= now:
        return None
    return by.decode()


def _signature(key: bytes, path: bytes, query: bytes, expires: int, by: bytes) -> str:
    signed = b"\0".join((b"spraydry link", path, query, b"%d" % expires, by))
    return hmac.digest(key, signed, "sha256").hex()
