"""What a repository holds and what it takes, in numbers."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from spraydry.actions.hoard import HoardInfo, hoards
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class ClassUsage:
    """The frames of one class with one dictionary (hex digest, or None)."""

    frame_class: str
    dictionary: str | None
    frames: int
    plain_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class RootUsage:
    """A root: its newest version, and that one's totals."""

    root: str
    newest: str
    versions: int
    made_ns: int
    files: int
    bytes: int


@dataclass(frozen=True)
class Info:
    """`logical_bytes` is what all versions and keys would take side by side, `plain_bytes` what was left after
    deduplication, `stored_bytes` what that is in frames; `file_bytes` the size of the local file, if there is one."""

    url: str
    repository: str
    slots: int
    roots: list[RootUsage]
    hoards: list[HoardInfo]
    versions: int
    logical_bytes: int
    chunks: int
    frames: int
    plain_bytes: int
    stored_bytes: int
    file_bytes: int | None
    classes: list[ClassUsage]
    builds_on: list[str]  # of a bundle: the versions it lacks what they have of
    origin: str | None  # of a lazy clone: where it was cloned from
    frames_here: int | None  # of a lazy clone: how many of the frames were fetched


def info(repository: Repository) -> Info:
    """Sum up a repository from its log and catalog; of frames it reads only those with trees
    of hoards."""
    log = repository.log
    roots = []
    logical, count = 0, 0
    for root in log.roots():
        versions = {version.made_in: version for version in log.versions(root)}
        logical += sum(version.record.entry.totals.size for version in versions.values())
        count += len(versions)
        newest = log.find(root)
        totals = newest.record.entry.totals
        roots.append(RootUsage(root, newest.name, len(versions), newest.record.made_ns, totals.files, totals.size))
    kept = hoards(repository)
    logical += sum(hoard.bytes for hoard in kept)
    classes = [
        ClassUsage(
            usage.frame_class,
            usage.dictionary.hex() if usage.dictionary else None,
            usage.frames,
            usage.plain,
            usage.stored,
        )
        for usage in repository.catalog.usage()
    ]
    location = repository.store.location()
    origin, bundle = repository.opened.origin, repository.opened.bundle
    return Info(
        url=repository.url,
        repository=repository.config.repository.hex(),
        slots=log.head[0],
        roots=roots,
        hoards=kept,
        versions=count,
        logical_bytes=logical,
        chunks=repository.catalog.chunks.rows_count(),
        frames=sum(usage.frames for usage in classes),
        plain_bytes=sum(usage.plain_bytes for usage in classes),
        stored_bytes=sum(usage.stored_bytes for usage in classes),
        file_bytes=_size(location) if location and repository.opened.spread is None else None,
        classes=classes,
        builds_on=[one.name for one in bundle.prerequisites] if bundle else [],
        origin=origin.url if origin else None,
        frames_here=sum(1 for _ in repository.store.list("frames")) if origin else None,
    )


def _size(location: str) -> int | None:
    try:
        status = os.stat(location)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
