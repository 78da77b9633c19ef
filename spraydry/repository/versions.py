"""What the log says of versions: under which names they are there, and which were removed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from spraydry.errors import RootNotFound, VersionExists, VersionNotFound
from spraydry.format.version import VersionRecord


@dataclass(frozen=True)
class Version:
    """A committed version under one of its names; `slot` is where this name was made, `made_in` the version itself."""

    root: str
    name: str
    slot: int
    made_in: int
    record: VersionRecord

    def __str__(self) -> str:
        return f"{self.root}@{self.name}"


class Versions:
    """The versions of a log, as far as it was read. Only the log changes it; other threads may read meanwhile."""

    def __init__(self) -> None:
        self._roots: dict[str, dict[str, Version]] = {}  # everything ever named, in order
        self._by_slot: dict[int, Version] = {}
        self._removals: dict[int, int] = {}  # what was removed, by the slot that did and was not revoked
        self._removed: set[int] = set()

    def _name(self, version: Version) -> None:
        self._roots.setdefault(version.root, {})[version.name] = self._by_slot[version.slot] = version

    def _remove(self, slot: int, removed: int) -> None:
        """Heed that `slot` removes what was made in another."""
        self._removals[slot] = removed
        self._removed.add(removed)

    def _bring_back(self, slot: int) -> None:
        """Heed that the removal in `slot` is taken back: what two removed is back when both were."""
        if self._removals.pop(slot, None) is not None:
            self._removed = set(self._removals.values())

    def roots(self) -> list[str]:
        """The names of the roots that have versions, sorted."""
        return sorted(root for root in tuple(self._roots) if self.versions(root))

    def versions(self, root: str) -> list[Version]:
        """The versions of a root under all their names, oldest first."""
        return [version for version in tuple(self._roots.get(root, {}).values()) if not self.is_removed(version)]

    def is_removed(self, version: Version) -> bool:
        """Whether this name of a version was removed."""
        return version.slot in self._removed

    def newest(self, root: str) -> Version | None:
        """The newest version of a root that is still there, under its first name still there."""
        versions = self.versions(root)
        made_in = max((version.made_in for version in versions), default=0)
        return next((version for version in versions if version.made_in == made_in), None)

    def find(self, root: str, name: str | None = None) -> Version:
        """A version by name (None and `latest`: the newest). Raises RootNotFound, VersionNotFound with near names."""
        versions = self.versions(root)
        if not versions:
            if root in self._roots:
                raise RootNotFound(
                    f"the root {root!r} has no versions any more: `spraydry log --removed {root}` shows what it had"
                )
            raise RootNotFound(f"there is no root {root!r}", _near(root, self.roots()))
        if name in (None, "latest"):
            newest = self.newest(root)
            assert newest is not None
            return newest
        for version in versions:
            if version.name == name:
                return version
        gone = f" any more (`spraydry undelete {root}@{name}` may bring it back)" if name in self._roots[root] else ""
        near = _near(name or "", [version.name for version in versions])
        raise VersionNotFound(f"{root!r} has no version {name!r}", gone + near)

    def named_in(self, slot: int) -> Version:
        """The version or tag made in a slot, removed or not. Raises VersionNotFound."""
        if slot not in self._by_slot:
            raise VersionNotFound(f"log slot {slot} names no version")
        return self._by_slot[slot]

    def used(self, root: str, name: str) -> Version | None:
        """What a name was given to, removed since or not; None where it never was."""
        return self._roots.get(root, {}).get(name)

    def check_unused(self, root: str, name: str) -> None:
        """Raises VersionExists when the name was ever used in this root."""
        if version := self.used(root, name):
            gone = " (it was removed, but names are never used twice)" if self.is_removed(version) else ""
            raise VersionExists(f"{root}@{name} exists{gone}: choose another name")

    def next_name(self, root: str) -> str:
        """The name a new version gets by itself: v1, v2, ..., never one that was used."""
        used = self._roots.get(root, {})
        number = 1 + max((int(name[1:]) for name in used if name[0] == "v" and name[1:].isdecimal()), default=0)
        return f"v{number}"

    def removed(self) -> Iterator[tuple[Version, int]]:
        """The versions of which no name is left, each under its first name, and the slot that took the last one."""
        gone: dict[int, int] = {}
        for slot, removed in self._removals.items():
            gone[removed] = max(slot, gone.get(removed, 0))
        names: dict[int, list[Version]] = {}
        for version in self._by_slot.values():
            names.setdefault(version.made_in, []).append(version)
        for versions in names.values():
            if all(map(self.is_removed, versions)):
                yield versions[0], max(gone[version.slot] for version in versions)

    def living(self) -> dict[int, VersionRecord]:
        """The records of all versions that have a name, by the slots they were made in."""
        return {
            version.made_in: version.record for version in tuple(self._by_slot.values()) if not self.is_removed(version)
        }


def _near(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 3, 0.5) or names[:3]
    return (
        f"; there is {', '.join(close)}" if close else "; there is nothing yet: `spraydry ingest DIR` makes the first"
    )
