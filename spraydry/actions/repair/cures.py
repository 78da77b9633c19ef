"""Where lost chunks can be had from: damaged frames that still give some of theirs, and other repositories."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from spraydry.actions.verify.frames import salvaged
from spraydry.errors import SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.parallel import ordered_map
from spraydry.repository.ahead import threads_of
from spraydry.repository.dictionaries import shipped
from spraydry.repository.opening import open_at
from spraydry.repository.repository import Repository
from spraydry.stores.base import Store


class Cured(NamedTuple):
    """A chunk that was lost: its name and bytes, verified, and where they were had from, in words."""

    name: bytes
    plain: bytes
    origin: str


class Remotes:
    """Other repositories, opened for reading. A copy of the same repository has the same frames, and is asked for these
    alone, for what this machine knows of it is what it knows of the original."""

    def __init__(self, repository: Repository, urls: Sequence[str]) -> None:
        self._closing = ExitStack()
        self.stores: list[tuple[str, Store]] = []
        self.repositories: list[Repository] = []
        try:
            for url in urls:
                opened = open_at(url, read_only=True)
                if opened.config.repository == repository.config.repository:
                    self._closing.callback(opened.store.close)
                    self.stores.append((url, opened.store))
                    continue
                opened.store.close()
                remote = self._closing.enter_context(Repository.open(url, read_only=True))
                self.stores.append((url, remote.store))
                self.repositories.append(remote)
        except BaseException:
            self._closing.close()
            raise

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def value(self, namespace: str, name: bytes) -> tuple[bytes, str] | None:
        """A value that is named by its digest, and where it was had from; None where none of them has it sound."""
        for url, store in self.stores:
            try:
                value = store.get(namespace, name.hex())
            except SprayDryError as error:
                if error.retryable:
                    raise
                continue
            if digest(value) == name:
                return value, url
        return None


class Cures:
    """Asks one place after the other. Blocks; for one thread. `bad` names for each damaged frame the chunks that can be
    had from it all the same."""

    def __init__(self, repository: Repository, bad: Mapping[bytes, Collection[bytes]], remotes: Remotes) -> None:
        self._repository = repository
        self._bad = bad
        self._remotes = remotes

    def find(self, names: Iterable[bytes]) -> Iterator[Cured]:
        """Those of the chunks that can be had."""
        missing = set(names)
        for found in self._from_condemned(set(missing)):
            missing.discard(found.name)
            yield found
        for found in self._from_frames(set(missing)):
            missing.discard(found.name)
            yield found
        for remote in self._remotes.repositories:
            for found in _from_remote(remote, sorted(missing)) if missing else ():
                missing.discard(found.name)
                yield found

    def _from_condemned(self, names: set[bytes]) -> Iterator[Cured]:
        condemned = self._repository.condemned()
        for name in sorted(names) if condemned else ():
            if any(place.frame in condemned for place in self._repository.catalog.chunks.locate(name)):
                try:
                    yield Cured(name, bytes(self._repository.read_chunk(name)), "condemned frames")
                except SprayDryError as error:
                    if error.retryable:
                        raise

    def _from_frames(self, names: set[bytes]) -> Iterator[Cured]:
        doing: dict[bytes, set[bytes]] = {}
        for name in names:
            for place in self._repository.catalog.chunks.locate(name):
                if name in self._bad.get(place.frame, ()):
                    doing.setdefault(place.frame, set()).add(name)
                    break
        for frame, wanted in sorted(doing.items()):
            for name, plain in salvaged(self._repository, frame.hex()):
                if name in wanted:
                    wanted.discard(name)
                    yield Cured(name, plain, "damaged frames")


def _from_remote(remote: Repository, names: Sequence[bytes]) -> Iterator[Cured]:
    def read(name: bytes) -> Cured | None:
        try:
            return Cured(name, bytes(remote.read_chunk(name)), remote.url)
        except SprayDryError as error:
            if error.retryable:
                raise
            return None  # it has lost that, too

    known = (name for name in names if remote.catalog.chunks.locate(name))
    for cured in ordered_map(read, known, threads_of(remote)):
        if cured is not None:
            yield cured


class MendedDictionaries(NamedTuple):
    """Dictionaries (in hex) that frames need: `restored` with where they were had from, and `lost` with why."""

    restored: dict[str, str]
    lost: dict[str, str]


def mend_dictionaries(repository: Repository, remotes: Remotes, write: bool) -> MendedDictionaries:
    """Have the dictionaries that frames need from the other repositories, or from those that come with spraydry, where
    they are gone or damaged; with `write` store them. Frames are decoded with them from now on."""
    mended = MendedDictionaries({}, {})
    needed = {usage.dictionary for usage in repository.catalog.usage()} | set(repository.log.dictionaries.values())
    for name in sorted(name for name in needed if name is not None):
        text = name.hex()
        try:
            frames.load_dictionary(name, repository.store.get("dictionaries", text))
            continue
        except SprayDryError as error:
            if error.retryable:
                raise
            why = str(error)
        found = _shipped(name) or remotes.value("dictionaries", name)
        if found is None:
            mended.lost[text] = why
            continue
        plain, mended.restored[text] = found
        repository.lend_dictionary(frames.load_dictionary(name, plain))
        if write:
            with repository.batch():
                repository.store.put("dictionaries", text, plain)
    return mended


def _shipped(name: bytes) -> tuple[bytes, str] | None:
    for one in shipped():
        if one.digest == name:
            try:
                return one.load().plain, "those that come with spraydry"
            except SprayDryError:
                continue
    return None
