"""One more store for a repository: where it may lie, its cache, and what it is given so that it can be read alone."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping

import msgspec

from spraydry.errors import NotARepository, StoreNotFound, UsageError
from spraydry.repository.configuration import Configuration, StoreEntry, check, encode
from spraydry.repository.members import replace_log
from spraydry.repository.opening import CONFIG_FORMAT, STORES, Config, read_config, write_config
from spraydry.repository.repository import Repository
from spraydry.stores.base import NAMESPACES, Store, open_store, split_options

_LOCAL = {"", "sqlite", "dir", "segment"}


def absolute(url: str) -> str:
    """A URL that means the same from every folder."""
    scheme, path, options = _parts(url)
    if path is None:
        return url
    path = os.path.abspath(path)
    if scheme == "segment" and split_options(path)[1]:
        path += "/"
    return f"{scheme or 'sqlite'}:{path}{options}"


def _parts(url: str) -> tuple[str, str | None, str]:
    """The scheme of a URL, the local path it names (None: it is elsewhere), and what follows that."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+-]+):", url)
    scheme = match[1].lower() if match else ""
    if scheme not in _LOCAL:
        return scheme, None, ""
    rest = url[match.end() :].removeprefix("//") if match else url
    path, options = split_options(rest) if scheme == "segment" else (rest, "")
    return scheme, path, options


def check_folder(url: str) -> None:
    """Raises UsageError where the folder is not there in which something new on this machine would lie."""
    path = _parts(url)[1]
    folder = os.path.dirname(os.path.abspath(path or ""))
    if path is not None and not os.path.isdir(folder):
        raise UsageError(
            f"there is no folder {folder} for {url}: is it written right, and its disk mounted? else"
            f" `mkdir -p {shlex.quote(folder)}` first"
        )


def check_place(entry: StoreEntry, others: Iterable[StoreEntry]) -> None:
    """Raises UsageError for a store or a cache on this machine that lies where another does, or in it or around it; and
    for a cache that is elsewhere."""
    if entry.cache and _parts(entry.cache)[1] is None:
        raise UsageError(f"a cache is a store on this machine (dir:, segment: or a path), not {entry.cache}")
    taken = [(f"the store {one.name}", one.url) for one in others]
    caches = [(f"the cache of {one.name}", one.cache) for one in others if one.cache]
    for url, known in ((entry.url, taken + caches), (entry.cache, [*taken, ("the store", entry.url)])):
        path = _parts(url)[1] if url else None
        for what, other in known if path is not None else ():
            there = _parts(other)[1]
            if there is not None and (near := _near(path or "", there)):
                raise UsageError(f"{url} {near} {what} ({other}): choose a place beside it")


def _near(path: str, other: str) -> str:
    mine, theirs = os.path.realpath(path), os.path.realpath(other)
    if mine == theirs:
        return "is the place of"
    common = os.path.commonpath([mine, theirs])
    return "lies inside" if common == theirs else "lies around" if common == mine else ""


def open_cache(url: str) -> Store:
    """The store of a cache, made where it is absent. Raises UsageError, StoreError."""
    store = open_store(url, create=True)
    if store.info("config", "config") is not None:
        store.close()
        raise UsageError(f"{url} is a repository's store, and cannot be a cache: give the cache a place of its own")
    return store


def add_store(
    repository: Repository, configuration: Configuration, url: str, options: Mapping[str, object], name: str = ""
) -> Configuration:
    """The next configuration, with one more store, which has got what it needs and is made where it is absent. Raises
    UsageError, StoreError."""
    url = absolute(url)
    name = name or _free_name(url, configuration)
    if any(one.name == name for one in configuration.store):
        raise UsageError(f"there is a store {name} already: choose another name with --name")
    entry = msgspec.convert({"name": name, "id": os.urandom(16).hex(), "url": url, **options}, StoreEntry)
    if entry.cache:
        entry = msgspec.structs.replace(entry, cache=absolute(entry.cache))
    check(configuration.with_stores(*configuration.store, entry))  # before anything is made
    _check_not_there(repository, configuration, url)
    check_place(entry, configuration.store)
    if entry.cache:
        open_cache(entry.cache).close()
    store = open_store(url, create=True)
    try:
        config = _join(store, url, repository, configuration)
        entry = msgspec.structs.replace(entry, id=config.store.hex())
        changed = configuration.with_stores(*configuration.store, entry)
        for stored in repository.store.list("dictionaries"):  # with these, and the log, it can be read alone
            store.put("dictionaries", stored.name, repository.store.get("dictionaries", stored.name))
        replace_log(repository.store, store)
        store.put("config", STORES, encode(changed))
        store.flush()
    finally:
        store.close()
    return changed


def _check_not_there(repository: Repository, configuration: Configuration, url: str) -> None:
    """Raises UsageError for a store of this repository, or of another."""
    try:
        store = open_store(url, read_only=True)
    except StoreNotFound:
        return
    except NotARepository as error:
        raise UsageError(f"{error}: name an empty or absent place") from None
    try:
        config = read_config(store, False)
    except NotARepository:
        return
    finally:
        store.close()
    if config.repository != repository.config.repository:
        raise UsageError(f"{url} belongs to another repository: name an empty or absent place")
    for one in configuration.store:
        if one.id == config.store.hex():
            raise UsageError(f"{url} is a store of this repository already, called {one.name}")


def _join(store: Store, url: str, repository: Repository, configuration: Configuration) -> Config:
    """Make a store one of this repository's; one that was, and holds what it held, is so again."""
    ours = repository.config
    try:
        return read_config(store, False)
    except NotARepository:
        if any(True for namespace in NAMESPACES for _ in store.list(namespace)):
            raise UsageError(f"{url} is not empty: name an empty or absent place") from None
        write_config(store, Config("spraydry", CONFIG_FORMAT, ours.repository, os.urandom(16), configuration.number))
        return read_config(store, False)


def _free_name(url: str, configuration: Configuration) -> str:
    """A name after the last part of a URL."""
    last = re.split(r"[/:]", url.partition("?")[0].rstrip("/"))[-1]
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", os.path.splitext(last)[0]).strip("-.")[:40] or "store"
    taken, name, number = {one.name for one in configuration.store}, plain, 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name
