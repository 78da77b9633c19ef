"""For tests of transfers: everything a version shows, read through verified chunks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from spraydry.format.version import VersionRecord
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.stores.over.meter import Meter


def shown(repository: Repository, address: str) -> dict[bytes, object]:
    """Entries by path, with the bytes of files."""
    found: dict[bytes, object] = {}
    for one in repository.walk(address):
        content = None
        if one.entry.file_digest is not None:
            with repository.open_file(one) as stream:
                content = stream.read()
        found[one.path] = (one.entry, content)
    return found


def kept(version: Version) -> VersionRecord:
    """What a transfer leaves as it is."""
    return msgspec.structs.replace(version.record, previous=b"", root="", name="")


def check_same(source: Repository, target: Repository, *addresses: str) -> None:
    """Versions (default: all of the source) show the same in both, and their records say the same."""
    for version in [source.resolve(one).version for one in addresses] or [
        version for root in source.roots() for version in source.versions(root)
    ]:
        there = target.resolve(str(version)).version
        assert kept(there) == kept(version)
        assert shown(target, str(version)) == shown(source, str(version))


def moved(repository: Repository, what: Callable[[], object]) -> tuple[int, int]:
    """The bytes that went into and came out of a repository that was opened metered, while `what` ran."""
    meter = repository.opened.meter
    assert isinstance(meter, Meter)
    before = _moved(meter)
    what()
    after = _moved(meter)
    return after[0] - before[0], after[1] - before[1]


def _moved(meter: Meter) -> tuple[int, int]:
    rows = meter.report()
    return sum(row.up_bytes for row in rows), sum(row.down_bytes for row in rows)


def place(tmp_path: Path, kind: str, name: str) -> str:
    """A URL for a repository of a kind on this machine."""
    return str(tmp_path / f"{name}.sqlite") if kind == "sqlite" else f"{kind}:{tmp_path / name}"
