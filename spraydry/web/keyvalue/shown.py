"""What of a store is shown to clients, and how long a value they send may be."""

from __future__ import annotations

import re

from starlette.requests import Request

from spraydry.errors import UsageError
from spraydry.format.frame import MAX_DICTIONARY_BYTES, MAX_FRAME_BYTES
from spraydry.repository.opening import CONFIG
from spraydry.stores.base import NAMESPACES, is_key
from spraydry.stores.remote.wire import MOST_LISTED

# What else lies in `config` says where stores are: a server neither tells an address nor takes one.
_CONFIGS = (CONFIG,)
MOST_BYTES = {
    "frames": MAX_FRAME_BYTES,
    "index": 64 << 20,
    "dictionaries": MAX_DICTIONARY_BYTES,
    "log": 8 << 20,
    "leases": 1 << 20,
    "hoards": MAX_FRAME_BYTES,
}
BODY_BYTES = max(MOST_BYTES.values())
# In these the name is the digest of the value.
BY_DIGEST = ("frames", "index", "dictionaries")
_DIGEST = re.compile("[0-9a-f]{64}")


def check_namespace(namespace: str) -> None:
    """Raises UsageError for what is no namespace."""
    if namespace not in NAMESPACES:
        raise UsageError(f"there is no namespace {namespace[:40]!r}: it is one of {', '.join(NAMESPACES)}")


def check_name(namespace: str, name: str) -> None:
    """Raises UsageError for what no store takes as a key."""
    check_namespace(namespace)
    if not is_key(namespace, name):
        raise UsageError(f"{name[:220]!r} cannot name a value in {namespace}")


def is_shown(namespace: str, name: str) -> bool:
    """Whether clients may know of that value at all."""
    return namespace != "config" or name in _CONFIGS


def is_digest(name: str) -> bool:
    """Whether that is a digest as names have it."""
    return _DIGEST.fullmatch(name) is not None


def limit_of(request: Request) -> int:
    """How long a page of a listing is to be at most, by default 1000. Raises UsageError."""
    limit = request.query_params.get("limit", "1000")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 9 and 0 < int(limit) <= MOST_LISTED):
        raise UsageError(f"limit is to be a number from 1 to {MOST_LISTED}")
    return int(limit)
