"""`spraydry ls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spraydry.actions.describe import Described
    from spraydry.repository.address import Found
    from spraydry.repository.repository import Repository


def ls(
    address: str | None = None,
    /,
    *,
    recursive: Annotated[bool, Parameter(alias="-R")] = False,
    digests: bool = False,
    json: bool = False,
) -> int | None:
    """List the roots, or what an address names.

    For example:
        spraydry ls                          # the roots
        spraydry ls photos@v3:2024           # what a directory holds
        spraydry ls --digests photos > sums  # b3sum --check sums, in ~/photos

    Parameters
    ----------
    address
        ROOT[@VERSION][:PATH]; without it the roots are listed.
    recursive
        List what is in directories, too, however deep.
    digests
        Print the BLAKE3 digest of every file, however deep, as b3sum prints it.
    json
        Print a JSON array, an element for each line.
    """
    from spraydry.actions.describe import describe, relative
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        if address is None:
            _roots(repository, json)
            return None
        base = repository.resolve(address)
        listed = (describe(found, relative(found, base)) for found in _listed(repository, base, recursive or digests))
        if digests:
            return _digests((one for one in listed if one.kind == "file"), json)
        if json:
            terminal.print_json_list(listed)
        else:
            for one in listed:
                terminal.line(_line(one))
    return None


def _listed(repository: Repository, base: Found, recursive: bool) -> Iterator[Found]:
    from spraydry.format.entry import DIRECTORY
    from spraydry.repository.address import children

    if base.entry.kind != DIRECTORY:
        yield base
    elif recursive:
        yield from (found for found in repository.walk(base) if found is not base)
    else:
        yield from children(repository, base)


def _line(one: Described) -> str:
    """Mode, owner, group, size, time, name, as `ls -l` has them."""
    import stat

    from spraydry.commands import terminal

    size = f"{one.device[0]}, {one.device[1]}" if one.device else f"{one.size:,}"
    arrow = f" -> {terminal.printable(one.target)}" if one.target is not None else ""
    return (
        f"{stat.filemode(_TYPE[one.kind] | int(one.mode, 8))} {one.user or one.uid!s:<8} {one.group or one.gid!s:<8}"
        f" {size:>13} {terminal.moment(one.mtime_s)} {terminal.printable(one.path)}{arrow}"
    )


_TYPE = {
    "file": 0o100000,
    "directory": 0o040000,
    "symlink": 0o120000,
    "fifo": 0o010000,
    "socket": 0o140000,
    "character device": 0o020000,
    "block device": 0o060000,
}


def _digests(files: Iterator[Described], json: bool) -> int | None:
    from spraydry.commands import terminal

    if json:
        terminal.print_json_list({"path": one.path, "digest": one.digest} for one in files)
        return None
    terminal.text(_sums(files))
    return None


def _sums(files: Iterator[Described]) -> Iterator[bytes]:
    """Lines as b3sum writes them."""
    from spraydry.commands import terminal

    for one in files:
        if one.digest is None:
            terminal.warn(f"no digest is kept of {terminal.printable(one.path)}: its holes are too long to hash")
            continue
        # As b3sum writes names: what is no UTF-8 is replaced, backslashes and line feeds are escaped and marked so.
        name = one.path.decode(errors="replace")
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
        mark = "\\" if escaped != name else ""
        yield f"{mark}{one.digest}  {escaped}\n".encode()


def _roots(repository: Repository, json: bool) -> None:
    from spraydry.actions.info import info
    from spraydry.commands import terminal

    roots = info(repository).roots
    if json:
        terminal.print_json_list(roots)
    elif roots:
        terminal.table(
            ("root", "newest", "versions", "made", "files", "size"),
            (
                (
                    root.root,
                    root.newest,
                    str(root.versions),
                    terminal.moment(root.made_ns // 10**9),
                    f"{root.files:,}",
                    terminal.size(root.bytes),
                )
                for root in roots
            ),
            right=(2, 4, 5),
        )
    else:
        terminal.warn("there is nothing yet: `spraydry ingest DIR` makes the first root")
