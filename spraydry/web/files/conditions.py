"""Conditional requests: whether what a client has is what it would get. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime

_TAG = re.compile(rb'\s*(W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')

# The headers that say under which conditions a client wants an answer, and which part of it.
CONDITIONAL = frozenset(
    (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"range")
)


def http_date(seconds: int) -> bytes:
    """A time as HTTP writes it; the year must have four digits."""
    return formatdate(seconds, usegmt=True).encode()


def status(asked: Mapping[bytes, bytes], etag: bytes, modified_s: int | None, lasting: bool) -> int:
    """200, or 304 or 412 where the conditions say so, in the order of RFC 9110 §13.2.2.

    What is not `lasting` may be replaced by something older, so there only the very same time counts as not modified.
    """
    if (tags := asked.get(b"if-match")) is not None:
        if not _matches(tags, etag, strong=True):
            return 412
    elif (since := _seconds(asked.get(b"if-unmodified-since"))) is not None and (
        modified_s is None or modified_s > since
    ):
        return 412
    if (tags := asked.get(b"if-none-match")) is not None:
        return 304 if _matches(tags, etag, strong=False) else 200
    if (since := _seconds(asked.get(b"if-modified-since"))) is not None and modified_s is not None:
        return 304 if since == modified_s or (lasting and since > modified_s) else 200
    return 200


def range_holds(condition: bytes, etag: bytes, modified_s: int | None, lasting: bool) -> bool:
    """Whether a client that sent this If-Range has the other parts of the same bytes: by a strong tag, or by a time
    where nothing else can have that."""
    condition = condition.strip()
    if condition.startswith((b'"', b"W/")):
        return condition == etag and not etag.startswith(b"W/")
    return lasting and modified_s is not None and _seconds(condition) == modified_s


def _matches(tags: bytes, etag: bytes, strong: bool) -> bool:
    if tags.strip() == b"*":
        return True
    weak, opaque = etag.startswith(b"W/"), etag.removeprefix(b"W/")
    at = 0
    while (match := _TAG.match(tags, at)) is not None and match.end() > at:
        if match[2] == opaque and not (strong and (weak or match[1])):
            return True
        at = match.end()
    return False


def _seconds(date: bytes | None) -> int | None:
    """The time a header tells; None where it tells none."""
    if date is None:
        return None
    try:
        return int(parsedate_to_datetime(date.decode("ascii")).timestamp())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
