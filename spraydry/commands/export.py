"""`spraydry export`."""

from __future__ import annotations

from typing import Literal

Format = Literal["erofs", "squashfs", "tar", "zip"]


def export(
    address: str,
    out: str,
    /,
    *,
    format: Format | None = None,
    level: int = 3,
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
        tar: with times in ns and extended attributes. zip: for those who have no tar. squashfs: compressed, made by
        mksquashfs. erofs: not compressed, files with the same content in it once, quick to read. Default: what the name
        of OUT ends with, or else tar.
    level
        zstd level of a squashfs, 1 to 22.
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

    if not 1 <= level <= 22:
        raise UsageError("--level: squashfs has the zstd levels 1 to 22")
    if out == "-":
        raise UsageError(f"export writes files; a tar goes to standard output with: spraydry tar {address}")
    by_ending: dict[str, Format] = {".erofs": "erofs", ".sqfs": "squashfs", ".squashfs": "squashfs", ".zip": "zip"}
    format = format or by_ending.get(os.path.splitext(out)[1], "tar")
    with open_repository() as repository, Progress(quiet=json) as progress:
        found = repository.resolve(address)
        with action.new_file(out, overwrite) as path:
            if format == "erofs":
                done = action.write_erofs(repository, found, path, progress)
            elif format == "squashfs":
                done = action.write_squashfs(repository, found, path, level, progress)
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
