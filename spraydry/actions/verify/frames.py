"""Checking what a store holds: frames against their names and the catalog, dictionaries, index runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from random import Random

from spraydry.errors import NotListed, SprayDryError, StoreUnavailable, ValueNotFound
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.format.run import decode_run
from spraydry.parallel import default_threads, ordered_map
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class DamagedFrame:
    """A frame that cannot be read, or is not indexed as it should be: its name in hex, and why."""

    frame: str
    reason: str


@dataclass(frozen=True)
class CheckedFrame:
    """One frame that was looked at; `reason` is None where it is as it should be. `indexed`: the catalog knows it (a
    killed writer leaves frames that no index names); `unindexed` counts its chunks that the catalog does not know to be
    in it (a rebuilt catalog does)."""

    name: bytes
    stored_bytes: int
    plain_bytes: int
    chunks: int
    unindexed: int
    indexed: bool
    reason: str | None


def listed_frames(repository: Repository) -> Iterator[str] | None:
    """The names of the frames that the store holds; None where it cannot list them."""
    names = (stored.name for stored in repository.store.list("frames"))
    try:
        return chain(list(islice(names, 1)), names)
    except NotListed:
        return None


def known_frames(repository: Repository) -> Iterator[str]:
    """The names of the frames that the catalog knows."""
    return (info.name.hex() for _, info in repository.catalog.frames())


def check_frames(repository: Repository, names: Iterable[str], fraction: float, seed: int) -> Iterator[CheckedFrame]:
    """Read, decode and compare frames, or a random `fraction` of them; in threads, in any number."""
    random = Random(seed)
    chosen = (name for name in names if fraction >= 1 or random.random() < fraction)
    return ordered_map(lambda name: _check(repository, name), chosen, _threads(repository))


def _threads(repository: Repository) -> int:
    return max(default_threads(), repository.store.traits.concurrency)


def _check(repository: Repository, text: str) -> CheckedFrame:
    try:
        name = bytes.fromhex(text)
    except ValueError:
        return CheckedFrame(text.encode(), 0, 0, 0, 0, True, "that is no frame's name")
    try:
        stored = repository.store.get("frames", text)
    except StoreUnavailable:
        raise
    except ValueNotFound:
        return CheckedFrame(name, 0, 0, 0, 0, True, "it is gone")
    except SprayDryError as error:
        return CheckedFrame(name, 0, 0, 0, 0, True, str(error))
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

    for name in ordered_map(missing, known_frames(repository), _threads(repository)):
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
