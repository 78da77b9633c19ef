"""Looking for files in all versions: patterns and other conditions on entries, each content found told once."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spraydry.actions.contents import Contents, Enough, Place, Wanted, never, scopes
from spraydry.actions.progress import Report, unheard
from spraydry.errors import UsageError
from spraydry.format.entry import DIRECTORY, Entry
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Query:
    """What an entry must be like: all that is not None. `pattern` is a glob of the name or, with a slash in it, of the
    path in the version; with `regex` an expression found anywhere in the path. Without `kinds` any but directories. The
    size of a directory is that of the files in it; times are seconds since 1970."""

    pattern: bytes | None = None
    regex: bool = False
    ignore_case: bool = False
    kinds: frozenset[int] | None = None
    least_bytes: int | None = None
    most_bytes: int | None = None
    newer_s: int | None = None
    older_s: int | None = None


@dataclass(frozen=True)
class Match:
    """A content, as one of the entries that have it tells, and the places where it is."""

    entry: Entry
    places: Iterator[Place]


def find(
    repository: Repository,
    query: Query,
    addresses: Sequence[str] = (),
    progress: Report = unheard,
    enough: Enough = never,
) -> Iterator[Match]:
    """What fits the query in the versions and paths named (none: all of all roots), each content once, by its first
    path. The places of a match are to be gone through before the next one is taken.

    Trees are gone through once, from one version to the next only where they differ; once there is `enough`, no
    further. Memory is bounded. Raises UsageError, NotFound, CorruptData.
    """
    wanted = condition(query)
    with Contents(repository, scopes(repository, addresses), wanted, progress, enough) as contents:
        for name, entry in contents.by_place():
            yield Match(entry, contents.places(name))


def condition(query: Query) -> Wanted:
    """What says whether an entry at a path fits a query. Raises UsageError for a pattern that is none."""
    if query.pattern is None:
        names = None
    elif query.regex:
        names = expression(query.pattern, query.ignore_case).search
    else:
        try:
            names = expression(glob(query.pattern.removeprefix(b"/")), query.ignore_case).fullmatch
        except UsageError:
            raise UsageError(f"{os.fsdecode(query.pattern)!r} is no pattern: a range in [...] goes down") from None
    whole = query.pattern is not None and (query.regex or b"/" in query.pattern)

    least = query.least_bytes or 0
    sized = least > 0 or query.most_bytes is not None

    def fits(path: bytes, entry: Entry) -> bool:
        if entry.kind == DIRECTORY if query.kinds is None else entry.kind not in query.kinds:
            return False
        if names is not None and names(path if whole else path[path.rfind(b"/") + 1 :]) is None:
            return False
        if sized:
            size = entry.totals.size if entry.kind == DIRECTORY else entry.size
            if size < least or (query.most_bytes is not None and size > query.most_bytes):
                return False
        return (query.newer_s is None or entry.mtime_s >= query.newer_s) and (
            query.older_s is None or entry.mtime_s < query.older_s
        )

    return Wanted(fits, query.newer_s is not None or query.older_s is not None)


def expression(pattern: bytes, ignore_case: bool = False, flags: int = re.DOTALL) -> re.Pattern[bytes]:
    """A compiled regular expression. Raises UsageError with the place where it is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what may mean something else one day
            return re.compile(pattern, flags | (re.IGNORECASE if ignore_case else 0))
    except re.error as error:
        raise UsageError(f"{os.fsdecode(pattern)!r} is no regular expression: {error}") from None
    except (RecursionError, OverflowError):
        raise UsageError(f"the regular expression {os.fsdecode(pattern)[:50]!r}... is too large") from None


def glob(pattern: bytes) -> bytes:
    """A shell pattern as a regular expression: `*`, `?` and `[...]` stop at slashes, `**` does not, and as a name of
    its own it stands for any number of them, also none.

    What a `*` stands for ends at the first place at which what follows it, up to the next star, fits: any later one
    leaves less to the rest. So that many stars take no longer than few.
    """
    out: list[bytes] = []
    star: int | None = None  # where in `out` the last `*` is, if no other star came since
    at = 0

    def end_star() -> None:
        nonlocal star
        if star is not None:
            out[star] = b"(?>[^/]*?"
            out.append(b")")
            star = None

    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith(b"**/") and (at == 0 or pattern[at - 1 : at] == b"/"):
            end_star()
            out.append(b"(?:.*/)?")
            at += 3
        elif rest.startswith(b"**"):
            end_star()
            out.append(b".*")
            at += 2
        elif rest.startswith(b"*"):
            end_star()
            star = len(out)
            out.append(b"[^/]*")
            at += 1
        elif rest.startswith(b"?"):
            out.append(b"[^/]")
            at += 1
        elif found := _CLASS.match(rest):
            inner = re.sub(rb"([\\\[\]&~|^])", rb"\\\1", found[2])
            out.append(b"(?!/)[" + (b"^" if found[1] else b"") + inner + b"]")
            at += found.end()
        else:
            step = 2 if rest[:1] == b"\\" and len(rest) > 1 else 1
            out.append(re.escape(rest[step - 1 : step]))
            at += step
    return b"".join(out)


_CLASS = re.compile(rb"\[([!^]?)(\]?[^\]]*)\]", re.DOTALL)
