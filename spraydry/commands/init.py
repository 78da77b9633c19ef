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
    from spraydry.actions.joining import absolute, add_store
    from spraydry.actions.stores import configuration_of, save, with_copies
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository, repository_url
    from spraydry.errors import NotARepository, SprayDryError, StoreNotFound, UsageError
    from spraydry.repository.places import forget

    number, main = 1 + len(stores), repository_url()
    if copies < 1:
        raise UsageError(f"--copies {copies}: each frame needs at least one")
    if copies > number:
        named = "is only one store" if number == 1 else f"are only {number} stores"
        raise UsageError(
            f"--copies {copies}: there {named}; name more of them: spraydry init URL ... --copies {copies}"
        )
    if len({absolute(url) for url in (main, *stores)}) < number:
        raise UsageError("two of the stores are the same: each copy is to lie on another one")
    try:
        open_repository().close()
    except (StoreNotFound, NotARepository):
        pass  # perhaps it was begun and not ended; another's folder is refused below
    else:
        raise UsageError(f"there is a repository at {main} already: `spraydry store add URL` adds a store")
    forget(main)
    with open_repository(create=True, read_only=False) as repository:
        configuration = configuration_of(repository)
    for url in stores:
        with open_repository(read_only=False) as repository:
            try:
                configuration = add_store(repository, configuration_of(repository), url, {})
                save(repository, configuration)
            except SprayDryError as error:
                there = ", ".join(one.name for one in configuration.store)
                error.args = (f"{error}; the repository is there without it ({there}): `spraydry store add` adds it",)
                raise
    if copies > 1:
        with open_repository(read_only=False) as repository:
            configuration = with_copies(repository, copies, {})
            save(repository, configuration)
    if json:
        terminal.print_json({"stores": [one.url for one in configuration.store], "copies": configuration.copies})
        return
    where = ", ".join(f"{one.name} ({one.url})" for one in configuration.store)
    each = f", each frame on {configuration.copies} of them" if len(configuration.store) > 1 else ""
    terminal.line(f"a repository is there, on {where}{each}")
