"""New versions of roots that lack something: all that can be read, and what they lack told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spraydry.actions.commit import Proposal, commit
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.repair.mending import Mended
from spraydry.actions.repair.prune import Lack, Pruner, with_lacks
from spraydry.actions.verify.trees import TreeChecker
from spraydry.format.entry import DIRECTORY, Entry
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer


@dataclass(frozen=True)
class Without:
    """A version `of` which something is lost, and what stands in its place: `entry` and `links`, without exactly what
    it `lacks`. No `entry`: nothing of it is left. `made` is the version that was committed; None in a plan, or where
    another writer committed to the root meanwhile."""

    of: Version
    lacks: list[Lack] = field(default_factory=list)
    entry: Entry | None = None
    links: bytes | None = None
    made: Version | None = None


def make_without(
    theatre: Theatre, mended: Mended, checker: TreeChecker, version: Version, writer: Writer | None
) -> Without:
    """The tree of a version without what is lost; its pages lie in the theatre. Raises StoreError."""
    record = version.record
    if record.entry.kind != DIRECTORY:
        return Without(version, [(b"", "the file itself is lost")])
    pruner = Pruner(mended, checker, theatre.surgery.emit)
    entry = pruner.pruned(record.entry)
    if entry.totals.inodes == 1 < record.entry.totals.inodes:
        return Without(version, pruner.lacks)
    part = Part(entry, None) if record.links is None else theatre.counted(entry)
    lacks = pruner.lacks
    if lacks:
        part = part._replace(entry=with_lacks(part.entry, lacks, mended, writer))
    return Without(version, lacks, part.entry, part.links)


def commit_without(
    repository: Repository, theatre: Theatre, writer: Writer, without: Without, began_at: int
) -> Without:
    """Store what was made, and commit it as the newest version of its root."""
    assert without.entry is not None
    before = replace(writer.written)
    theatre.store(writer, Part(without.entry, without.links))
    written = writer.finish()
    record = without.of.record
    with repository.batch():
        repository.log.read()
        newest = repository.log.newest(record.root)
        if newest is None or newest.made_in != without.of.made_in:
            return without
        proposal = Proposal(
            record.root,
            None,
            without.entry,
            without.links,
            record.spec,
            record.users,
            record.groups,
            "repair",
            incomplete=record.incomplete or bool(without.lacks),
            new_bytes=written.plain_bytes - before.plain_bytes,
            stored_bytes=written.stored_bytes - before.stored_bytes,
        )
        return replace(without, made=commit(repository, proposal, began_at).version)
