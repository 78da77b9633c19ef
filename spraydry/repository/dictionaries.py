"""The dictionaries that come with spraydry, and which one new frames of a class use."""

from __future__ import annotations

import functools
import os
import threading
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import msgspec

import spraydry
from spraydry.errors import CollectedMeanwhile, CorruptData, DictionaryMissing, SprayDryError, StoreUnavailable
from spraydry.format import frame as frames
from spraydry.format.dictionary import another
from spraydry.format.digest import DIGEST_BYTES, Buffer
from spraydry.format.version import AnyRecord, DictionariesRecord
from spraydry.repository.log import RECORD_FORMAT
from spraydry.repository.repository import Repository

# Frames of a class that never had a dictionary are tried with the shipped one until the savings add up to what storing
# it costs: then it has paid, and is taken into use. Each try costs encoding a frame twice, so a class in which the
# first _TRIES frames of a run save less than one part in _WORTH together is left alone for that run.
_TRIES = 8
_WORTH = 32
_TRIALS = "dictionary-trials"
_GAINS = "dictionary-gains"

V = TypeVar("V")


@dataclass(frozen=True)
class Shipped:
    """A dictionary that comes with spraydry: made from the named public packages, `gain` as measured on others.

    `gain` maps the plain bytes of a frame to the part that is saved in frames of that size.
    """

    name: str
    frame_class: str
    digest: bytes
    size: int
    corpus: tuple[str, ...]
    gain: tuple[tuple[str, float], ...]
    path: str

    def load(self) -> frames.Dictionary:
        """Read and check it. Raises DictionaryMissing."""
        try:
            with open(self.path, "rb") as file:
                return frames.load_dictionary(self.digest, file.read(frames.MAX_DICTIONARY_BYTES + 1))
        except (OSError, CorruptData) as error:
            raise DictionaryMissing(f"the shipped dictionary {self.name} cannot be used: {error}") from None


@functools.cache
def shipped() -> tuple[Shipped, ...]:
    """The dictionaries that came with this installation, by class; none where the folder is not there."""
    package = os.path.dirname(os.path.abspath(spraydry.__file__))
    for folder in (os.path.join(package, "dictionaries_shipped"), os.path.join(package, "..", "dictionaries")):
        if os.path.isdir(folder):
            return read_shipped(os.path.normpath(folder))
    return ()


def read_shipped(folder: str) -> tuple[Shipped, ...]:
    """The dictionaries a folder describes: `NAME.toml` beside `NAME.dict`. Raises CorruptData where one is damaged."""
    found = []
    for entry in sorted(os.listdir(folder)):
        name, ending = os.path.splitext(entry)
        if ending != ".toml":
            continue
        try:
            with open(os.path.join(folder, entry), "rb") as file:
                told = tomllib.load(file)
            found.append(
                Shipped(
                    name,
                    str(told["class"]),
                    bytes.fromhex(told["digest"]),
                    int(told["size"]),
                    tuple(map(str, told["corpus"])),
                    tuple((str(size), float(gain)) for size, gain in told["gain"].items()),
                    os.path.join(folder, name + ".dict"),
                )
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptData(f"{os.path.join(folder, entry)} does not describe a dictionary: {error!r}") from None
    return tuple(sorted(found, key=lambda one: (one.frame_class, one.name)))


def keep(repository: Repository, dictionary: frames.Dictionary) -> None:
    """Store a dictionary in the repository, before anything names it."""
    name = dictionary.digest.hex()
    try:
        there = repository.store.info("dictionaries", name)
    except StoreUnavailable:
        there = None  # one of several stores does not answer, and may have it: storing it again harms nothing
    if there != (name, len(dictionary.plain), False):
        repository.store.put("dictionaries", name, dictionary.plain)


def gains(repository: Repository) -> dict[bytes, float]:
    """By dictionary, the part it was found to save in this repository when it was adopted, where that is remembered."""
    return _read(repository, _GAINS, dict[bytes, float])


def remember_gains(repository: Repository, found: Mapping[bytes, float]) -> None:
    """Keep what dictionaries were found to save."""
    repository.catalog.remember(_GAINS, msgspec.msgpack.encode({**gains(repository), **found}))


def adopt(repository: Repository, changes: Mapping[str, bytes | None], verb: str) -> int | None:
    """Commit which dictionaries new frames use: those of `changes` by class (None: none), the others as before.

    The slot of the record, or None if that is so already. The dictionaries must be stored by now. Raises
    CollectedMeanwhile where one of them was given up.
    """

    def make(previous: bytes, now_ns: int) -> AnyRecord:
        if not repository.log.dropped.isdisjoint(changes.values()):
            raise CollectedMeanwhile("a dictionary was given up by a collection meanwhile; run it again")
        adopted = {**repository.log.dictionaries, **changes}
        wanted = tuple(sorted((one, name) for one, name in adopted.items() if name is not None))
        if wanted == tuple(sorted(repository.log.dictionaries.items())):
            raise _AsBefore
        made_by = f"spraydry {spraydry.__version__} {verb}"
        return DictionariesRecord(
            format=RECORD_FORMAT, previous=previous, made_ns=now_ns, made_by=made_by, adopted=wanted
        )

    try:
        with repository.committing():
            slot, _ = repository.log.append(make)
            repository.remember_head()
    except _AsBefore:
        return None
    repository.store.flush()
    return slot


class _AsBefore(Exception):
    pass


class Choice:
    """Encodes new frames, each with the dictionary its class has, and finds out which shipped ones would pay.

    A class that never had a dictionary tries the shipped one (see _TRIES); when it has paid it is copied into the
    repository, used, and `finish` commits that. `encode` is for any thread, the rest for the one that stores.
    With `adopted` given, these are used and nothing is tried.
    """

    def __init__(self, repository: Repository, adopted: Mapping[str, bytes] | None = None, trials: bool = True) -> None:
        self._repository = repository
        self._adopted = dict(repository.log.dictionaries if adopted is None else adopted)
        self._lock = threading.Lock()
        self._trials: dict[str, _Trial] = {}
        self._new: dict[str, bytes] = {}
        self._gains: dict[bytes, float] = {}
        if trials and adopted is None:
            self._begin_trials()

    def _begin_trials(self) -> None:
        before = _read(self._repository, _TRIALS, dict[bytes, tuple[int, int]])
        records = self._repository.log.records
        settled = {one for r in records if isinstance(r, DictionariesRecord) for one, _ in r.adopted}
        try:
            candidates = shipped()
        except SprayDryError:
            return
        for candidate in candidates:
            if candidate.frame_class not in settled | self._trials.keys():
                try:
                    dictionary = candidate.load()
                except DictionaryMissing:
                    continue
                while dictionary.digest in self._repository.log.dropped:
                    dictionary = another(dictionary)
                self._trials[candidate.frame_class] = _Trial(dictionary, *before.get(dictionary.digest, (0, 0)))

    def encode(self, chunks: Sequence[Buffer], frame_class: str, level: int) -> frames.Encoded:
        """A frame as frame.encode makes it."""
        dictionary = None
        wanted = self._adopted.get(frame_class)
        if wanted is not None and wanted not in self._repository.log.dropped:
            try:
                dictionary = self._repository.dictionary(wanted)
            except DictionaryMissing:
                self._adopted.pop(frame_class, None)
        encoded = frames.encode(chunks, frame_class, level, dictionary)
        trial = self._trials.get(frame_class)
        if trial is not None and trial.goes_on and encoded.header.codec == frames.ZSTD:
            with_it = frames.encode(chunks, frame_class, level, trial.dictionary)
            with self._lock:
                trial.note(len(encoded.stored), len(with_it.stored))
        return encoded

    @property
    def due(self) -> bool:
        """Whether something has paid by now, and `settle` would store it."""
        return any(trial.paid for trial in self._trials.values())

    def settle(self) -> None:
        """Take into use what has paid by now."""
        for frame_class, trial in list(self._trials.items()):
            if trial.dictionary.digest in self._repository.log.dropped:
                del self._trials[frame_class]
            elif trial.paid:
                keep(self._repository, trial.dictionary)
                self._adopted[frame_class] = self._new[frame_class] = trial.dictionary.digest
                self._gains[trial.dictionary.digest] = trial.saved / trial.plainly
                del self._trials[frame_class]

    def finish(self) -> None:
        """Commit what was taken into use, and remember what the other trials saved so far for the next writer."""
        if self._new:
            mine = {one: name for one, name in self._new.items() if one not in self._repository.log.dictionaries}
            with suppress(CollectedMeanwhile):  # what was stored with it is stored again before it is committed
                adopt(self._repository, mine, "ingest")
                remember_gains(self._repository, self._gains)
            self._new, self._gains = {}, {}
        savings = {
            trial.dictionary.digest: (trial.saved, trial.plainly) for trial in self._trials.values() if trial.saved > 0
        }
        if savings != _read(self._repository, _TRIALS, dict[bytes, tuple[int, int]]):
            self._repository.catalog.remember(_TRIALS, msgspec.msgpack.encode(savings))


@dataclass
class _Trial:
    """What a dictionary would have `saved` so far in frames that take `plainly` bytes; the rest is of this run."""

    dictionary: frames.Dictionary
    saved: int
    plainly: int
    tries: int = 0
    saved_here: int = 0
    plainly_here: int = 0

    @property
    def goes_on(self) -> bool:
        return self.tries < _TRIES or self.saved_here * _WORTH >= self.plainly_here

    @property
    def paid(self) -> bool:
        return self.saved >= len(self.dictionary.plain)

    def note(self, without_bytes: int, with_bytes: int) -> None:
        self.tries += 1
        self.saved += without_bytes - with_bytes
        self.saved_here += without_bytes - with_bytes
        self.plainly += without_bytes
        self.plainly_here += without_bytes


def _read(repository: Repository, key: str, kind: type[dict[bytes, V]]) -> dict[bytes, V]:
    remembered = repository.catalog.state(key)
    try:
        found: dict[bytes, V] = msgspec.msgpack.decode(remembered, type=kind) if remembered else {}
    except msgspec.MsgspecError:
        return {}  # what is remembered only spares a trial, or tells people something
    return {name: value for name, value in found.items() if len(name) == DIGEST_BYTES}
