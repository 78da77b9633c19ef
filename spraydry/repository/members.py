"""The stores of a repository that lies on several, opened by its list of them; those that fail are left out."""

from __future__ import annotations

import os
from collections.abc import Mapping

from spraydry.errors import CorruptData, SprayDryError, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format.chunker import parse_bytes
from spraydry.repository.configuration import Configuration, StoreEntry, decode, encode
from spraydry.repository.opening import STORES, Config, Opened, read_config
from spraydry.segments.queue import Queue
from spraydry.stores.base import Store, open_store
from spraydry.stores.over.cache import Cache
from spraydry.stores.over.member import Member
from spraydry.stores.over.placement import Copies
from spraydry.stores.over.retry import Retry
from spraydry.stores.over.spread import Spread
from spraydry.stores.over.throttle import Throttle
from spraydry.stores.remote.tokens import withheld

_EVERYWHERE = 255  # copies of what each store needs to be read alone


@withheld()
def open_members(bare: Store, config: Config, text: bytes, read_only: bool) -> Opened:
    """All stores that `text`, the list which `bare` has, names. Raises CorruptData, UsageError, StoreError."""
    known = {config.store.hex(): bare}
    try:
        errors: dict[str, str] = {}
        configuration = _newest(decode(text), config, known, errors, read_only)
        if not read_only:
            _spread_the_news(configuration, known)
        members = []
        cache_troubles: dict[str, str] = {}
        for entry in configuration.store:
            store = known.get(entry.id)
            ready = None if store is None else _over(store, entry, cache_troubles)
            members.append(Member(entry.name, bytes.fromhex(entry.id), ready, entry.weight, errors.get(entry.id)))
        copies = Copies(configuration.copies, {"dictionary": _EVERYWHERE} | configuration.copies_of)
        spread = Spread(members, configuration.owner, copies, _queues(members, config, read_only))
    except BaseException:
        for store in known.values():
            store.close()
        raise
    owner = known.get(configuration.entry(configuration.owner).id)
    return Opened(spread, config, owner, spread, configuration, cache_troubles=cache_troubles)


def reopen(opened: Opened, read_only: bool) -> list[str]:
    """Open the stores that could not be opened before and can be now; their names. One whose list of stores is another
    than ours stays out until the repository is opened anew: what it missed is more than values."""
    assert opened.spread is not None and opened.configuration is not None
    back = []
    for member in opened.spread.members:
        if member.store is not None:
            continue
        entry = opened.configuration.entry(member.name)
        try:
            store = _open_member(entry, opened.config, read_only)
        except SprayDryError as error:
            member.error = str(error)
            continue
        try:
            theirs = read_configuration(store)
            if theirs is None or theirs.number != opened.configuration.number:
                raise StoreUnavailable("the list of stores was changed while it was away: open the repository anew")
            member.store = _over(store, entry, {})
        except SprayDryError as error:
            member.error = str(error)
            store.close()
            continue
        back.append(member.name)
    return back


def _newest(
    configuration: Configuration, config: Config, known: dict[str, Store], errors: dict[str, str], read_only: bool
) -> Configuration:
    """The newest list that any of the stores has, all of which are opened on the way: into `known`, or `errors`."""
    while True:
        newest = configuration
        for entry in configuration.store:
            if entry.id in known or entry.id in errors:
                continue
            try:
                store = known[entry.id] = _open_member(entry, config, read_only)
                theirs = read_configuration(store)
            except SprayDryError as error:
                errors[entry.id] = str(error)
                continue
            if theirs is not None and theirs.number > newest.number:
                newest = theirs
        if newest is configuration:
            return configuration
        configuration = newest


def _spread_the_news(configuration: Configuration, known: Mapping[str, Store]) -> None:
    """Give the list to those stores that did not answer when it was changed; and the log as it is, where another one
    was let own it in the meantime because this was thought to be lost."""
    owner = known.get(configuration.entry(configuration.owner).id)
    for store in known.values():
        try:
            theirs = read_configuration(store)
            if not store.read_only and (theirs is None or theirs.number < configuration.number):
                if theirs is not None and theirs.number < configuration.lost and store is not owner:
                    if owner is None:
                        continue
                    replace_log(owner, store)
                store.put("config", STORES, encode(configuration))
        except (StoreError, CorruptData):
            continue  # the next time; a list that cannot be read may be a newer program's


def replace_log(owner: Store, store: Store) -> None:
    """Let a store's log be that of the owner: one that was away may have records that were never copied, and others
    have taken their places. Raises StoreError."""
    ours = {stored.name for stored in owner.list("log")}
    store.delete("log", [stored.name for stored in store.list("log") if stored.name not in ours])
    store.put_many("log", ((name, owner.get("log", name)) for name in sorted(ours)))


def _open_member(entry: StoreEntry, config: Config, read_only: bool) -> Store:
    store = open_store(entry.url, read_only=read_only)
    try:
        theirs = read_config(store, False)
        if (theirs.repository, theirs.store.hex()) != (config.repository, entry.id):
            raise StoreUnavailable(f"{entry.url} belongs to another repository, or is another store of this one")
    except BaseException:
        store.close()
        raise
    return store


def _over(store: Store, entry: StoreEntry, cache_troubles: dict[str, str]) -> Store:
    """A store with what belongs over it: trying again where it is far away, and what its entry asks for."""
    far = store.lasting and store.location() is None
    if entry.up or entry.down or entry.latency_ms:
        up, down = (parse_bytes(limit) if limit else None for limit in (entry.up, entry.down))
        store = Throttle(store, entry.latency_ms / 1000, up, down)
    if far:
        store = Retry(store)
    if entry.cache:
        try:
            store = Cache(store, open_store(entry.cache, create=True), parse_bytes(entry.cache_size))
        except SprayDryError as error:  # nothing depends on it
            cache_troubles[entry.name] = str(error)
    return store


def read_configuration(store: Store) -> Configuration | None:
    """The list of stores that a store has; None where it has none. Raises CorruptData."""
    try:
        return decode(store.get("config", STORES))
    except ValueNotFound:
        return None


def _queues(members: list[Member], config: Config, read_only: bool) -> dict[bytes, Queue]:
    """What each store missed, as this machine keeps it: not in a cache, for it is needed."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    missed = os.path.join(state, "spraydry", config.repository.hex(), "missed")
    folders = {member.id: os.path.join(missed, member.id.hex()) for member in members}
    return {
        id: Queue(path, read_only=read_only) for id, path in folders.items() if not read_only or os.path.isdir(path)
    }
