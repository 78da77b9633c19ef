"""`spraydry store`: the stores of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from spraydry.commands.moving import drain, rebalance

if TYPE_CHECKING:
    from collections.abc import Callable

    from spraydry.repository.configuration import Configuration
    from spraydry.repository.repository import Repository

store = App(
    name="store",
    help="""Look at, add, change and remove the stores a repository lies on.

New frames go to the stores by weight; what is there stays where it is, until
`rebalance` moves it. One of the stores owns the log.

For example:
    spraydry store list
    spraydry store add s3://bucket/photos --weight 2
    spraydry store set photos --up 2M --down none
    spraydry store drain old && spraydry store remove old""",
    help_format="plaintext",
)


@store.command(name="list")
def show(*, json: bool = False) -> None:
    """Show the stores: what each holds, how full it is, whether it answers.

    For example:
        spraydry store list

    Parameters
    ----------
    json
        Print a JSON array, an element for each store.
    """
    from spraydry.actions.stores import configuration_of, state_of
    from spraydry.commands import terminal
    from spraydry.commands.listing import tell_stores
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        states, configuration = state_of(repository), configuration_of(repository)
    if json:
        terminal.print_json_list(states)
    else:
        tell_stores(states, configuration)


@store.command
def add(
    url: str,
    /,
    *,
    name: str = "",
    weight: float = 1.0,
    cache: str = "",
    cache_size: str = "10G",
    up: str = "",
    down: str = "",
    latency_ms: float = 0.0,
    json: bool = False,
) -> None:
    """Let new frames go to one more store.

    For example:
        spraydry store add dir:/mnt/disk2/photos
        spraydry store add sftp://me@host/photos --cache dir:/var/cache/p --up 2M

    Parameters
    ----------
    url
        Where it lies; it is made if it is absent.
    name
        What to call it; by default after the end of the URL.
    weight
        Its share of new frames, beside the weights of the others.
    cache
        A store on this machine that keeps what is read from this one.
    cache_size
        How much the cache may hold, such as 10G.
    up
        The most bytes a second to send to it, such as 2M.
    down
        The most bytes a second to read from it.
    latency_ms
        Let every call take so much longer, to try how that is.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.joining import add_store
    from spraydry.actions.stores import configuration_of

    options: dict[str, object] = {"weight": weight, "up": up, "down": down, "latency_ms": latency_ms}
    if cache:
        options |= {"cache": cache, "cache_size": cache_size}
    _change(lambda repository: add_store(repository, configuration_of(repository), url, options, name), False, json)


@store.command(name="set")
def change(
    store: str,
    /,
    *,
    name: str | None = None,
    url: str | None = None,
    weight: float | None = None,
    cache: str | None = None,
    cache_size: str | None = None,
    up: str | None = None,
    down: str | None = None,
    latency_ms: float | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Change what a store is called, where it lies, its share, cache or limits.

    What is not named stays as it is.

    For example:
        spraydry store set disk2 --weight 3
        spraydry store set photos --cache dir:/var/cache/p --cache-size 20G
        spraydry store set photos --up 2M --down none
        spraydry store set disk2 --url dir:/mnt/new/photos    # after it was moved

    Parameters
    ----------
    store
        The store, by its name.
    name
        What to call it from now on.
    url
        Where it lies now; it is looked whether it does.
    weight
        Its share of new frames; 0: it gets nothing new, and is still read.
    cache
        A store on this machine that keeps what is read from this one; none: no cache.
    cache_size
        How much the cache may hold, such as 10G.
    up
        The most bytes a second to send to it, such as 2M; none: no limit.
    down
        The most bytes a second to read from it; none: no limit.
    latency_ms
        Let every call take so much longer, to try how that is; 0: no longer.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.stores import make_cache, with_options
    from spraydry.errors import UsageError

    given = {
        "name": name,
        "url": url,
        "weight": weight,
        "cache": cache,
        "cache_size": cache_size,
        "up": up,
        "down": down,
        "latency_ms": latency_ms,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if not options:
        raise UsageError(f"say what to change: `spraydry store set {store} --weight 2`, or --help")

    def made(repository: Repository) -> Configuration:
        changed = with_options(repository, store, options)
        if cache is not None and not dry_run:
            make_cache(changed, name or store)
        return changed

    _change(made, dry_run, json)


@store.command
def weight(store: str, weight: float, /, *, dry_run: bool = False, json: bool = False) -> None:
    """Set a store's share of new frames, as `set --weight` does.

    For example:
        spraydry store weight disk2 3

    Parameters
    ----------
    store
        The store, by its name.
    weight
        Its share, beside the weights of the others; 0: it gets nothing new, and is still read.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.stores import with_options

    _change(lambda repository: with_options(repository, store, {"weight": weight}), dry_run, json)


@store.command
def copies(
    number: int | None = None,
    /,
    *,
    of: Annotated[list[str] | None, Parameter(name="--of", negative=())] = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Set on how many stores each frame is to lie; `spraydry heal` makes it so.

    What is put into a hoard has a class of its own, hoard-NAME, if that has a
    number here. What was put before is brought to as many copies by `spraydry
    heal`, with whatever else lies in the same frames.

    For example:
        spraydry store copies 2
        spraydry store copies --of tree=3 --of dictionary=3
        spraydry store copies --of hoard-avatars=3

    Parameters
    ----------
    number
        Of frames of all classes.
    of
        CLASS=NUMBER, of frames of one class; 0: as of the others.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.stores import with_copies
    from spraydry.errors import UsageError

    by_class = {}
    for one in of or ():
        key, equals, count = one.partition("=")
        if not equals or not count.isdecimal():
            raise UsageError(f"--of {one}: write CLASS=NUMBER, such as tree=2")
        by_class[key] = int(count)
    _change(lambda repository: with_copies(repository, number, by_class), dry_run, json)


store.command(drain)
store.command(rebalance)


@store.command
def remove(name: str, /, *, lost: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Take a store off the list, after it was drained.

    For example:
        spraydry store remove old
        spraydry store remove broken --lost

    Parameters
    ----------
    name
        The store.
    lost
        It is gone for good: what only it had is lost.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.stores import without_store

    _change(lambda repository: without_store(repository, name, lost), dry_run, json, lost)


@store.command
def promote(name: str, /, *, lost: bool = False, dry_run: bool = False, json: bool = False) -> None:
    """Let another store own the log.

    The repository's URL is then that of this store; the others find it too. It gets
    all of the log that any store has. When the store that owned it is lost, name
    another one with --repo.

    For example:
        spraydry store promote disk2
        spraydry store promote disk2 --lost --repo dir:/mnt/disk2/photos

    Parameters
    ----------
    name
        The store.
    lost
        The one that owns it now is gone for good.
    dry_run
        Only tell what would be changed.
    json
        Print one JSON document: the list of stores as it is then.
    """
    from spraydry.actions.stores import with_owner

    _change(lambda repository: with_owner(repository, name, lost), dry_run, json, lost)


def _change(make: Callable[[Repository], Configuration], dry_run: bool, json: bool, lost: bool = False) -> None:
    """Make the next list of stores, save it unless that is only tried, and tell what it changes."""
    import msgspec

    from spraydry.actions.stores import configuration_of, save
    from spraydry.commands.listing import tell_change
    from spraydry.commands.session import open_repository

    with open_repository(read_only=dry_run) as repository:
        before, after = configuration_of(repository), make(repository)
        if not dry_run and after != msgspec.structs.replace(before, number=after.number):
            save(repository, after, lost)
    tell_change(before, after, dry_run, json)
