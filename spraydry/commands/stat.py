"""`spraydry stat`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spraydry.repository.address import Found
    from spraydry.repository.repository import Repository


def stat(address: str, /, *, chunks: bool = False, json: bool = False) -> None:
    """Show everything that is kept of what an address names.

    For example:
        spraydry stat photos@v3:2024/a.jpg
        spraydry stat --chunks photos:2024/a.jpg

    Parameters
    ----------
    address
        ROOT[@VERSION][:PATH]
    chunks
        List the chunks of a file instead: offset, length and digest of each one, `hole` where there are only zeros.
    json
        Print one JSON document.
    """
    from spraydry.actions.describe import describe, details, relative
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        found = repository.resolve(address)
        if chunks:
            _tell_chunks(repository, found, json)
            return
        one, more = describe(found, relative(found, found)), details(repository, found)
        names = [name.name for name in repository.versions(found.version.root) if name.made_in == found.version.made_in]
    record = found.version.record
    if json:
        shown = {
            "version": str(found.version),
            "names": names,
            "made_ns": record.made_ns,
            "made_by": record.made_by,
            "incomplete": record.incomplete,
            "path": found.path,
        }
        fields = {name: getattr(one, name) for name in type(one).__dataclass_fields__ if name != "path"}
        terminal.print_json(
            {**shown, **fields, **{name: getattr(more, name) for name in type(more).__dataclass_fields__}}
        )
        return
    rows = [
        ("path", terminal.printable(found.path) or "/"),
        ("version", str(found.version) + "".join(f", {name}" for name in names if name != found.version.name)),
        ("kind", one.kind),
        ("size", terminal.plural(one.size, "byte")),
        ("mode", one.mode),
        ("owner", f"{one.uid} ({one.user})" if one.user else str(one.uid)),
        ("group", f"{one.gid} ({one.group})" if one.group else str(one.gid)),
        ("modified", terminal.moment(one.mtime_s, one.mtime_ns, exact=True)),
    ]
    if not found.path:
        made = f"{terminal.moment(record.made_ns // 10**9)} by {terminal.safe(record.made_by)}"
        rows.append(("made", made + ("; incomplete: not all could be read" if record.incomplete else "")))
    if one.kind == "directory":
        rows.append(("holds", f"{more.files:,} files, {more.inodes:,} entries in all"))
    if one.kind == "file":
        rows.append(("digest", one.digest or "none kept"))
        holes = f", {terminal.plural(more.hole_bytes, 'byte')} in holes" if more.hole_bytes else ""
        rows.append(("chunks", f"{more.chunks:,}{holes}"))
    if one.target is not None:
        rows.append(("target", terminal.printable(one.target)))
    if one.device is not None:
        rows.append(("device", f"{one.device[0]}, {one.device[1]}"))
    if more.links > 1:
        rows.append(("hardlinks", str(more.links)))
    rows += [("xattr", f"{terminal.printable(name)} = {terminal.printable(value)}") for name, value in more.xattrs]
    for name, value in rows:
        terminal.line(f"{name + ':':<11}{value}")


def _tell_chunks(repository: Repository, found: Found, json: bool) -> None:
    from spraydry.actions.describe import chunks
    from spraydry.commands import terminal

    spans = chunks(repository, found)
    if json:
        terminal.print_json_list(
            {"offset": span.offset, "length": span.length, "digest": span.chunk.hex() if span.chunk else None}
            for span in spans
        )
        return
    for span in spans:
        terminal.line(f"{span.offset:>15,} {span.length:>11,} {span.chunk.hex() if span.chunk else 'hole'}")
