"""The stores of a repository: what each holds, what its entry says, how many copies there are, and which has the log.

What is to be changed is a Configuration that these functions make, looking whether it can be; `save` writes it to every
store that answers. A repository that is open goes on with the one before, and is to be opened again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from spraydry.actions.joining import absolute, check_place, open_cache
from spraydry.errors import CorruptData, SprayDryError, StoreError, StoreUnavailable, UsageError
from spraydry.format.frame import class_sound
from spraydry.repository.configuration import Configuration, StoreEntry, check, encode
from spraydry.repository.opening import STORES, read_config
from spraydry.repository.repository import Repository
from spraydry.stores.base import open_store
from spraydry.stores.over.cache import Cache
from spraydry.stores.over.member import Member
from spraydry.stores.over.spread import Spread
from spraydry.stores.remote.tokens import withheld


@dataclass(frozen=True)
class StoreState:
    """One store as it is now; counts are None where it does not answer, and `trouble` says why. `cache_trouble`: why
    its cache is not used."""

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
    cache: str | None
    cache_trouble: str | None
    up: str | None
    down: str | None
    latency_ms: float


def configuration_of(repository: Repository) -> Configuration:
    """The list of stores; of a repository on one store, the list it would have."""
    opened = repository.opened
    if opened.configuration is not None:
        return opened.configuration
    main = StoreEntry("main", repository.config.store.hex(), absolute(repository.url))
    return Configuration(number=1, owner=main.name, store=(main,))


def state_of(repository: Repository) -> list[StoreState]:
    """All stores, as they are."""
    configuration, spread = configuration_of(repository), repository.opened.spread
    states = []
    for entry in configuration.store:
        member = None if spread is None else spread.member(entry.name)
        trouble, stat = None, None
        try:
            stat = repository.store.stat() if member is None else member.read(lambda store: store.stat(), inline=True)
        except (StoreError, CorruptData) as error:
            trouble = str(error).removeprefix(f"{entry.name}: ")
        cache_trouble = repository.opened.cache_troubles.get(entry.name)
        if member is not None and isinstance(member.store, Cache):
            cache_trouble = member.store.limited.trouble
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
                (entry.cache and f"{entry.cache} ({entry.cache_size})") or None,
                cache_trouble,
                entry.up or None,
                entry.down or None,
                entry.latency_ms,
            )
        )
    return states


# -- what is to be: each returns the next configuration, and writes nothing


def with_options(repository: Repository, name: str, options: Mapping[str, object]) -> Configuration:
    """With another name, URL or weight, another cache or other limits for a store: fields of a StoreEntry, "none" for
    no cache and no limit. A store is to answer at its new URL. Raises UsageError, StoreError."""
    configuration = configuration_of(repository)
    entry = configuration.entry(name)
    found = {key: "" if value == "none" and key in ("cache", "up", "down") else value for key, value in options.items()}
    for key in {"url", "cache"} & found.keys():
        found[key] = absolute(str(found[key])) if found[key] else ""
    if "cache" in found and not found["cache"]:
        found["cache_size"] = StoreEntry("", "", "").cache_size
    changed = msgspec.convert(msgspec.to_builtins(entry) | found, StoreEntry)
    if "cache_size" in options and not changed.cache:
        raise UsageError(f"{name} has no cache: give it one with --cache URL")
    if "name" in found and any(one.name == changed.name for one in configuration.store if one is not entry):
        raise UsageError(f"there is a store {changed.name} already")
    made = configuration.with_stores(
        *(changed if one is entry else one for one in configuration.store),
        owner=changed.name if configuration.owner == name else configuration.owner,
    )
    check(made)
    if not any(one.weight > 0 for one in made.store):
        raise UsageError(f"no other store takes frames: give one a weight first, or add one, then drain {name}")
    others = [one for one in configuration.store if one is not entry]
    if changed.url != entry.url or changed.cache != entry.cache:
        check_place(changed, others)
    if changed.url != entry.url:
        _check_moved(repository, changed)
    return made


def make_cache(configuration: Configuration, name: str) -> None:
    """Make the cache of a store, if it is to have one and it is absent. Raises UsageError, StoreError."""
    if url := configuration.entry(name).cache:
        open_cache(url).close()


def _check_moved(repository: Repository, entry: StoreEntry) -> None:
    """Raises UsageError unless that store lies where its entry says."""
    if entry.id == repository.config.store.hex() and entry.url == absolute(repository.url):
        return
    try:
        with withheld():
            store = open_store(entry.url, read_only=True)
        try:
            config = read_config(store, False)
        finally:
            store.close()
    except SprayDryError as error:
        raise UsageError(f"{entry.name} is not at {entry.url}: {error}") from None
    if (config.repository, config.store.hex()) != (repository.config.repository, entry.id):
        raise UsageError(f"what lies at {entry.url} is another store than {entry.name}")


def with_copies(repository: Repository, copies: int | None, by_class: Mapping[str, int]) -> Configuration:
    """With another number of stores on which each frame is to lie; 0 for a class: as all others. `heal` makes it so for
    what is there. Raises UsageError."""
    configuration = configuration_of(repository)
    if copies is None and not by_class:
        raise UsageError("say how many copies: `spraydry store copies 2`")
    stores = sum(one.weight > 0 for one in configuration.store)
    for kind, number in {"": copies or 1, **by_class}.items():
        if kind and not class_sound(kind):
            raise UsageError(f"not a class of frames: {kind!r} (`spraydry info` shows those there are)")
        if number > stores:
            raise UsageError(
                f"{number} copies{f' of {kind}' if kind else ''} need as many stores that take frames, and there"
                f" {'is one' if stores == 1 else f'are {stores}'}: `spraydry store add URL` adds one"
            )
    of = {key: number for key, number in (configuration.copies_of | dict(by_class)).items() if number}
    made = configuration.with_stores(copies=configuration.copies if copies is None else copies, copies_of=of)
    check(made)
    return made


def without_store(repository: Repository, name: str, lost: bool = False) -> Configuration:
    """Without a store: one that is empty, or (`lost`) gone for good. Raises UsageError, StoreUnavailable."""
    configuration, spread = configuration_of(repository), _spread(repository)
    entry, member = configuration.entry(name), spread.member(name)
    if len(configuration.store) == 1:
        raise UsageError(f"{name} is the only store: a repository needs one")
    if name == configuration.owner:
        raise UsageError(f"{name} owns the log: `spraydry store promote NAME` lets another store own it first")
    if not lost:
        if not member.up:
            raise StoreUnavailable(f"{_silent(member)}; if it is gone for good, say --lost")
        if any(True for _ in member.list("frames")):
            raise UsageError(f"{name} holds frames: `spraydry store drain {name}` first, so that others have them")
    left = [one for one in configuration.store if one is not entry]
    if not any(one.weight > 0 for one in left):
        raise UsageError(f"all other stores have weight 0: `spraydry store set {left[0].name} --weight 1` first")
    return configuration.with_stores(*left, **_lost(configuration, lost))


def with_owner(repository: Repository, name: str, lost: bool = False) -> Configuration:
    """With another store that owns the log; `lost`: although the one that owns it does not answer. Raises UsageError,
    and StoreUnavailable where versions might be lost."""
    configuration, spread = configuration_of(repository), _spread(repository)
    configuration.entry(name)
    if name == configuration.owner:
        raise UsageError(f"{name} owns the log already")
    if not spread.member(name).up:
        raise StoreUnavailable(_silent(spread.member(name)))
    if lost and spread.owner.up:
        raise UsageError(f"{configuration.owner}, which owns the log, answers: leave --lost away")
    if not lost and not spread.owner.up:
        raise StoreUnavailable(f"{_silent(spread.owner)}; if it is gone for good, say --lost")
    for one in spread.members:
        if lost and not one.up and one is not spread.owner:
            raise StoreUnavailable(
                f"{_silent(one)}; it may have versions that {name} lacks: if it is gone for good too, `spraydry store"
                f" remove {one.name} --lost` first"
            )
    return configuration.with_stores(owner=name, **_lost(configuration, lost))


def _lost(configuration: Configuration, lost: bool) -> dict[str, int]:
    """What tells every machine to look at what is left."""
    return {"lost": configuration.number + 1} if lost else {}


# -- making it so


def save(repository: Repository, configuration: Configuration, lost: bool = False) -> None:
    """Write a list to all stores that answer, and the log to the one that is to own it; other stores get the list when
    they are next opened with these. The store that owns the log must have it, unless stores are `lost`: that one may be
    too. Raises StoreError."""
    text, spread = encode(configuration), repository.opened.spread
    if spread is None:
        assert repository.opened.owner is not None
        repository.opened.owner.put("config", STORES, text)
        return
    known = {bytes.fromhex(one.id) for one in configuration.store}
    owner = bytes.fromhex(configuration.entry(configuration.owner).id)
    for member in sorted(spread.members, key=lambda member: member.id != owner):
        try:
            if member.id == owner and member is not spread.owner:
                _complete_log(repository, spread, member)
            if member.id in known:
                if not member.up:
                    raise StoreUnavailable(_silent(member))
                member.write(lambda store: store.put("config", STORES, text))
        except StoreError:
            if member.id == owner and (member is not spread.owner or not lost):
                raise


def _complete_log(repository: Repository, spread: Spread, to: Member) -> None:
    """Give a member all of the log that any store has which answers."""
    slots = {stored.name for one in spread.members if one.up for stored in one.list("log")}
    for slot in sorted(slots - {stored.name for stored in to.list("log")}):
        value = repository.store.get("log", slot)
        to.write(lambda store, slot=slot, value=value: store.put("log", slot, value))  # type: ignore[misc]


def _spread(repository: Repository) -> Spread:
    if repository.opened.spread is None:
        raise UsageError("the repository lies on one store: `spraydry store add URL` adds one")
    return repository.opened.spread


def _silent(member: Member) -> str:
    return f"{member.name} does not answer: {member.error}"
