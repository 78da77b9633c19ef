"""What versions, paths and hoards take up: their own bytes, what is stored of them, what removing them would free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from spraydry.actions.closure import chunks_of, chunks_of_hoard
from spraydry.actions.collect import mark_versions
from spraydry.actions.collect.marking import kept_removed, mark_hoards, mark_removed
from spraydry.actions.progress import Done, Report, unheard
from spraydry.errors import UsageError
from spraydry.format.entry import DIRECTORY, Entry, Subtree
from spraydry.repository.address import Found
from spraydry.repository.keys import Keys
from spraydry.repository.leases import heeded
from spraydry.repository.marks import Marks
from spraydry.repository.repository import Repository


@dataclass(frozen=True)
class Used:
    """What was named, in bytes. `apparent_bytes` is the size of the files, `plain_bytes` that of all chunks they need,
    each counted once, and `stored_bytes` what these take up. Removing exactly this would free `exclusive_bytes` of
    chunks, which now take `exclusive_stored_bytes`: both stored sizes are estimates, for frames hold several chunks."""

    files: int
    apparent_bytes: int
    plain_bytes: int
    stored_bytes: int
    exclusive_bytes: int
    exclusive_stored_bytes: int


def du(
    repository: Repository, addresses: Sequence[str], *, hoards: Collection[str] = (), report: Report = unheard
) -> Used:
    """What the set of all that is named, versions, paths and `hoards`, takes up; what several name counts once.

    A version is removed with its last name: naming only some of them frees nothing. Of a path, its version keeps the
    rest. Removed versions that a mount still shows count as there. Raises UsageError, RootNotFound, VersionNotFound,
    PathNotFound, HoardNotFound, CorruptData.
    """
    if not (addresses or hoards):
        raise UsageError("name a version, a path or a hoard: spraydry du ROOT[@VERSION][:PATH], or --hoard HOARD")
    own_hoards = {name: repository.log.hoards.existing(name) for name in hoards}
    items = _distinct([repository.resolve(address) for address in addresses])
    gone = _whole(repository, items)
    with Marks(repository.catalog) as others, Marks(repository.catalog) as own, Marks(repository.catalog) as all_of_it:
        paths: dict[int, list[bytes]] = {}
        for found in items:
            if found.path:
                paths.setdefault(found.version.made_in, []).append(found.path)
        living = repository.log.living()
        staying = {slot: record for slot, record in living.items() if slot not in gone and slot not in paths}
        mark_versions(repository, others, staying, report)
        views = repository.log.hoards.views()
        mark_hoards(repository, others, {name: view for name, view in views.items() if name not in own_hoards}, report)
        removed = kept_removed(repository, list(heeded(repository).values()))
        mark_removed(repository, others, {slot: record for slot, record in removed.items() if slot not in gone})
        for slot, below in paths.items():
            if slot not in gone:
                others.add(repository.links(living[slot].links).pages())
                others.add(beside(repository, living[slot].entry, below))
        for found in items:
            links = None if found.path else found.version.record.links
            names = chunks_of(repository, found.entry, links, all_of_it.unwalked)
            all_of_it.add(_told(names, report))
        keys = held_bytes = 0
        for view in own_hoards.values():
            for kept in Keys(view, repository.tree).list():
                keys, held_bytes = keys + 1, held_bytes + kept.size
        for view in own_hoards.values():
            all_of_it.add(_told(chunks_of_hoard(repository, view, all_of_it.unwalked), report))
        own.without(others, all_of_it.names())
        all_of_it.weigh()
        own.weigh()
        return Used(
            sum(found.entry.totals.files if found.entry.kind == DIRECTORY else 1 for found in items) + keys,
            sum(found.entry.totals.size if found.entry.kind == DIRECTORY else found.entry.size for found in items)
            + held_bytes,
            all_of_it.living_bytes(),
            all_of_it.stored_share(),
            own.living_bytes(),
            own.stored_share(),
        )


def _distinct(items: Sequence[Found]) -> list[Found]:
    """Without what lies in another of them."""
    chosen: dict[tuple[int, bytes], Found] = {}
    for found in sorted(items, key=lambda found: (found.version.made_in, len(found.path))):
        slot, path = found.version.made_in, found.path
        above = [b""] if path else []
        above += [path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"]
        if not any((slot, one) in chosen for one in above):
            chosen.setdefault((slot, path), found)
    return list(chosen.values())


def _whole(repository: Repository, items: Sequence[Found]) -> set[int]:
    """The versions, by the slots they were made in, of which every name is in the set."""
    named: dict[int, set[str]] = {}
    for found in items:
        if not found.path:
            named.setdefault(found.version.made_in, set()).add(found.version.name)
    return {
        slot
        for slot, names in named.items()
        if names >= {v.name for v in repository.versions(repository.log.named_in(slot).root) if v.made_in == slot}
    }


def beside(repository: Repository, top: Entry, paths: Collection[bytes]) -> Iterator[bytes]:
    """The chunks of a tree but for what lies at these paths. The directories above those stay, with their pages."""
    waiting: list[tuple[Entry, list[list[bytes]]]] = [(top, [path.split(b"/") for path in paths])]
    while waiting:
        directory, below = waiting.pop()
        if isinstance(directory.xattrs, bytes):
            yield directory.xattrs
        assert isinstance(directory.content, Subtree)
        tree = repository.tree(directory.content)
        yield from tree.pages()
        for child, _ in tree.entries():
            deeper = [parts[1:] for parts in below if parts[0] == child.name]
            if not deeper:
                yield from chunks_of(repository, child, None)
            elif all(deeper):
                waiting.append((child, deeper))


def _told(names: Iterator[bytes], report: Report) -> Iterator[bytes]:
    for count, name in enumerate(names):
        if count % 1000 == 0:
            report(Done("counting", count, counted="chunks"))
        yield name
