"""`spraydry export`."""

from __future__ import annotations

from typing import Literal

Format = Literal["erofs", "squashfs", "tar", "zip"]

BY_ENDING: dict[str, Format] = {".erofs": "erofs", ".sqfs": "squashfs", ".squashfs": "squashfs", ".zip": "zip"}

COMPRESSED = {
    **dict.fromkeys((".gz", ".tgz"), "gzip"),
    **dict.fromkeys((".bz2", ".tbz2"), "bzip2"),
    **dict.fromkeys((".xz", ".txz"), "xz"),
    **dict.fromkeys((".zst", ".tzst"), "zstd"),
}
"""Which program makes a file that ends like this."""


def export(
    address: str,
    out: str,
    /,
    *,
    format: Format | None = None,
    level: int | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write a version, or a directory in it, into one file that needs no spraydry.

    All that is written was verified. The file appears when it is complete.
    `spraydry tar` writes to standard output instead.

    For example:
        spraydry export photos@v3 photos.tar
        spraydry export photos photos.zip
        spraydry export photos photos.img --format erofs
        sudo mount -t erofs -o loop photos.img /mnt

    Parameters
    ----------
    address
        ROOT[@VERSION][:PATH]
    out
        The file to write.
    format
        tar: with times in ns and extended attributes. zip: for those who have no tar. squashfs: compressed, times in
        seconds, made by mksquashfs. erofs: not compressed, files with the same content in it once, quick to read.
        Default: what the name of OUT ends with, or else tar.
    level
        zstd level of a squashfs, 1 to 22; by default 3.
    overwrite
        Replace OUT if it is there.
    json
        Print one JSON document.
    """
    import os

    from spraydry.actions import export as action
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    if level is not None and not 1 <= level <= 22:
        raise UsageError("--level: squashfs has the zstd levels 1 to 22")
    if out == "-":
        raise UsageError(f"export writes files; a tar goes to standard output with: spraydry tar {address}")
    if format is None:
        ending = os.path.splitext(out)[1].lower()
        if ending in COMPRESSED:
            raise UsageError(
                f"a tar is written as it is; {ending} comes with: spraydry tar {address} | {COMPRESSED[ending]} > {out}"
            )
        if ending == ".img":
            raise UsageError("an .img may hold either: say --format erofs or --format squashfs")
        format = BY_ENDING.get(ending, "tar")
    if level is not None and format != "squashfs":
        raise UsageError(f"--level is for a squashfs, and this is {'an' if format == 'erofs' else 'a'} {format}")
    with open_repository() as repository, Progress(quiet=json) as progress:
        found = repository.resolve(address)
        with action.new_file(out, overwrite) as path:
            if format == "erofs":
                done = action.write_erofs(repository, found, path, progress)
            elif format == "squashfs":
                done = action.write_squashfs(repository, found, path, level or 3, progress)
            else:
                write = action.write_zip if format == "zip" else action.write_tar
                with open(path, "wb") as file:
                    done = write(repository, found, file, progress)
        seconds = progress.seconds
    for left, why in done.left_out:
        terminal.warn(f"left out: {terminal.printable(left)}: {why}")
    if json:
        terminal.print_json({**vars(done), "seconds": round(seconds, 3)})
    else:
        terminal.line(
            f"{terminal.plural(done.entries, 'entry', 'entries')}, {terminal.size(done.size)} of files, are in"
            f" {terminal.printable(out)}: {terminal.size(done.written_bytes)} in {terminal.duration(seconds)}"
        )
