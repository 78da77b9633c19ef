"""Over how many frames a file's chunks are spread, and what that takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from spraydry.actions.progress import Done, Report, unheard
from spraydry.format.entry import Entry
from spraydry.format.manifest import Span
from spraydry.format.run import FrameInfo
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans

_TOGETHER = 1000


@dataclass(frozen=True)
class Spread:
    """Of a file, or its first `chunks` chunks where it has more (`whole` is False): `frames` hold them,
    `plain_bytes` are those of the chunks, `stored_bytes` is their share of what those frames
    take, an estimate. `dictionaries` and `classes` are those of the frames; `missing` chunks are in no frame."""

    chunks: int
    hole_bytes: int
    frames: int
    plain_bytes: int
    stored_bytes: int
    classes: tuple[str, ...]
    dictionaries: tuple[bytes, ...]
    missing: int
    whole: bool


def spread(repository: Repository, entry: Entry, most_chunks: int, report: Report = unheard) -> Spread:
    """Where the chunks of a regular file lie. Reads its manifest and the catalog, no content. Raises CorruptData."""
    following = spans(entry, repository.read_chunk)
    frames: dict[bytes, FrameInfo | None] = {}
    counted = holes = plain = missing = 0
    stored = 0.0
    classes: set[str] = set()
    dictionaries: set[bytes] = set()
    whole = True
    while batch := list(islice(following, _TOGETHER)):
        report(Done("locating", counted, counted="chunks"))
        if counted >= most_chunks:
            whole = False
            break
        holes += sum(span.length for span in batch if span.chunk is None)
        names = list(_names(batch))
        places = repository.catalog.chunks.places(list(set(names)))
        for name in names:
            counted += 1
            if name not in places:
                missing += 1
                continue
            place = places[name][1]
            if place.frame not in frames:
                frames[place.frame] = repository.catalog.frame(place.frame)
            info = frames[place.frame]
            if info is None:
                missing += 1
                continue
            plain += place.length
            stored += place.length * info.stored / info.plain
            classes.add(info.frame_class)
            if info.dictionary is not None:
                dictionaries.add(info.dictionary)
    return Spread(
        counted,
        holes,
        len(frames),
        plain,
        round(stored),
        tuple(sorted(classes)),
        tuple(sorted(dictionaries)),
        missing,
        whole,
    )


def _names(batch: list[Span]) -> Iterator[bytes]:
    return (span.chunk for span in batch if span.chunk is not None)
