"""From a URL to the store a repository lies on, with its config; where that names several stores, to all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from spraydry.errors import CorruptData, FormatTooNew, NotARepository, StoreError, StoreNotFound, ValueNotFound
from spraydry.format.digest import digest
from spraydry.repository import places
from spraydry.stores.base import NAMESPACES, Store, open_store

if TYPE_CHECKING:
    from spraydry.repository.bundles import Bundle
    from spraydry.repository.configuration import Configuration
    from spraydry.repository.origin import Origin
    from spraydry.stores.over.meter import Meter
    from spraydry.stores.over.spread import Spread

# What only several stores, or one far away, need is imported where they are: a mount is to be there in 0.3 s.

CONFIG_FORMAT = 1
CONFIG, STORES = "config", "stores"  # names in the namespace `config`


class Config(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a store says of the repository it belongs to."""

    magic: str
    format: int
    repository: bytes  # 16 random bytes
    store: bytes  # 16 random bytes
    configuration: int  # rises when the set of stores changes


class Opened(NamedTuple):
    """What a repository is made of: `store` with everything over it, `owner` the bare store that owns the log (None
    where it could not be opened), `spread` and `configuration` where there are several, `meter` where one was asked
    for, `origin` where it is a lazy clone, `bundle` where it is one. `cache_troubles` says of stores, by name, why
    their caches could not be opened: they are used without."""

    store: Store
    config: Config
    owner: Store | None
    spread: Spread | None = None
    configuration: Configuration | None = None
    meter: Meter | None = None
    origin: Origin | None = None
    bundle: Bundle | None = None
    cache_troubles: Mapping[str, str] = {}


def open_at(
    url: str,
    *,
    create: bool = False,
    read_only: bool = False,
    metered: bool = False,
    over: Callable[[Store], Store] | None = None,
) -> Opened:
    """Open what is at `url`, a store of its own or one of several. Raises StoreError, CorruptData, UsageError."""
    try:
        bare = open_store(url, read_only=read_only)
    except (StoreNotFound, NotARepository) as error:
        if not create:
            raise
        if isinstance(error, StoreNotFound):
            places.check_new(url)
        bare = open_store(url, create=True, read_only=read_only)
    try:
        config = read_config(bare, create)
        places.remember(url, bare)
        try:
            text = bare.get("config", STORES)
        except ValueNotFound:
            opened = Opened(_over(bare), config, bare)
        else:
            from spraydry.repository.members import open_members

            opened = open_members(bare, config, text, read_only)
        if opened.owner is not None and opened.owner.location() is not None:
            opened = _special(opened, opened.owner, url, read_only)
    except BaseException:
        bare.close()
        raise
    if over is not None:
        opened = opened._replace(store=over(opened.store))
    if metered:
        from spraydry.stores.over.meter import Meter

        meter = Meter(opened.store)
        opened = opened._replace(store=meter, meter=meter)
    return opened


def _special(opened: Opened, owner: Store, url: str, read_only: bool) -> Opened:
    """A lazy clone over its origin, a bundle as what can only be read. They lie on this machine, so looking costs
    others nothing."""
    names = {stored.name for stored in owner.list("config")}
    if "bundle" in names:
        from spraydry.repository.bundles import read_bundle

        owner.read_only = True
        return opened._replace(bundle=read_bundle(owner))
    if "origin" not in names:
        return opened
    from spraydry.repository.origin import over, read_origin

    origin = read_origin(owner)
    assert origin is not None
    if read_only and opened.spread is None:
        # What is fetched is to be kept, also by those that only look.
        try:
            writing = open_store(url)
        except StoreError:
            pass
        else:
            owner.close()
            opened = opened._replace(owner=writing, store=writing)
    return opened._replace(store=over(opened.store, origin, read_only), origin=origin)


def _over(bare: Store) -> Store:
    """The only store there is, tried again when it fails where it is far away."""
    if not bare.lasting or bare.location() is not None:
        return bare
    from spraydry.stores.over.retry import Retry

    bare.wait_for_it()
    return Retry(bare)


def read_config(store: Store, create: bool) -> Config:
    """What a store says of its repository; with `create`, an empty one begins a new repository."""
    try:
        value = store.get("config", CONFIG)
    except ValueNotFound:
        if not create:
            raise NotARepository("there is a store, but no spraydry repository in it") from None
        if not any(True for namespace in NAMESPACES for _ in store.list(namespace)):
            write_config(store, Config("spraydry", CONFIG_FORMAT, os.urandom(16), os.urandom(16), 1))
        return read_config(store, False)  # what was listed may be of a writer that began the repository just then
    if digest(value[:-32]) != value[-32:]:
        raise CorruptData("the repository's config is damaged")
    try:
        config = msgspec.msgpack.decode(value[:-32], type=Config)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise FormatTooNew("the repository was written by a newer spraydry: install a current one") from None
    if config.magic != "spraydry":
        raise NotARepository("there is a store, but no spraydry repository in it")
    if config.format != CONFIG_FORMAT:
        raise FormatTooNew("the repository was written by a newer spraydry: install a current one")
    if (len(config.repository), len(config.store)) != (16, 16) or msgspec.msgpack.encode(config) != value[:-32]:
        raise CorruptData("the repository's config is damaged")
    return config


def write_config(store: Store, config: Config) -> None:
    """Say in a store which repository it belongs to, unless it says so already."""
    plain = msgspec.msgpack.encode(config)
    store.create("config", CONFIG, plain + digest(plain))
