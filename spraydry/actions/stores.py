"""The stores of a repository: adding, weighing and removing them, moving the log, and what each holds.

Each function that changes the list of stores writes it to every store that answers and returns it; a repository that is
open goes on with the one before, and is to be opened again.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import msgspec

from spraydry.errors import NotARepository, StoreError, StoreUnavailable, UsageError
from spraydry.repository.configuration import Configuration, StoreEntry, encode
from spraydry.repository.opening import CONFIG_FORMAT, STORES, Config, read_config, write_config
from spraydry.repository.repository import Repository
from spraydry.stores.base import NAMESPACES, Store, open_store
from spraydry.stores.over.spread import Spread

_LOCAL = {"", "sqlite", "dir", "segment"}


@dataclass(frozen=True)
class StoreState:
    """One store as it is now; counts are None where it does not answer, and `trouble` says why."""

    name: str
    url: str
    id: str
    weight: float
    owner: bool
    trouble: str | None
    values: int | None
    bytes: int | None
    free_bytes: int | None
    waiting: int


def configuration_of(repository: Repository) -> Configuration:
    """The list of stores; of a repository on one store, the list it would have."""
    opened = repository.opened
    if opened.configuration is not None:
        return opened.configuration
    main = StoreEntry("main", repository.config.store.hex(), absolute(repository.url))
    return Configuration(number=1, owner=main.name, store=(main,))


def absolute(url: str) -> str:
    """A URL that means the same from every folder."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+-]+):", url)
    scheme = match[1].lower() if match else ""
    if scheme not in _LOCAL:
        return url
    rest = url[match.end() :].removeprefix("//") if match else url
    path, question, options = rest.partition("?") if scheme == "segment" else (rest, "", "")
    return f"{scheme or 'sqlite'}:{os.path.abspath(path)}{question}{options}"


def state_of(repository: Repository) -> list[StoreState]:
    """All stores, as they are."""
    configuration, spread = configuration_of(repository), repository.opened.spread
    states = []
    for entry in configuration.store:
        member = None if spread is None else spread.member(entry.name)
        trouble, stat = None, None
        try:
            stat = repository.store.stat() if member is None else member.read(lambda store: store.stat(), inline=True)
        except StoreError as error:
            trouble = str(error)
        states.append(
            StoreState(
                entry.name,
                entry.url,
                entry.id,
                entry.weight,
                entry.name == configuration.owner,
                trouble,
                stat and stat.values,
                stat and stat.bytes,
                stat and stat.free_bytes,
                0 if member is None else member.waiting,
            )
        )
    return states


def add_store(repository: Repository, url: str, entry_options: dict[str, object], name: str = "") -> Configuration:
    """Let new frames go to one more store too, which is made where it is absent. Raises UsageError, StoreError."""
    configuration = configuration_of(repository)
    url = absolute(url)
    name = name or _free_name(url, configuration)
    if any(one.name == name for one in configuration.store):
        raise UsageError(f"there is a store {name} already: choose another name with --name")
    store = open_store(url, create=True)
    try:
        config = _join(store, url, repository, configuration)
        entry = msgspec.convert({"name": name, "id": config.store.hex(), "url": url} | entry_options, StoreEntry)
        changed = configuration.with_entry(entry)
        for namespace in ("dictionaries", "log"):  # with these it can be read alone
            for stored in repository.store.list(namespace):
                store.put(namespace, stored.name, repository.store.get(namespace, stored.name))
        store.put("config", STORES, encode(changed))
        store.flush()
        _save(repository, changed)
    finally:
        store.close()
    return changed


def _join(store: Store, url: str, repository: Repository, configuration: Configuration) -> Config:
    """Make a store one of this repository's."""
    ours = repository.config
    try:
        config = read_config(store, False)
    except NotARepository:
        if any(True for namespace in NAMESPACES for _ in store.list(namespace)):
            raise
        write_config(store, Config("spraydry", CONFIG_FORMAT, ours.repository, os.urandom(16), configuration.number))
        return read_config(store, False)
    if config.repository != ours.repository:
        raise UsageError(f"{url} belongs to another repository: name an empty place")
    if any(one.id == config.store.hex() for one in configuration.store):
        raise UsageError(f"{url} is a store of this repository already")
    return config


def _free_name(url: str, configuration: Configuration) -> str:
    """A name after the last part of a URL."""
    last = re.split(r"[/:]", url.partition("?")[0].rstrip("/"))[-1]
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.splitext(last)[0]).strip("-.")[:40] or "store"
    taken, name, number = {one.name for one in configuration.store}, plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def change_store(repository: Repository, name: str, options: dict[str, object]) -> Configuration:
    """Change what an entry says: its weight, its URL, its limits. Raises UsageError."""
    configuration = configuration_of(repository)
    entry = msgspec.convert(msgspec.to_builtins(configuration.entry(name)) | options, StoreEntry)
    return _save(repository, configuration.with_entry(entry))


def change_copies(repository: Repository, copies: int | None, by_class: dict[str, int]) -> Configuration:
    """On how many stores each frame is to lie; 0 for a class: as all others. `heal` makes it so for what is there."""
    configuration = configuration_of(repository)
    of = {key: number for key, number in (configuration.copies_of | by_class).items() if number}
    changed = msgspec.structs.replace(
        configuration,
        number=configuration.number + 1,
        copies=configuration.copies if copies is None else copies,
        copies_of=of,
    )
    return _save(repository, changed)


def remove_store(repository: Repository, name: str, lost: bool = False) -> Configuration:
    """Take a store off the list: one that is empty, or (`lost`) gone for good. Raises UsageError, StoreUnavailable."""
    configuration, spread = configuration_of(repository), _spread(repository)
    entry, member = configuration.entry(name), spread.member(name)
    if name == configuration.owner:
        raise UsageError(f"{name} owns the log: `spraydry store promote` another store first")
    if not lost:
        if not member.up:
            raise StoreUnavailable(f"{name} does not answer ({member.error}); if it is gone for good, say --lost")
        if any(True for _ in member.list("frames")):
            raise UsageError(f"{name} holds frames: `spraydry store drain {name}` first, so that others have them")
    changed = msgspec.structs.replace(
        configuration,
        number=configuration.number + 1,
        store=tuple(one for one in configuration.store if one is not entry),
    )
    return _save(repository, changed, without=name)


def promote_store(repository: Repository, name: str, lost: bool = False) -> Configuration:
    """Let another store own the log from now on; with `lost`, although the one that owns it does not answer. Raises
    UsageError, and StoreUnavailable where versions might be lost."""
    configuration, spread = configuration_of(repository), _spread(repository)
    configuration.entry(name)
    member = spread.member(name)
    if name == configuration.owner:
        raise UsageError(f"{name} owns the log already")
    if not member.up:
        raise StoreUnavailable(f"{name} does not answer: {member.error}")
    if spread.owner.up:
        slots = {stored.name for stored in spread.owner.list("log")}
    elif not lost:
        raise StoreUnavailable(f"{spread.owner.name} does not answer; if it is gone for good, say --lost")
    else:
        slots = {stored.name for one in spread.members if one.up for stored in one.list("log")}
    for slot in sorted(slots - {stored.name for stored in member.list("log")}):
        value = repository.store.get("log", slot)
        member.write(lambda store, slot=slot, value=value: store.put("log", slot, value))  # type: ignore[misc]
    return _save(repository, msgspec.structs.replace(configuration, number=configuration.number + 1, owner=name))


def _spread(repository: Repository) -> Spread:
    if repository.opened.spread is None:
        raise UsageError("the repository lies on one store: `spraydry store add URL` adds one")
    return repository.opened.spread


def _save(repository: Repository, configuration: Configuration, without: str = "") -> Configuration:
    """Write the list to all stores that answer; the others get it when they are next opened with these. The store that
    owns the log (or will) must have it."""
    text, spread = encode(configuration), repository.opened.spread
    if spread is None:
        assert repository.opened.owner is not None
        repository.opened.owner.put("config", STORES, text)
        return configuration
    for member in sorted(spread.members, key=lambda member: member.name != configuration.owner):
        try:
            if member.name != without:
                if not member.up:
                    raise StoreUnavailable(f"{member.name} does not answer: {member.error}")
                member.write(lambda store: store.put("config", STORES, text))
        except StoreError:
            if member.name == configuration.owner:
                raise
    return configuration
