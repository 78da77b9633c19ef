"""What is to be transferred: the versions that were named, less those that are there, and none under a taken name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from spraydry.errors import UsageError, VersionExists
from spraydry.format.digest import digest
from spraydry.format.version import TagRecord, VersionRecord, check_new_name
from spraydry.repository.address import parse
from spraydry.repository.log import Log
from spraydry.repository.versions import Version

_TOLD = 5


@dataclass(frozen=True)
class Item:
    """One version to be transferred, under the names that are missing. `there` is the slot in the target of the same
    version under another name, None where its content is to be sent."""

    record: VersionRecord
    names: list[Version]
    there: int | None

    def __str__(self) -> str:
        return str(self.names[0])


@dataclass
class Choice:
    """`items` by age; `existing` are there already, `removed` were there and are no more, and stay away."""

    items: list[Item] = field(default_factory=list)
    existing: list[Version] = field(default_factory=list)
    removed: list[Version] = field(default_factory=list)


def named(log: Log, addresses: Sequence[str]) -> list[Version]:
    """The versions that addresses mean, oldest first: ROOT all of a root under all names, ROOT@VERSION one; none given,
    everything. Raises UsageError, RootNotFound, VersionNotFound."""
    found: dict[int, Version] = {}
    for text in addresses or log.roots():
        address = parse(text)
        if address.path:
            raise UsageError(f"{text!r}: versions are transferred whole; name ROOT or ROOT@VERSION")
        one = log.find(address.root, address.version)  # says which there are, if this is none
        for version in [one] if address.version else log.versions(address.root):
            found[version.slot] = version
    return sorted(found.values(), key=lambda version: (version.made_in, version.slot))


def renamed(versions: Sequence[Version], root: str) -> list[Version]:
    """Versions of one root as those of another. Raises UsageError for a name that cannot be, and for several roots."""
    check_new_name(root, "root")
    if len({version.root for version in versions}) > 1:
        raise UsageError("--root gives one root another name: name one root")
    return [replace(version, root=root) for version in versions]


def choose(versions: Sequence[Version], source: Log, target: Log) -> Choice:
    """What of `versions` of `source` a repository with the log `target` lacks. Raises VersionExists, naming all whose
    names are taken there by something else."""
    choice = Choice()
    taken: list[Version] = []
    groups: dict[int, list[Version]] = {}
    for version in versions:
        other = target.used(version.root, version.name)
        if other is None:
            groups.setdefault(version.made_in, []).append(version)
        elif not same_content(version.record, other.record):
            taken.append(version)
        elif target.is_removed(other):
            choice.removed.append(version)
        else:
            choice.existing.append(version)
    if taken:
        names = ", ".join(map(str, taken[:_TOLD])) + (f" and {len(taken) - _TOLD} more" if len(taken) > _TOLD else "")
        one = len(taken) == 1
        raise VersionExists(
            f"{names} {'is' if one else 'are'} there with other content (or {'was' if one else 'were'}, and"
            f" {'was' if one else 'were'} removed; names are never used twice): nothing was transferred; send it under"
            " another root with --root NEW"
        )
    for group in groups.values():
        choice.items.append(Item(group[0].record, group, _slot(group[0], source, target)))
    return choice


def _slot(version: Version, source: Log, target: Log) -> int | None:
    """Where the target has the same version under another name."""
    record = version.record
    names = [other.name for other in source.versions(record.root) if other.made_in == version.made_in]
    for name in [record.name, *names]:
        there = target.used(version.root, name)
        if there is not None and not target.is_removed(there) and same_content(record, there.record):
            return there.made_in
    return None


def records(item: Item, source: Log) -> list[VersionRecord | TagRecord]:
    """What is to be appended for an item: the version, unless it is there, then its further names, for which the slot
    of the version is to be filled in."""
    made: list[VersionRecord | TagRecord] = []
    for version in item.names:
        origin = source.records[version.slot - 1]
        assert isinstance(origin, VersionRecord | TagRecord)
        if item.there is None and not made:
            made.append(msgspec.structs.replace(item.record, root=version.root, name=version.name))
            continue
        made.append(
            TagRecord(
                format=origin.format,
                previous=origin.previous,
                made_ns=origin.made_ns,
                made_by=origin.made_by,
                root=version.root,
                name=version.name,
                slot=version.made_in,
            )
        )
    return made


def same_content(one: VersionRecord, other: VersionRecord) -> bool:
    """Whether two versions show the same, whoever made them when."""
    return (one.entry, one.links, one.incomplete) == (other.entry, other.links, other.incomplete)


def content_name(record: VersionRecord) -> bytes:
    """A digest that is the same for versions which show the same, in any repository."""
    return digest(msgspec.msgpack.encode((record.entry, record.links, record.incomplete)))
