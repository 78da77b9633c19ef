"""`spraydry tar`."""

from __future__ import annotations


def tar(address: str, /) -> None:
    """Write a version, or a directory in it, to standard output as a tar stream.

    The entries of a directory stand in it without a leading folder, the directory
    itself as `.`; with times in ns, hardlinks, holes, extended attributes and ACLs.
    What is written was verified; after an error the stream ends without its end
    mark, so that whoever reads it notices. `spraydry ingest -` takes it back.

    For example:
        spraydry tar photos@v3 | ssh host tar x -C /srv/photos
        spraydry tar photos:2024 | zstd > 2024.tar.zst
        spraydry tar photos | tar x --xattrs --xattrs-include='*' -C copy
        spraydry tar photos | spraydry ingest - --root copy --repo other.sqlite

    Parameters
    ----------
    address
        ROOT[@VERSION][:PATH]
    """
    import sys

    from spraydry.actions.export import write_tar
    from spraydry.commands import terminal
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    terminal.refuse_terminal("a tar stream", f"spraydry tar {address} > FILE.tar")
    with open_repository() as repository, Progress() as progress:
        done = write_tar(repository, repository.resolve(address), sys.stdout.buffer, progress)
        sys.stdout.buffer.flush()
    for left, why in done.left_out:
        terminal.warn(f"left out: {terminal.printable(left)}: {why}")
