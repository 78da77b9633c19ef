"""`spraydry find`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from spraydry.actions.find import Match

_KINDS = ("file", "directory", "symlink", "fifo", "socket", "character device", "block device")  # as Entry numbers them
_LETTERS = "fdlpscb"


def find(
    pattern: str,
    /,
    *addresses: str,
    regex: bool = False,
    ignore_case: Annotated[bool, Parameter(alias="-i")] = False,
    type: str | None = None,
    size: str | None = None,
    newer: str | None = None,
    older: str | None = None,
    json: bool = False,
) -> None:
    """Find files in all versions, each distinct one once, with the versions that hold it.

    The pattern is that of a name, or with a slash in it of a whole path: * and ?
    stop at slashes, ** does not. A line has the beginning of the digest, the size,
    and where it is: in photos@v1-v7 from v1 to v7. Other paths of the same content
    follow below. Folders are found with --type d only.

    For example:
        spraydry find '*.jpg'
        spraydry find '2024/**' photos                # in one root
        spraydry find '*' photos@v3:2024 --size +1M   # in a folder of a version
        spraydry find --regex '/IMG_[0-9]+' --newer 2024-05-01

    Parameters
    ----------
    pattern
        A shell pattern, in quotes.
    addresses
        ROOT[@VERSION][:PATH], where to look; by default everywhere.
    regex
        The pattern is a regular expression, found anywhere in the path.
    ignore_case
        Take a to z as A to Z.
    type
        Which kinds, such as f,l: f files, d folders, l symlinks, p fifos, s sockets, c and b devices.
    size
        +1M: at least a MiB. -1M: at most. 1M: exactly.
    newer
        Modified at or after 2024-05-01, or '2024-05-01 12:30'.
    older
        Modified before that.
    json
        Print a JSON array, an element for each distinct file.
    """
    import os

    from spraydry.actions.find import Query
    from spraydry.actions.find import find as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    least, most = _size(size)
    query = Query(os.fsencode(pattern), regex, ignore_case, _kinds(type), least, most, _time(newer), _time(older))
    with open_repository() as repository, Progress(quiet=json) as progress:
        matches = action(repository, query, addresses, progress)
        if json:
            terminal.print_json_list(map(_document, matches))
            return
        for match in matches:
            _tell(match)


def _tell(match: Match) -> None:
    """A line for each place, the first with what is the same for all."""
    from spraydry.commands import terminal
    from spraydry.format.entry import FILE

    entry = match.entry
    what = terminal.size(entry.totals.size) if entry.kind == FILE else _KINDS[entry.kind - 1]
    front = f"{(_digest(match) or '-')[:12]:<12}  {what:>10}"
    for place in match.places:
        terminal.line(f"{front}  {place.where}{':' * bool(place.path)}{terminal.printable(place.path)}")
        front = " " * len(front)


def _digest(match: Match) -> str | None:
    from spraydry.format.entry import Subtree

    content = match.entry.content
    name = content.digest if isinstance(content, Subtree) else match.entry.file_digest
    return name.hex() if name else None


def _document(match: Match) -> dict[str, Any]:
    return {
        "digest": _digest(match),
        "kind": _KINDS[match.entry.kind - 1],
        "size": match.entry.totals.size,
        "places": [{"root": one.root, "path": one.path, "versions": one.versions} for one in match.places],
    }


def _kinds(text: str | None) -> frozenset[int] | None:
    from spraydry.errors import UsageError

    if text is None:
        return None
    letters = text.replace(",", "")
    if not letters or set(letters) - set(_LETTERS):
        raise UsageError(f"{text!r} is no kind: write some of {', '.join(_LETTERS)}, such as f,l")
    return frozenset(_LETTERS.index(letter) + 1 for letter in letters)


def _size(text: str | None) -> tuple[int | None, int | None]:
    """The least and the most that a size may be."""
    from spraydry.format.chunker import parse_bytes

    if text is None:
        return None, None
    sign = text[:1]
    size = parse_bytes(text[1:] if sign in ("+", "-") else text)
    return (None if sign == "-" else size), (None if sign == "+" else size)


def _time(text: str | None) -> int | None:
    from datetime import datetime

    from spraydry.errors import UsageError

    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no time: write 2024-05-01 or '2024-05-01 12:30'") from None
