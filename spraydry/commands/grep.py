"""`spraydry grep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spraydry.actions.grep import Matched

NOTHING_FITS = 1


def grep(
    pattern: str,
    /,
    *addresses: str,
    ignore_case: Annotated[bool, Parameter(alias="-i")] = False,
    files_with_matches: Annotated[bool, Parameter(alias="-l")] = False,
    fixed_strings: Annotated[bool, Parameter(alias="-F")] = False,
    word_regexp: Annotated[bool, Parameter(alias="-w")] = False,
    after_context: Annotated[int, Parameter(alias="-A")] = 0,
    before_context: Annotated[int, Parameter(alias="-B")] = 0,
    context: Annotated[int, Parameter(alias="-C")] = 0,
    include: str | None = None,
    json: bool = False,
) -> int | None:
    """Find lines in the files of all versions; each distinct file is read once.

    The pattern is a regular expression as Python has them, of bytes. A line has the
    versions, path and number: src@v1-v7:a.py:12:text. Other paths of the same file
    follow as such. The exit code is 1 where nothing fits, as that of grep is, and 6
    where a file could not be read.

    For example:
        spraydry grep 'def +main' src              # in all versions of a root
        spraydry grep -i -w todo src@v3:lib        # in a folder of a version
        spraydry grep -F -l 'a.b(' --include '*.py'

    Parameters
    ----------
    pattern
        What to look for.
    addresses
        ROOT[@VERSION][:PATH], where to look; by default everywhere.
    ignore_case
        Take a to z as A to Z.
    files_with_matches
        Print only where the files are.
    fixed_strings
        The pattern is no expression, but the very text.
    word_regexp
        Only where no letter, digit or _ stands on either side.
    after_context
        Print so many lines after each that fits.
    before_context
        Print so many lines before.
    context
        Print so many lines on both sides.
    include
        Look only into files with such a name, such as '*.py', or path, such as 'lib/**'.
    json
        Print a JSON array, an element for each distinct file.
    """
    import os

    from spraydry.actions.find import Query, condition
    from spraydry.actions.grep import Pattern
    from spraydry.actions.grep import grep as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import CorruptData, UsageError

    if min(after_context, before_context, context) < 0:
        raise UsageError("there are no fewer than 0 lines around another")
    sought = Pattern(os.fsencode(pattern), fixed=fixed_strings, ignore_case=ignore_case, words=word_regexp)
    wanted = condition(Query(None if include is None else os.fsencode(include)))
    before, after = max(before_context, context), max(after_context, context)
    told = _Told()
    with open_repository() as repository, Progress(quiet=json) as progress:
        found = action(
            repository,
            sought,
            addresses,
            wanted=wanted,
            before=before,
            after=after,
            only_names=files_with_matches,
            progress=progress,
        )
        if json:
            terminal.print_json_list(_document(one) for one in told.sound(found))
        else:
            for one in told.sound(found):
                _tell(one, files_with_matches, bool(before or after))
    return CorruptData.exit_code if told.problems else None if told.found else NOTHING_FITS


class _Told:
    """Counts what is told, and warns of what could not be read."""

    def __init__(self) -> None:
        self.found = self.problems = 0

    def sound(self, found: Iterable[Matched]) -> Iterable[Matched]:
        from spraydry.commands import terminal

        for one in found:
            if one.problem is None:
                self.found += 1
                yield one
                continue
            self.problems += 1
            for place in one.places:
                terminal.warn(f"{place.where}:{terminal.printable(place.path)}: {one.problem}")


def _tell(one: Matched, only_names: bool, around: bool) -> None:
    import os

    from spraydry.commands import terminal

    names = (place.where + ":" * bool(place.path) + terminal.printable(place.path) for place in one.places)
    if only_names:
        for name in names:
            terminal.line(name)
        return
    name = next(names)
    if one.binary:
        terminal.line(f"Binary file {name} fits")
    front = os.fsencode(name)
    last = 0
    for line in one.lines:
        if around and last and line.number != last + 1:
            terminal.line("--")
        last = line.number
        mark = b":" if line.fits else b"-"
        terminal.text([b"%b%b%d%b%b\n" % (front, mark, line.number, mark, line.text)])
    for other in names:
        terminal.line(f"{other}: the same as {name}")


def _document(one: Matched) -> dict[str, Any]:
    digest = one.entry.file_digest
    return {
        "digest": digest.hex() if digest else None,
        "size": one.entry.size,
        "places": [{"root": at.root, "path": at.path, "versions": at.versions} for at in one.places],
        "binary": one.binary,
        "lines": [line._asdict() for line in one.lines],
    }
