"""Checking what a store holds: frames against their names and the catalog, dictionaries, index runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, islice
from operator import itemgetter

from spraydry.errors import (
    CorruptData,
    DictionaryMissing,
    NotListed,
    SprayDryError,
    StoreError,
    StoreUnavailable,
    ValueNotFound,
)
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
    """One frame that was looked at; `reason` is None where it is as it should be, and `whole` names the chunks which
    can be had from it all the same. `bad_copies` names the stores whose copy is damaged, where another one's is sound.
    `indexed`: the catalog knows it (a killed writer leaves frames that no index names); `unindexed` counts its chunks
    that the catalog does not know to be in it (a rebuilt catalog does). `foreign`: its bytes are those it was named by,
    but not what this program reads: another one may."""

    name: bytes
    stored_bytes: int
    plain_bytes: int
    chunks: int
    unindexed: int
    indexed: bool
    reason: str | None
    bad_copies: tuple[str, ...] = ()
    whole: frozenset[bytes] = frozenset()
    foreign: bool = False


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
    return ((info.name.hex(), everywhere(repository)) for _, info in repository.catalog.frames())


def everywhere(repository: Repository) -> list[Member]:
    """Of a repository on several stores, all of them: any may have a copy."""
    spread = repository.opened.spread
    return [] if spread is None else list(spread.members)


def check_frames(repository: Repository, held: Iterable[tuple[str, list[Member]]]) -> Iterator[CheckedFrame]:
    """Read, decode and compare frames, in threads, in any number. Of several stores every copy is read."""
    return ordered_map(lambda one: _check(repository, *one), held, threads_of(repository))


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
        whole = frozenset(chunk for chunk, _ in salvaged(repository, text))
        return CheckedFrame(name, 0, 0, 0, 0, True, str(error), whole=whole)
    checked = _check_frame(repository, name, stored)
    if checked.reason is None:
        return replace(checked, bad_copies=bad)
    return replace(checked, whole=frozenset(name for name, _ in salvaged(repository, text)))


def salvaged(repository: Repository, text: str) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (name, plain bytes) that can be had from the copies of a damaged frame: of one that still decodes
    often all but a few are whole."""
    for stored in _raw_copies(repository, text):
        try:
            head, plain = frames.decode(stored, repository.dictionary)
        except SprayDryError:
            continue
        view = memoryview(plain)
        for at, length in zip(accumulate(head.lengths, initial=0), head.lengths, strict=False):
            chunk = bytes(view[at : at + length])
            name = digest(chunk)
            if any(place.frame.hex() == text for place in repository.catalog.chunks.locate(name)):
                yield name, chunk


def _raw_copies(repository: Repository, text: str) -> Iterator[bytes]:
    """What the stores have under a frame's name, sound or not."""
    members: list[Member | None] = [*everywhere(repository)]
    for member in members or [None]:
        try:
            if member is None:
                yield repository.store.get("frames", text)
            else:
                yield member.read(lambda store: store.get("frames", text))
        except SprayDryError:
            continue


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
        if _dictionary_of(stored) in repository.log.dropped and not repository.catalog.has_frame(name):
            return CheckedFrame(name, len(stored), 0, 0, 0, False, None)  # left over, and given up with what it uses
        foreign = not isinstance(error, DictionaryMissing)
        return CheckedFrame(name, len(stored), 0, 0, 0, True, str(error), foreign=foreign)
    view = memoryview(plain)
    unindexed, indexed = 0, repository.catalog.has_frame(name)
    for at, length in zip(accumulate(head.lengths, initial=0), head.lengths, strict=False):
        places = repository.catalog.chunks.locate(digest(view[at : at + length]))
        unindexed += indexed and not any(place.frame == name and place.length == length for place in places)
    return CheckedFrame(name, len(stored), len(plain), len(head.lengths), unindexed, indexed, None)


def _dictionary_of(stored: bytes) -> bytes | None:
    """The dictionary that a frame says it uses."""
    try:
        return frames.header(stored).dictionary
    except SprayDryError:
        return None


class Absence:
    """Frames that the catalog knows and the store does not list, found while its listing goes by. Not thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known = repository.catalog.names()
        self._next = next(self._known, None)
        self._unlisted: list[bytes] = []
        self.missing: list[bytes] = []

    def passing(self, listed: Iterable[tuple[str, list[Member]]]) -> Iterator[tuple[str, list[Member]]]:
        """The listing, as it is, to its end."""
        for one in listed:
            self._until(one[0])
            yield one
        self._until("g")  # behind every name
        # What was listed may have been deleted since, and what was not may have come: a look at it decides.
        info = self._repository.store.info
        seen = ordered_map(lambda name: info("frames", name.hex()), self._unlisted, threads_of(self._repository))
        self.missing += [name for name, found in zip(self._unlisted, seen, strict=True) if found is None]

    def _until(self, listed: str) -> None:
        while self._next is not None and (text := self._next.hex()) <= listed:
            if text != listed:
                self._unlisted.append(self._next)
            self._next = next(self._known, None)


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
