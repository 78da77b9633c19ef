"""Checking what a store holds: frames against their names and the catalog, dictionaries, index runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, islice
from operator import itemgetter
from random import Random

from spraydry.errors import CorruptData, NotListed, SprayDryError, StoreError, StoreUnavailable, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import threads_of
from spraydry.repository.repository import Repository
from spraydry.stores.over.member import Member


@dataclass(frozen=True)
class DamagedFrame:
    """A frame that cannot be read, or is not indexed as it should be: its name in hex, and why."""

    frame: str
    reason: str


@dataclass(frozen=True)
class CheckedFrame:
    """One frame that was looked at; `reason` is None where it is as it should be. `bad_copies` names the stores whose
    copy is damaged, where another one's is sound. `indexed`: the catalog knows it (a
    killed writer leaves frames that no index names); `unindexed` counts its chunks that the catalog does not know to be
    in it (a rebuilt catalog does)."""

    name: bytes
    stored_bytes: int
    plain_bytes: int
    chunks: int
    unindexed: int
    indexed: bool
    reason: str | None
    bad_copies: tuple[str, ...] = ()


def listed_frames(repository: Repository) -> Iterator[tuple[str, list[Member]]] | None:
    """The names of the frames that the store holds, and of several stores those that have each (not those that do not
    answer); None where it cannot list them."""
    held = _held(repository)
    try:
        return chain(list(islice(held, 1)), held)
    except NotListed:
        return None


def known_frames(repository: Repository) -> Iterator[tuple[str, list[Member]]]:
    """The names of the frames that the catalog knows."""
    return ((info.name.hex(), []) for _, info in repository.catalog.frames())


def check_frames(
    repository: Repository, held: Iterable[tuple[str, list[Member]]], fraction: float, seed: int
) -> Iterator[CheckedFrame]:
    """Read, decode and compare frames, or a random `fraction` of them; in threads, in any number. Of several stores
    every copy is read."""
    random = Random(seed)
    chosen = (one for one in held if fraction >= 1 or random.random() < fraction)
    return ordered_map(lambda one: _check(repository, *one), chosen, threads_of(repository))


def _held(repository: Repository) -> Iterator[tuple[str, list[Member]]]:
    spread = repository.opened.spread
    if spread is None:
        yield from ((stored.name, []) for stored in repository.store.list("frames"))
        return

    def listing(member: Member) -> Iterator[tuple[str, Member]]:
        try:
            yield from ((stored.name, member) for stored in member.list("frames"))
        except StoreError:
            return

    merged = heapq.merge(*map(listing, spread.members), key=itemgetter(0))
    for name, held in groupby(merged, key=itemgetter(0)):
        yield name, [member for _, member in held]


def _check(repository: Repository, text: str, members: Sequence[Member]) -> CheckedFrame:
    try:
        name = bytes.fromhex(text)
    except ValueError:
        return CheckedFrame(text.encode(), 0, 0, 0, 0, True, "that is no frame's name")
    stored, bad = _copies(text, members) if len(members) > 1 else (None, ())
    try:
        stored = stored or repository.store.get("frames", text)
    except StoreUnavailable:
        raise
    except ValueNotFound:
        return CheckedFrame(name, 0, 0, 0, 0, True, "it is gone")
    except SprayDryError as error:
        return CheckedFrame(name, 0, 0, 0, 0, True, str(error))
    checked = _check_frame(repository, name, stored)
    return replace(checked, bad_copies=bad) if checked.reason is None else checked


def _copies(text: str, members: Sequence[Member]) -> tuple[bytes | None, tuple[str, ...]]:
    """A frame's bytes from the first of several stores whose copy is sound (None: from none), and the names of those
    whose copy is damaged."""
    sound, bad = None, []
    for member in members:
        try:
            stored = member.read(lambda store: store.get("frames", text))
            if digest(stored).hex() == text:
                sound = sound or stored
            else:
                bad.append(member.name)
        except CorruptData:
            bad.append(member.name)
        except StoreError:
            continue  # gone, or it does not answer any more
    return sound, tuple(bad)


def _check_frame(repository: Repository, name: bytes, stored: bytes) -> CheckedFrame:
    if digest(stored) != name:
        return CheckedFrame(name, len(stored), 0, 0, 0, True, "its bytes are not those its name was made from")
    try:
        head, plain = frames.decode(stored, repository.dictionary)
    except SprayDryError as error:
        return CheckedFrame(name, len(stored), 0, 0, 0, True, str(error))
    view = memoryview(plain)
    unindexed, indexed = 0, repository.catalog.has_frame(name)
    for at, length in zip(accumulate(head.lengths, initial=0), head.lengths, strict=False):
        places = repository.catalog.locate(digest(view[at : at + length]))
        unindexed += indexed and not any(place.frame == name and place.length == length for place in places)
    return CheckedFrame(name, len(stored), len(plain), len(head.lengths), unindexed, indexed, None)


def missing_frames(repository: Repository) -> Iterator[bytes]:
    """The frames the catalog knows which the store does not hold."""

    def missing(name: str) -> bytes | None:
        return bytes.fromhex(name) if repository.store.info("frames", name) is None else None

    names = (name for name, _ in known_frames(repository))
    for name in ordered_map(missing, names, threads_of(repository)):
        if name is not None:
            yield name


def check_rest(repository: Repository) -> Iterator[str]:
    """What is wrong with dictionaries and index runs, a line each."""
    for stored in repository.store.list("dictionaries"):
        try:
            frames.load_dictionary(bytes.fromhex(stored.name), repository.store.get("dictionaries", stored.name))
        except (SprayDryError, ValueError) as error:
            yield str(error)
    for stored in repository.store.list("index"):
        try:
            value = repository.store.get("index", stored.name)
            if digest(value).hex() != stored.name:
                yield f"index run {stored.name} is damaged"
                continue
            for _ in decode_run(value)[1]:
                pass
        except ValueNotFound:
            continue  # merged into another meanwhile
        except SprayDryError as error:
            yield f"index run {stored.name}: {error}"
