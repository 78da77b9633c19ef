"""What a restore would do, counted without writing anything."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from spraydry.actions.restore.place import Place, open_target
from spraydry.actions.restore.steps import steps
from spraydry.format.entry import DIRECTORY, FILE
from spraydry.repository.address import Found
from spraydry.repository.repository import Repository


@dataclass
class Plan:
    """The numbers a restore will have; `replaced` counts what is in the way and would be removed first."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    replaced: int = 0


def plan(repository: Repository, found: Found, directory: str, *, overwrite: bool = False) -> Plan:
    """Count what `restore` with the same arguments will do. Raises what it would raise at its start."""
    place = None
    if os.path.lexists(directory):
        top = open_target(directory, overwrite)
        place = Place(top)
        os.close(top)
    try:
        return _count(repository, found, place)
    finally:
        if place is not None:
            place.close()


def _count(repository: Repository, found: Found, place: Place | None) -> Plan:
    result = Plan()
    missing = 0 if place is not None else 1  # how many directories deep the walk is in what is not there yet
    if found.entry.kind != DIRECTORY:
        _add(result, found, place)
        return result
    for step in steps(repository, found):
        if step.kind == "entry":
            _add(result, step.found, None if missing else place)
        elif step.kind == "enter":
            result.directories += 1
            if missing or place is None or not _enters(place, step.found.entry.name):
                missing += 1
                if missing == 1 and place is not None and _status(place, step.found.entry.name) is not None:
                    result.replaced += 1
        elif missing:
            missing -= 1
        elif place is not None and step.found is not found:
            os.close(place.leave())
    return result


def _add(result: Plan, found: Found, place: Place | None) -> None:
    if found.entry.kind == FILE:
        result.files += 1
        result.bytes += found.entry.size
    else:
        result.others += 1
    if place is not None:
        name = found.path.rpartition(b"/")[2] or os.fsencode(found.version.root)
        status = _status(place, name)
        result.replaced += status is not None and not stat.S_ISDIR(status.st_mode)


def _enters(place: Place, name: bytes) -> bool:
    try:
        place.enter(name)
    except OSError:
        return False
    return True


def _status(place: Place, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=place.fd, follow_symlinks=False)
    except OSError:
        return None
