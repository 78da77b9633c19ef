"""`spraydry info`."""

from __future__ import annotations


def info(*, json: bool = False) -> None:
    """Show what a repository holds and what it takes.

    Parameters
    ----------
    json
        Print one JSON document.
    """
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        print(repository.url)
