"""What dictionaries are trained from and measured on: fair samples of stored versions, stored frames and folders."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from spraydry.errors import SprayDryError, UsageError
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.classes import TREE, class_of
from spraydry.format.digest import Buffer, digest
from spraydry.format.entry import FILE, Subtree
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.run import FrameInfo
from spraydry.repository.address import walk
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans
from spraydry.repository.writer import FRAME_TARGET_BYTES

_SEED = b"spraydry train 1 "
# Of one file, from its beginning: more of the same file says little more.
SAMPLE_BYTES = 64 << 10
# Longer files are no samples: they are rare, and their manifests would have to be read to know what was held out.
MAX_FILE_BYTES = 8 << 20
_HELD_OUT_SHARE = 4

T = TypeVar("T")


class Lot(Generic[T]):
    """A random sample of what is offered, of about `limit_bytes`: the same whatever the order, each name once."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._drawn: list[tuple[int, int, T]] = []  # the largest number, negated, first
        self._numbers: set[int] = set()

    def offer(self, name: bytes, size: int, item: T) -> None:
        """Draw a number for an item from its name; those with the smallest stay, one more than fit."""
        number = _draw(name)
        if number in self._numbers:
            return
        heapq.heappush(self._drawn, (-number, size, item))
        self._numbers.add(number)
        self.held_bytes += size
        while self.held_bytes - self._drawn[0][1] >= self.limit_bytes:
            gone, size, _ = heapq.heappop(self._drawn)
            self._numbers.remove(-gone)
            self.held_bytes -= size

    def items(self) -> list[T]:
        """What was drawn, in the order of the numbers."""
        return [item for _, _, item in sorted(self._drawn, key=lambda drawn: -drawn[0])]


def _draw(name: bytes) -> int:
    return int.from_bytes(digest(_SEED + name), "big")


class Frame(NamedTuple):
    """A frame set aside: its chunks, the level it is stored with, and what it takes now (0: it is not stored)."""

    chunks: Sequence[Buffer]
    level: int
    stored_bytes: int


@dataclass(frozen=True)
class HeldOut:
    """The frames of a class on which dictionaries are measured, and the digests of the chunks in them."""

    frames: tuple[Frame, ...]
    names: frozenset[bytes]

    @property
    def plain_bytes(self) -> int:
        """The plain bytes of all of them."""
        return sum(len(chunk) for frame in self.frames for chunk in frame.chunks)


def held_out_frames(repository: Repository, classes: dict[str, int]) -> dict[str, HeldOut]:
    """Stored frames to measure on, for each class about as many plain bytes as given: just as they lie in the store.

    At most a quarter of a class; a damaged frame is passed over.
    """
    lots: dict[str, Lot[FrameInfo]] = {}
    totals = {frame_class: 0 for frame_class in classes}
    for usage in repository.catalog.usage():
        if usage.frame_class in totals:
            totals[usage.frame_class] += usage.plain
    for frame_class, limit_bytes in classes.items():
        lots[frame_class] = Lot(min(limit_bytes, totals[frame_class] // _HELD_OUT_SHARE))
    for _, info in repository.catalog.frames():
        if info.frame_class in lots:
            lots[info.frame_class].offer(info.name, info.plain, info)
    found = {}
    for frame_class, lot in lots.items():
        frames, names = [], set[bytes]()
        for info in lot.items():
            try:
                _, rows, plain = repository.decode_frame(info.name)
            except SprayDryError:
                continue
            names.update(row.digest for row in rows)
            chunks = [plain[row.offset : row.offset + row.length] for row in rows]
            frames.append(Frame(chunks, info.level, info.stored))
        found[frame_class] = HeldOut(tuple(frames), frozenset(names))
    return found


class Source(NamedTuple):
    """A file that may become a sample: chunks of the repository, or a path outside (or neither: nothing)."""

    chunks: tuple[bytes, ...]
    path: bytes | None


def stored_samples(
    repository: Repository, addresses: Iterable[str], lots: dict[str, Lot[Source]], held_out: dict[str, HeldOut]
) -> int:
    """Offer the files of stored versions to the lots of their classes, except those of which a part was held out.

    Tree pages are files of the class TREE. The number of files seen.
    """
    count = 0
    for address in addresses:
        for found in walk(repository, repository.resolve(address)):
            entry = found.entry
            if isinstance(entry.content, Subtree) and TREE in lots:
                for page in repository.tree(entry.content).pages():
                    _offer(lots[TREE], held_out.get(TREE), [page], len(repository.read_chunk(page)))
            frame_class = class_of(entry.name)
            if entry.kind == FILE and 0 < entry.size <= MAX_FILE_BYTES and frame_class in lots:
                count += 1
                names = [span.chunk for span in spans(entry, repository.read_chunk) if span.chunk is not None]
                _offer(lots[frame_class], held_out.get(frame_class), names, entry.size)
    return count


def _offer(lot: Lot[Source], held_out: HeldOut | None, names: list[bytes], size: int) -> None:
    if names and (held_out is None or held_out.names.isdisjoint(names)):
        lot.offer(b"".join(names), min(size, SAMPLE_BYTES), Source(tuple(names), None))


def read_samples(repository: Repository, lot: Lot[Source], held_out: HeldOut) -> list[bytes]:
    """The beginnings of the files that were drawn, without those that cannot be read or hold what was held out."""
    samples = []
    for source in lot.items():
        try:
            plain = b""
            if source.path is not None:
                with open(source.path, "rb") as file:
                    plain = file.read(MAX_FILE_BYTES)
                if not held_out.names.isdisjoint(name for name, _ in _cut(plain)):
                    continue
            for name in source.chunks:
                if len(plain) < SAMPLE_BYTES:
                    plain += repository.read_chunk(name)
            samples.append(plain[:SAMPLE_BYTES])
        except (OSError, SprayDryError):
            continue
    return samples


def folder_files(folder: str) -> Iterator[tuple[bytes, bytes, int]]:
    """The regular files below a folder, in a fixed order: name, path, size. Raises UsageError where there is none."""
    if not os.path.isdir(folder):
        raise UsageError(f"{folder!r} is no directory to take samples from")
    for path, folders, names in os.walk(os.fsencode(folder)):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(path, name)
            try:
                if os.path.isfile(full) and not os.path.islink(full):
                    yield name, full, os.path.getsize(full)
            except OSError:
                continue


def folder_samples(
    folder: str, lots: dict[str, Lot[Source]], apart: dict[str, Lot[Source]], totals: dict[str, int]
) -> int:
    """Offer the files below a folder to the lots of their classes; where there is one in `apart` for the class, that
    one gets every fourth file instead. Adds up the bytes of each class in `totals`. The number of files."""
    count = 0
    for name, path, size in folder_files(folder):
        frame_class = class_of(name)
        if 0 < size <= MAX_FILE_BYTES and frame_class in lots:
            count += 1
            totals[frame_class] = totals.get(frame_class, 0) + size
            aside = frame_class in apart and _draw(b"apart " + path) % _HELD_OUT_SHARE == 0
            lot = apart[frame_class] if aside else lots[frame_class]
            lot.offer(path, size if aside else min(size, SAMPLE_BYTES), Source((), path))
    return count


def framed(lot: Lot[Source]) -> HeldOut:
    """The outside files that were drawn, as an ingest would put them into frames."""
    frames: list[list[bytes]] = []
    names: set[bytes] = set()
    held = FRAME_TARGET_BYTES
    paths = [source.path for source in lot.items() if source.path is not None]
    for path in sorted(paths, key=lambda path: (os.path.basename(path), path)):
        try:
            with open(path, "rb") as file:
                plain = file.read(MAX_FILE_BYTES)
        except OSError:
            continue
        for name, chunk in _cut(plain):
            if name not in names:
                if held + len(chunk) > FRAME_TARGET_BYTES:
                    frames.append([])
                    held = 0
                names.add(name)
                frames[-1].append(chunk)
                held += len(chunk)
    return HeldOut(tuple(Frame(chunks, DEFAULT_LEVEL, 0) for chunks in frames), frozenset(names))


def _cut(plain: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 0
    for length in parse_spec(DEFAULT_SPEC).cut(plain):
        chunk = plain[at : at + length]
        chunks.append((digest(chunk), chunk))
        at += length
    return chunks
