"""Sources of an ingest that are in the repository already, written `root:NAME[@VERSION][:PATH]`: nothing is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spraydry.actions.commit import Proposal
from spraydry.actions.compose.evaluate import merged
from spraydry.actions.compose.theatre import Part, Theatre
from spraydry.actions.ingest.build import Built
from spraydry.errors import UsageError
from spraydry.format.entry import DIRECTORY, Totals
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository

PREFIX = b"root:"


@dataclass(frozen=True)
class Roots:
    """What such sources name, in the order of the names under which they stand; b"" for one that is the root itself."""

    sources: list[tuple[bytes, Found]]

    @property
    def totals(self) -> Totals:
        """Of all of them together."""
        return sum((found.entry.totals for _, found in self.sources), Totals())

    def laid(self, theatre: Theatre, built: Built) -> Built:
        """What was built of the other sources, with these beside them; new pages are the theatre's."""
        part = Part(built.entry, built.links)
        for name, found in self.sources:
            record = found.version.record
            taken = theatre.take(Part(record.entry, record.links), found.path)
            assert taken is not None
            part = theatre.lay(part, taken, name) if name else taken
        return Built(part.entry, part.links)

    def joined(self, proposal: Proposal) -> Proposal:
        """A version that holds them, too: with the names of their owners, incomplete if one of theirs is."""
        records = [found.version.record for _, found in self.sources]
        return replace(
            proposal,
            users=merged([proposal.users, *(record.users for record in records)]),
            groups=merged([proposal.groups, *(record.groups for record in records)]),
            incomplete=proposal.incomplete or any(record.incomplete for record in records),
        )


def told_apart(repository: Repository, sources: Sequence[str | bytes]) -> tuple[list[bytes], Roots]:
    """The absolute paths of sources that are files, and those that are in the repository. Raises UsageError, NotFound.

    A file that is called like that is written `./root:...`.
    """
    paths: list[bytes] = []
    found: list[tuple[bytes, Found]] = []
    for source in map(os.fsencode, sources):
        if not source.startswith(PREFIX):
            paths.append(os.path.abspath(source))
            continue
        one = repository.resolve(os.fsdecode(source[len(PREFIX) :]))
        name = one.path.rpartition(b"/")[2] or os.fsencode(one.version.root)
        alone = len(sources) == 1 and one.entry.kind == DIRECTORY
        found.append((b"" if alone else name, one))
    names = [name for name, _ in found] + [os.path.basename(path) for path in paths]
    for name in names:
        if found and names.count(name) > 1:
            raise UsageError(
                f"two sources are called {os.fsdecode(name)!r}: `spraydry compose` puts one somewhere else"
            )
    return paths, Roots(sorted(found, key=lambda source: source[0]))
