"""`spraydry put`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.actions.hoard import Hoard, Source
    from spraydry.repository.keys import Kept


def put(*arguments: str, new: bool = False, json: bool = False) -> None:
    """Keep single files under keys of a hoard.

    The first put makes the hoard. A key that is there names the new file from then
    on; what it named can be had back by `spraydry undelete`, until a gc has deleted
    it. Several files go below a prefix, all of them or none.

    Without HOARD/KEY the digest is printed, which `spraydry get` takes: the file is
    then the key of that name in the hoard `digests`, and like any other it stays
    until it is deleted (`spraydry delete digests/DIGEST`).

    For example:
        spraydry put me.png avatars/alice.png
        date | spraydry put - notes/today
        spraydry put *.png avatars/2026/
        spraydry put me.png

    Parameters
    ----------
    arguments
        FILE... and HOARD/KEY, or HOARD/ or HOARD/PREFIX/ for their names below that; FILE - is standard input.
    new
        Refuse a key that is there.
    json
        Print a JSON array, an element for each file.
    """
    from spraydry.commands import terminal
    from spraydry.commands.session import open_hoard
    from spraydry.errors import UsageError

    files, target = _sorted_out(list(arguments))
    if not files:
        raise UsageError("name a file: spraydry put FILE HOARD/KEY")
    hoard, named = _keys(files, target)
    with open_hoard(hoard, create=True, read_only=False) as kept_in:
        if target is None:
            done = [kept_in.put_unnamed(_source(files[0]))]
        elif len(named) == 1:
            done = [kept_in.put(_source(files[0]), named[0], new=new)]
        else:
            done = _all_or_none(kept_in, files, named, new)
    if json:
        terminal.print_json_list(_told(hoard, one) for one in done)
        return
    for one in done:
        if target is None:
            terminal.line(one.key)
        else:
            terminal.line(f"{terminal.printable(f'{hoard}/{one.key}'.encode())}: {terminal.size(one.size)}")


def _sorted_out(arguments: list[str]) -> tuple[list[str], str | None]:
    """The files, and where they go. `-` may have been moved to the end."""
    from spraydry.errors import UsageError

    if "-" in arguments:
        rest = [one for one in arguments if one != "-"]
        if len(rest) > 1:
            raise UsageError("standard input goes alone: spraydry put - HOARD/KEY")
        if rest and rest[0].endswith("/"):
            raise UsageError(f"standard input has no name: write which key below {rest[0]} it is to be")
        return ["-"], rest[0] if rest else None
    if len(arguments) <= 1:
        return arguments, None
    return arguments[:-1], arguments[-1]


def _keys(files: list[str], target: str | None) -> tuple[str, list[str]]:
    import os

    from spraydry.actions.hoard.address import DIGESTS, parse_key, parse_prefix
    from spraydry.errors import UsageError

    if target is None:
        return DIGESTS, []
    if not target.endswith("/"):
        if len(files) > 1:
            raise UsageError(f"{len(files)} files need a place to go below: write {target}/")
        found = parse_key(target)
        return found.hoard, [found.key]
    prefix = parse_prefix(target)
    names = [os.path.basename(os.path.abspath(file)) for file in files]
    if len(set(names)) < len(names):
        raise UsageError("two of the files have the same name: put them one by one")
    return prefix.hoard, [prefix.key + name for name in names]


def _source(file: str) -> Source:
    import os
    import sys

    from spraydry.commands import terminal
    from spraydry.errors import PathNotFound, UsageError

    if file == "-":
        return sys.stdin.buffer
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        raise PathNotFound(f"{terminal.printable(os.fsencode(file))}: no such file") from None
    except OSError:
        pass  # opening it says why
    if os.path.isdir(file):
        raise UsageError(f"{file!r} is a folder: put takes files, and `spraydry ingest` folders")
    return file


def _all_or_none(hoard: Hoard, files: list[str], keys: list[str], new: bool) -> list[Kept]:
    from spraydry.actions.progress import Done
    from spraydry.commands.progress import Progress

    done, size = [], 0
    with Progress() as progress, hoard.transaction() as change:
        for count, (file, key) in enumerate(zip(files, keys, strict=True), 1):
            done.append(change.put(file, key, new=new))
            size += done[-1].size
            progress(Done("putting", count, size, len(files)))
    return done


def _told(hoard: str, kept: Kept) -> dict[str, object]:
    return {
        "hoard": hoard,
        "key": kept.key,
        "size": kept.size,
        "digest": kept.digest.hex() if kept.digest else None,
        "put_ns": kept.put_ns,
    }
