"""`spraydry split`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def split(
    address: str,
    root: str,
    /,
    *,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Make what an address names a root of its own: no file is read or stored again.

    The root it comes from stays as it is; `spraydry forget` takes the path out of
    that.

    For example:
        spraydry split photos:2024 photos-2024
        spraydry split photos@v3:2023/june june --as first

    Parameters
    ----------
    address
        ROOT[@VERSION]:PATH, a folder or a file.
    root
        The root that gets the version; a new one, or one that is there.
    as_
        Name of the version; by default v1, v2, and so on.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions.compose.compose import split as run
    from spraydry.commands.composing import tell
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        made = run(repository, address, root, name=as_, dry_run=dry_run, progress=progress)
    tell(made, dry_run, json)
