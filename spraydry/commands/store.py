"""`spraydry store`: the stores of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from spraydry.actions.stores import StoreState
    from spraydry.repository.configuration import Configuration

_BAR = 12

store = App(
    name="store",
    help="""Look at, add, weigh and remove the stores a repository lies on.

New frames go to the stores by weight; what is there stays where it is, until
`rebalance` moves it. One of the stores owns the log.

For example:
    spraydry store list
    spraydry store add s3://bucket/photos --weight 2
    spraydry store drain old && spraydry store remove old""",
    help_format="plaintext",
)


@store.command(name="list")
def show(*, json: bool = False) -> None:
    """Show the stores: what each holds, how full it is, whether it answers.

    Parameters
    ----------
    json
        Print a JSON array, an element for each store.
    """
    from spraydry.actions.stores import configuration_of, state_of
    from spraydry.commands import terminal
    from spraydry.commands.session import open_repository

    with open_repository() as repository:
        states, configuration = state_of(repository), configuration_of(repository)
    if json:
        terminal.print_json_list(states)
        return
    terminal.table(("store", "weight", "values", "holds", "free", "full", "url"), map(_row, states), right=(1, 2, 3, 4))
    for one in states:
        if one.trouble is not None:
            terminal.warn(f"{one.name} does not answer: {one.trouble}")
        if one.waiting:
            terminal.line(f"{one.name} missed {terminal.plural(one.waiting, 'value')}, which it gets when it is back")
    classes = "".join(f", {number} of {key}" for key, number in sorted(configuration.copies_of.items()))
    terminal.line(f"copies of each frame: {configuration.copies}{classes}; * owns the log")


def _row(state: StoreState) -> tuple[str, ...]:
    from spraydry.commands import terminal

    full = ""
    if state.bytes is not None and state.free_bytes is not None:
        share = state.bytes / max(state.bytes + state.free_bytes, 1)
        full = f"{'#' * round(share * _BAR):-<{_BAR}} {share:.0%}"
    return (
        state.name + "*" * state.owner,
        f"{state.weight:g}",
        "-" if state.values is None else f"{state.values:,}",
        "-" if state.bytes is None else terminal.size(state.bytes),
        "-" if state.free_bytes is None else terminal.size(state.free_bytes),
        full,
        terminal.printable(state.url),
    )


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
) -> None:
    """Let new frames go to one more store.

    For example:
        spraydry store add dir:/mnt/disk2/photos
        spraydry store add sftp://me@host/srv/photos --cache dir:/var/cache/photos --up 2M

    Parameters
    ----------
    url
        Where it lies; it is made if it is absent.
    name
        What to call it; by default after the end of the URL.
    weight
        Its share of new frames, beside the weights of the others.
    cache
        A local store that keeps what is read from this one.
    cache_size
        How much the cache may hold.
    up
        The most bytes a second to send to it.
    down
        The most bytes a second to read from it.
    latency_ms
        Let every call take so much longer, to try how that is.
    """
    from spraydry.actions.stores import add_store
    from spraydry.commands.session import open_repository

    options: dict[str, object] = {"weight": weight, "up": up, "down": down, "latency_ms": latency_ms}
    if cache:
        options |= {"cache": cache, "cache_size": cache_size}
    with open_repository(read_only=False) as repository:
        _changed(add_store(repository, url, options, name))


@store.command
def weight(name: str, weight: float, /) -> None:
    """Give a store another share of new frames.

    For example:
        spraydry store weight disk2 3

    Parameters
    ----------
    name
        The store.
    weight
        A number from 0 up; 0: it gets nothing new, and is still read.
    """
    from spraydry.actions.stores import change_store
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository:
        _changed(change_store(repository, name, {"weight": weight}))


@store.command
def url(name: str, url: str, /) -> None:
    """Tell where a store lies now, that was moved.

    Parameters
    ----------
    name
        The store.
    url
        Its new URL.
    """
    from spraydry.actions.stores import absolute, change_store
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository:
        _changed(change_store(repository, name, {"url": absolute(url)}))


@store.command
def copies(
    number: int | None = None, /, *, of: Annotated[list[str] | None, Parameter(name="--of", negative=())] = None
) -> None:
    """Set on how many stores each frame is to lie; `spraydry heal` makes it so.

    For example:
        spraydry store copies 2
        spraydry store copies --of tree=3 --of dictionary=3

    Parameters
    ----------
    number
        Of frames of all classes.
    of
        CLASS=NUMBER, of frames of one class; 0: as of the others.
    """
    from spraydry.actions.stores import change_copies
    from spraydry.commands.session import open_repository
    from spraydry.errors import UsageError

    by_class = {}
    for one in of or ():
        key, equals, count = one.partition("=")
        if not equals or not count.isdecimal():
            raise UsageError(f"--of {one}: write CLASS=NUMBER, such as tree=2")
        by_class[key] = int(count)
    with open_repository(read_only=False) as repository:
        _changed(change_copies(repository, number, by_class))


@store.command
def drain(name: str, /, *, json: bool = False) -> int:
    """Bring all that lies on a store to the others, and give it nothing new.

    Parameters
    ----------
    name
        The store.
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import heal
    from spraydry.actions.stores import change_store
    from spraydry.commands.heal import tell
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository:
        change_store(repository, name, {"weight": 0.0})
    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        return tell(heal(repository, progress), json)


@store.command
def rebalance(*, json: bool = False) -> int:
    """Move frames until each store has its share by weight.

    Parameters
    ----------
    json
        Print one JSON document.
    """
    from spraydry.actions.heal import rebalance as action
    from spraydry.commands.heal import tell
    from spraydry.commands.progress import Progress
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository, Progress(quiet=json) as progress:
        return tell(action(repository, progress), json)


@store.command
def remove(name: str, /, *, lost: bool = False) -> None:
    """Take a store off the list, after it was drained.

    Parameters
    ----------
    name
        The store.
    lost
        It is gone for good: what only it had is lost.
    """
    from spraydry.actions.stores import remove_store
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository:
        _changed(remove_store(repository, name, lost))


@store.command
def promote(name: str, /, *, lost: bool = False) -> None:
    """Let another store own the log.

    The repository's URL is then that of this store; the others find it too.

    Parameters
    ----------
    name
        The store.
    lost
        The one that owns it now is gone for good.
    """
    from spraydry.actions.stores import promote_store
    from spraydry.commands.session import open_repository

    with open_repository(read_only=False) as repository:
        _changed(promote_store(repository, name, lost))


def _changed(configuration: Configuration) -> None:
    from spraydry.commands import terminal

    weights = ", ".join(
        f"{one.name}{'*' * (one.name == configuration.owner)} {one.weight:g}" for one in configuration.store
    )
    terminal.line(f"stores and their weights: {weights}; copies: {configuration.copies}")
