"""Which two things are compared: what the addresses given to `spraydry diff` name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spraydry.errors import PathNotFound, UsageError, VersionNotFound
from spraydry.format.entry import Entry
from spraydry.repository.address import Address, parse, resolve
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version


@dataclass(frozen=True)
class Side:
    """An entry of a version; None where the version holds nothing at that path."""

    version: Version
    path: bytes
    entry: Entry | None

    @property
    def name(self) -> bytes:
        """The last name of the path, or the root's."""
        return self.path.rpartition(b"/")[2] or os.fsencode(self.version.root)

    def __str__(self) -> str:
        return f"{self.version}:{os.fsdecode(self.path)}" if self.path else str(self.version)


def sides(repository: Repository, addresses: Sequence[str]) -> tuple[Side, Side]:
    """The two sides named by one or two addresses and perhaps a `:PATH` for both of them.

    One version alone is compared with the newest of its root, a root alone with the version before its newest. A path
    may be missing on one side where it is given once for both. Raises UsageError, NotFound.
    """
    addresses = list(addresses)
    path = addresses.pop() if len(addresses) > 1 and addresses[-1].startswith(":") else None
    if not 1 <= len(addresses) <= 2:
        raise UsageError("name one or two versions: spraydry diff ROOT@VERSION [ROOT@VERSION] [:PATH]")
    parsed = [parse(address) for address in addresses]
    if path is not None:
        if any(address.path for address in parsed):
            raise UsageError(f"{path} is a path for both sides, and one of them has its own: leave one away")
        parsed = [replace(address, path=parse(f"-{path}").path) for address in parsed]
    if len(parsed) == 2:
        before, after = parsed
    else:
        before, after = _with_newest(repository, parsed[0])
    if path is None and len(parsed) == 2:
        return _found(repository, before), _found(repository, after)
    return _one_may_lack(repository, before, after)


def _with_newest(repository: Repository, address: Address) -> tuple[Address, Address]:
    newest = repository.log.find(address.root)
    if address.version is not None:
        return address, replace(address, version=newest.name)
    older = [one for one in repository.log.versions(address.root) if one.made_in < newest.made_in]
    if not older:
        raise VersionNotFound(f"{newest} is the only version of its root: there is none before it to compare with")
    before = max(older, key=lambda one: one.made_in)
    return replace(address, version=before.name), replace(address, version=newest.name)


def _found(repository: Repository, address: Address) -> Side:
    found = resolve(repository, address)
    return Side(found.version, found.path, found.entry)


def _one_may_lack(repository: Repository, *addresses: Address) -> tuple[Side, Side]:
    found: list[Side] = []
    missing: PathNotFound | None = None
    for address in addresses:
        try:
            found.append(_found(repository, address))
        except PathNotFound as error:
            if missing is not None:
                raise
            missing = error
            found.append(Side(repository.log.find(address.root, address.version), address.path, None))
    return found[0], found[1]
