"""`spraydry compose`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def compose(
    root: str,
    expression: str,
    /,
    *,
    as_: Annotated[str | None, Parameter(name="--as")] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Make a version from versions that are there: no file is read or stored again.

    An expression is done from left to right:

        A + B        B laid over A: folders merge, otherwise B's is there
        A -> PATH    what A names goes to PATH; folders on the way are made
        ... - PATH   without PATH, of all to the left

    A and B are addresses, ROOT[@VERSION][:PATH]; -> belongs to the one before it.
    A folder gives what is in it, anything else goes to the top under its name.
    Operators stand between blanks; a word with blanks, or that looks like an
    operator, is quoted. Where folders merge, the later one's owner, permissions
    and time count.

    For example:
        spraydry compose site 'base@v3 + models@v7:weights -> opt/weights - secret'
        spraydry compose photos 'photos@v2 + photos@v9:2024/a.jpg -> 2024/a.jpg'
        spraydry compose old 'photos:"my best" -> best - best/raw'

    Parameters
    ----------
    root
        The root that gets the version; a new one, or one that is there.
    expression
        What the version is to be.
    as_
        Name of the version; by default v1, v2, and so on.
    dry_run
        Only tell what would be done.
    json
        Print one JSON document.
    """
    from spraydry.actions.compose.compose import compose as run
    from spraydry.commands.composing import tell
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository, Progress(quiet=json) as progress:
        made = run(repository, root, expression, name=as_, dry_run=dry_run, progress=progress)
    tell(made, dry_run, json)
