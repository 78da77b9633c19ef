"""Uploaded index runs: taken only when each row is what decoding the frame gave."""

from __future__ import annotations

from collections.abc import Iterable

from spraydry.errors import CorruptData, UploadRefused, ValueNotFound
from spraydry.format.digest import digest
from spraydry.format.run import FrameInfo, Row, decode_run
from spraydry.repository.repository import Repository
from spraydry.web.keyvalue.frames import Chunk, Decoded


def check_run(repository: Repository, decoded: Decoded, name: str, value: bytes) -> tuple[list[FrameInfo], list[Row]]:
    """What a run of that name holds. Raises UploadRefused unless all of it is true: a row that lies would make a
    version count on a chunk which nobody has."""
    if digest(value).hex() != name:
        raise UploadRefused(f"index run {name} was not stored: the bytes that came are not those of its name")
    try:
        infos, rows = decode_run(value)
        taken = list(rows)
    except CorruptData as error:
        raise UploadRefused(f"index run {name} was not stored: {error}") from None
    if len({info.name for info in infos}) < len(infos):
        raise UploadRefused(f"index run {name} was not stored: it names a frame twice")
    claimed: dict[int, set[Chunk]] = {}
    for row in taken:
        claimed.setdefault(row.frame, set()).add((row.digest, row.offset, row.length))
    unsure = []
    for place, info in enumerate(infos):
        if (known := decoded.of(info.name)) is None:
            unsure.append(place)
        else:
            _compare(info, claimed.get(place, set()), *known)
    for place in _untold(repository, infos, claimed, unsure):
        info = infos[place]
        try:
            held = decoded.read(info.name)
        except ValueNotFound:
            raise UploadRefused(
                f"index run {name} was not stored: it names frame {info.name.hex()}, which is not here"
            ) from None
        _compare(info, claimed.get(place, set()), *held)
    return list(infos), taken


def _untold(
    repository: Repository, infos: tuple[FrameInfo, ...], claimed: dict[int, set[Chunk]], unsure: Iterable[int]
) -> list[int]:
    """Those of the unsure frames of which the catalog does not say all the same from when they were decoded here."""
    catalog = repository.catalog
    trusted = [place for place in unsure if catalog.frame(infos[place].name) == infos[place]]
    trusted = [place for place in trusted if catalog.trusts(infos[place].name)]
    names = {infos[place].name for place in trusted}
    asked = sorted({chunk[0] for place in trusted for chunk in claimed.get(place, ())})
    told = {
        (frame, chunk, offset, length)
        for frame, chunk, offset, length in catalog.chunks.rows_of(asked)
        if frame in names
    }
    good = {place for place in trusted if all((infos[place].name, *chunk) in told for chunk in claimed.get(place, ()))}
    return [place for place in unsure if place not in good]


def _compare(claim: FrameInfo, claimed: set[Chunk], info: FrameInfo, chunks: frozenset[Chunk]) -> None:
    if claim != info or not claimed <= chunks:
        raise UploadRefused(f"the index run was not stored: what it says of frame {claim.name.hex()} is not so")
