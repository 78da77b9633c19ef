"""Conditional and partial requests: which bytes of something are wanted, if any."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.requests import Request

_RANGE = re.compile(r"bytes *= *(?:([0-9]{1,18}) *- *([0-9]{1,18})?|- *([0-9]{1,18}))")
_TAG = re.compile(r'(?:W/)?"[^"]*"')


class Slice(NamedTuple):
    """The bytes from `start` to before `stop` of `size`."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class Unsatisfiable(Exception):
    """A range behind the end."""


def is_ranged(request: Request, etag: str) -> bool:
    """Whether one range is asked for, and still of what the client has begun to read."""
    header = request.headers.get("range", "")
    return (
        request.method == "GET"
        and _RANGE.fullmatch(header.strip()) is not None
        and request.headers.get("if-range", etag).strip() == etag
    )


def slice_of(request: Request, etag: str, size: int) -> Slice | None:
    """The one range that is asked for; None where all is to be sent: without one, with several, with one that is none,
    or when If-Range names something else than `etag`. Raises Unsatisfiable."""
    if not is_ranged(request, etag):
        return None
    match = _RANGE.fullmatch(request.headers["range"].strip())
    assert match is not None
    first, last, final = match.groups()
    if final is not None:
        start, stop = max(size - int(final), 0), size
    else:
        start, stop = int(first), size if last is None else min(int(last) + 1, size)
        if last is not None and int(last) < start:
            return None  # no range at all
    if start >= stop:
        raise Unsatisfiable
    return Slice(start, stop, size)


def names_tag(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match or If-Match header names that tag (or anything, by `*`)."""
    if header is None:
        return False
    return header.strip() == "*" or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in _TAG.findall(header)]
