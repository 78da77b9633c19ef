"""Chunks as a repair sees them: what is lost is asked for elsewhere, and counts as there once it was had."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from spraydry.actions.repair.cures import Cured, Cures
from spraydry.actions.verify.chunks import Sound
from spraydry.format.classes import TREE
from spraydry.repository.repository import Repository
from spraydry.repository.writer import Writer


@dataclass
class Had:
    """What was had from one place."""

    chunks: int = 0
    bytes: int = 0


class Mended(Sound):
    """The chunks of a repository while it is mended. `keep` takes the pages that were had, so that trees can be read
    before anything is stored; with a `writer` all is stored. About 100 bytes of memory for each chunk that was lost.

    `foreign` frames cannot be read by this program, and what is only in them counts neither as there nor as lost.
    """

    def __init__(
        self,
        repository: Repository,
        bad_frames: Iterable[bytes],
        foreign: set[bytes],
        cures: Cures,
        keep: Callable[[bytes, bytes], None],
        writer: Writer | None,
        had: dict[str, Had],
    ) -> None:
        # What is whole in a damaged frame is to be stored anew, so it counts as lost until it was had from there.
        super().__init__(repository, dict.fromkeys(bad_frames, ()))
        self.lost: set[bytes] = set()
        self.had = had
        self.not_understood: set[bytes] = set()
        self._cured: set[bytes] = set()
        self._foreign = foreign
        self._cures = cures
        self._keep = keep
        self._writer = writer

    def unsound(self, names: Sequence[bytes]) -> dict[bytes, str]:
        found = super().unsound([name for name in names if name not in self._cured])
        self.take(self._cures.find(name for name in found if name not in self.lost))
        found = {name: why for name, why in found.items() if name not in self._cured}
        for name in found:
            places = self.repository.catalog.chunks.locate(name)
            if any(place.frame in self._foreign for place in places):
                self.not_understood.add(name)
            self.lost.add(name)
        return found

    @property
    def lost_pages(self) -> bool:
        """Whether what is lost may be a page of a tree or of a manifest: then nobody knows what else versions need."""
        return any(self._class_of(name) == TREE for name in self.lost)

    def is_nowhere(self, name: bytes) -> bool:
        """Whether a chunk, needed or not, can be had neither from a sound frame nor was had from elsewhere."""
        return name not in self._cured and bool(super().unsound([name]))

    def read(self, name: bytes) -> memoryview:
        self.unsound([name])  # which has it from elsewhere, if it is lost
        return super().read(name)

    def take(self, cured: Iterable[Cured]) -> int:
        """Let chunks that were had count as there; how many they were."""
        count = 0
        for name, plain, origin in cured:
            if name in self._cured:
                continue
            frame_class = self._class_of(name)
            if frame_class == TREE:
                self._keep(name, plain)
            if self._writer is not None:
                self._writer.add(name, plain, frame_class, known=False)
            self._cured.add(name)
            self.lost.discard(name)
            had = self.had.setdefault(origin, Had())
            had.chunks += 1
            had.bytes += len(plain)
            count += 1
        return count

    def _class_of(self, name: bytes) -> str:
        """The class a chunk was stored with; that of pages where nothing knows: it may be one."""
        for place in self.repository.catalog.chunks.locate(name):
            if (info := self.repository.catalog.frame(place.frame)) is not None:
                return info.frame_class
        return TREE
