"""Marking what lives: the chunks of versions, of removed ones that a lease keeps, and of hoards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from spraydry.actions.closure import chunks_of, chunks_of_hoard
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import CorruptData, NotFound, SprayDryError
from spraydry.format.version import VersionRecord
from spraydry.repository.hoards import View
from spraydry.repository.leases import Held
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository

_TOLD_EVERY = 1000


def mark_versions(
    repository: Repository, marks: Marks, versions: Mapping[int, VersionRecord], report: Report = unheard
) -> None:
    """Mark all that versions need, by the slots they were made in. What several share is walked once.

    Raises CorruptData, naming the version, where one cannot be walked: then nobody knows what it needs.
    """
    for at, (slot, record) in enumerate(versions.items()):
        names = chunks_of(repository, record.entry, record.links, marks.unwalked)
        try:
            marks.add(_told(names, report, Done("marking", at, 0, len(versions), counted="versions")))
        except (NotFound, CorruptData) as error:
            raise unreadable(repository, slot, error) from None
    report(Done("marking", len(versions), 0, len(versions), counted="versions"))


def mark_hoards(repository: Repository, marks: Marks, views: Mapping[str, View], report: Report = unheard) -> None:
    """Mark all that hoards need. Raises CorruptData, naming the hoard, where it cannot be told."""
    for at, (hoard, view) in enumerate(views.items()):
        names = chunks_of_hoard(repository, view, marks.unwalked)
        try:
            marks.add(_told(names, report, Done("marking", at, 0, len(views), counted="hoards")))
        except (NotFound, CorruptData) as error:
            raise CorruptData(
                f"nothing is collected: what the hoard {hoard} needs cannot be told ({error}); `spraydry repair` first"
            ) from None


def unreadable(repository: Repository, slot: int, error: SprayDryError) -> CorruptData:
    """The error of a version that cannot be walked."""
    version = repository.log.named_in(slot)
    return CorruptData(
        f"nothing is collected: what {version} needs cannot be told ({error}); repair it, or remove it with"
        f" `spraydry rm {version}`"
    )


def kept_removed(repository: Repository, leases: Collection[Held]) -> dict[int, VersionRecord]:
    """The removed versions that leases keep, by the slots they were made in."""
    return {
        version.made_in: version.record
        for version, removed_in in repository.log.removed()
        if any(lease.keeps(version.made_in, removed_in) for lease in leases)
    }


def mark_removed(repository: Repository, marks: Marks, versions: Mapping[int, VersionRecord]) -> None:
    """Mark what removed versions need, as far as it is still there."""
    for record in versions.values():
        try:
            # Not with `unwalked`: what is cut short here must not count as walked for versions that share it.
            marks.add(chunks_of(repository, record.entry, record.links))
        except (NotFound, CorruptData):
            continue


def _told(names: Iterable[bytes], report: Report, done: Done) -> Iterator[bytes]:
    for count, name in enumerate(names):
        if count % _TOLD_EVERY == 0:
            report(done)
        yield name
