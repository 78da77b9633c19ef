"""What the options before every verb said, and the repository they mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import spraydry
from spraydry.errors import UsageError

if TYPE_CHECKING:
    from spraydry.actions.hoard import Hoard
    from spraydry.repository.repository import Repository
    from spraydry.stores.base import Store
    from spraydry.stores.over.meter import Meter


_OTHER_CACHE_BYTES = 64 << 20


@dataclass
class Options:
    """The options every verb takes; set by the launcher before the verb runs."""

    repo: str | None = None
    debug: bool = False
    stats: bool = False
    meters: list[Meter] = field(default_factory=list)  # of the repositories opened since


options = Options()


def repository_url() -> str:
    """The path or URL of the repository: --repo, else $SPRAYDRY_REPO, else the one in the XDG data directory."""
    if options.repo == "":  # such as of a variable that is not set: not what lies at the default place
        raise UsageError("--repo names nothing: write a path or URL, or leave it away")
    return options.repo or spraydry.default_url()


def is_default_place() -> bool:
    """Whether neither --repo nor $SPRAYDRY_REPO names the repository."""
    return not (options.repo or os.environ.get("SPRAYDRY_REPO"))


def open_repository(*, create: bool = False, read_only: bool = True) -> Repository:
    """The repository of this run. Verbs that only look leave `read_only` as it is: that works on any medium."""
    from spraydry.repository.repository import Repository

    _tell_of_waiting(repository_url())
    repository = Repository.open(repository_url(), create=create, read_only=read_only, metered=options.stats)
    if repository.behind is not None:
        from spraydry.commands import terminal

        terminal.warn(f"{repository.behind}; if it is gone for good: `spraydry store promote NAME --lost`")
    bundle = repository.opened.bundle
    if bundle is not None and bundle.prerequisites:
        from spraydry.commands import terminal

        terminal.warn(
            f"this bundle builds on {bundle.prerequisites[-1].name}: what is in there, too, can only be read where"
            " that is, after `spraydry pull`"
        )
    if repository.opened.meter is not None:
        options.meters.append(repository.opened.meter)
    return repository


@contextmanager
def open_hoard(name: str, *, create: bool = False, read_only: bool = True) -> Iterator[Hoard]:
    """A hoard of this run's repository. Where servers serve that, they are asked for single files, and nothing else of
    it is opened."""
    from spraydry.actions.hoard import Hoard
    from spraydry.actions.hoard.remote import hoard_at

    _tell_of_waiting(repository_url())
    served = hoard_at(name, repository_url())
    if served is not None:
        with served:
            yield served
    else:
        with (
            open_repository(create=create, read_only=read_only) as repository,
            Hoard(name, repository=repository) as hoard,
        ):
            yield hoard


def open_other(url: str, *, create: bool = False, read_only: bool = False, limit: str | None = None) -> Repository:
    """Another repository than that of this run; `limit` is how many bytes a second go there, or come (`10M`)."""
    from spraydry.format.chunker import parse_bytes
    from spraydry.repository.repository import Repository
    from spraydry.stores.memory import MemoryStore
    from spraydry.stores.over.cache import Cache
    from spraydry.stores.over.throttle import Throttle

    limit_bytes_s = None if limit is None else parse_bytes(limit)
    if limit_bytes_s == 0:
        raise UsageError("--limit 0 would let nothing through: leave it away, or write a number such as 2M")

    def over(store: Store) -> Store:
        if limit_bytes_s is not None:
            store = Throttle(store, 0.0, limit_bytes_s, limit_bytes_s)
        if store.location() is None:
            # Frames of trees are read twice: to know what is missing, and to be copied.
            store = Cache(store, MemoryStore(), _OTHER_CACHE_BYTES, write_through=False)
        return store

    _tell_of_waiting(url)
    other = Repository.open(url, create=create, read_only=read_only, metered=options.stats, over=over)
    if other.opened.meter is not None:
        options.meters.append(other.opened.meter)
    return other


def _tell_of_waiting(url: str) -> None:
    """Where that is of servers, let whoever watches know when one that went away is waited for, and Ctrl-C end that."""
    if not url.lower().startswith(("http:", "https:")):
        return
    import logging
    import signal
    import threading

    from spraydry.commands import terminal
    from spraydry.stores.remote import patience

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            terminal.notice(record.getMessage())

    def interrupt(signal_number: int, frame: object) -> None:
        patience.interrupted.set()  # also in threads, for which the end of this one waits
        raise KeyboardInterrupt

    if not any(handler.name == "terminal" for handler in patience.log.handlers):
        notices = Notices()
        notices.name = "terminal"
        patience.log.addHandler(notices)
        patience.log.setLevel(logging.INFO)
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def tell_stats() -> None:
    """What the stores were asked in this run, on standard error."""
    from spraydry.commands import terminal

    for meter in options.meters:
        for one in meter.report():
            moved = f", {terminal.size(one.up_bytes)} up" if one.up_bytes else ""
            moved += f", {terminal.size(one.down_bytes)} down" if one.down_bytes else ""
            failed = f", {terminal.plural(one.errors, 'error')}" if one.errors else ""
            terminal.warn(
                f"{one.name:<12} {terminal.plural(one.calls, 'call')} in {terminal.duration(one.total_s)},"
                f" the longest {terminal.duration(one.longest_s)}{moved}{failed}"
            )
