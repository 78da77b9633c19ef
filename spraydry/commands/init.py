"""`spraydry init`."""

from __future__ import annotations


def init(*stores: str, copies: int = 1, json: bool = False) -> None:
    """Make a repository, on one store or on several.

    `spraydry ingest` makes a repository by itself where there is none; this is for
    one that is to lie on several stores. The place that --repo names owns the log,
    and is one of them.

    For example:
        spraydry init --repo dir:/srv/a
        spraydry init dir:/mnt/b s3://bucket/c --copies 2 --repo dir:/srv/a

    Parameters
    ----------
    stores
        URLs of further stores.
    copies
        On how many of the stores each frame is to lie.
    json
        Print one JSON document.
    """
    from spraydry.actions.stores import add_store, change_copies, configuration_of
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository, repository_url
    from spraydry.errors import StoreNotFound, UsageError
    from spraydry.repository.places import forget

    if copies > 1 + len(stores):
        raise UsageError(f"--copies {copies}: there are only {terminal.plural(1 + len(stores), 'store')}")
    try:
        open_repository().close()
    except StoreNotFound:
        pass
    else:
        raise UsageError(f"there is a repository at {repository_url()} already: `spraydry store add URL` adds a store")
    forget(repository_url())
    with open_repository(create=True, read_only=False) as repository:
        configuration = configuration_of(repository)
    for url in stores:
        with open_repository(read_only=False) as repository:
            configuration = add_store(repository, url, {})
    if copies > 1:
        with open_repository(read_only=False) as repository:
            configuration = change_copies(repository, copies, {})
    if json:
        terminal.print_json({"stores": [one.url for one in configuration.store], "copies": configuration.copies})
        return
    where = ", ".join(f"{one.name} ({one.url})" for one in configuration.store)
    each = f", each frame on {configuration.copies} of them" if len(configuration.store) > 1 else ""
    terminal.line(f"a repository is there, on {where}{each}")
